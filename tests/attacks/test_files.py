"""What fleet writes is its owner's alone from its first moment on, on both ends, whatever the umask."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.dispatch.files.batch import Batch
from fleet.dispatch.files.journal import Journal
from fleet.errors import StorageError
from fleet.model.records import ControllerLeft
from fleet.transport.known_hosts import HostKey, pin
from tests.support.canary import LeakyBatch, as_nobody, open_to_others
from tests.support.catalogue import attack
from tests.support.operator import finish
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh
AS_ROOT = pytest.mark.root
WITHOUT_CHMOD = [
    "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=chmod,fchmod,fchmodat",
    "-e", "inject=chmod,fchmod,fchmodat:retval=0",
]  # fmt: skip
"""Runs a program whose every chmod says that it succeeded and does nothing."""


@contextlib.contextmanager
def open_umask() -> Iterator[None]:
    """Let new files be everybody's unless who makes them says otherwise."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def without_outputs(found: list[str]) -> list[str]:
    """Leave out what the eval made: it has the umask of a login, inside a directory that only its owner may enter."""
    return [line for line in found if "/out/" not in line]


@attack("S40")
def test_with_umask_000_on_both_ends_everything_is_private(leaky: LeakyBatch) -> None:
    assert open_to_others(leaky.operator.collected / "night") == []
    assert open_to_others(leaky.state_home) == []
    assert (leaky.state_home / "fleet" / "known_hosts").exists()
    login = (leaky.farm.homes["eval1"] / "environment").stat().st_mode
    assert stat.S_IMODE(login) == 0o666, "the umask was 000 on the host too"
    for name in leaky.farm.names:
        assert without_outputs(open_to_others(leaky.farm.homes[name] / ".fleet")) == []
    assert list((leaky.directory / "tmp").iterdir()) == [], "what was needed for a moment is gone"


@attack("S40")
def test_a_directory_for_results_that_is_not_there_is_made_private(tmp_path: Path) -> None:
    with open_umask():
        Batch(tmp_path / "new" / "collected", "b").prepare()
        pin(tmp_path / "state" / "fleet" / "known_hosts", "eval1", HostKey("ssh-ed25519", b"k"))
    assert open_to_others(tmp_path / "new") == []
    assert open_to_others(tmp_path / "state") == []


@attack("S40")
def test_the_torn_end_of_a_journal_is_set_aside_privately(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    with open_umask():
        journal.append(ControllerLeft(why="done"))
        with journal.path.open("ab") as file:
            file.write(b'{"v": 1, "torn')
        journal.append(ControllerLeft(why="done"))
    assert journal.path.with_suffix(".torn").exists()
    assert [line for line in open_to_others(tmp_path) if not line.endswith(" .")] == []


@attack("S40")
def test_nothing_is_open_for_a_moment_and_closed_by_a_chmod_later(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    """Both ends run without a working chmod; what relied on one would be open now."""
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\necho >> {tmp_path}/ran\nexec {" ".join(WITHOUT_CHMOD)} {sys.executable} "$@"\n')
    python.chmod(0o755)
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["t-1"]}, env={"XDG_STATE_HOME": str(tmp_path / "state")})
    hosts = job.directory / "hosts.yaml"
    hosts.write_text(hosts.read_text().replace("defaults:\n", f"defaults:\n  python: {python}\n"))
    try:
        with open_umask():
            said = finish(job.start("dispatch", job.assignment, prefix=WITHOUT_CHMOD))
        assert said.code == 0, said.err
        assert (tmp_path / "ran").exists()
        assert open_to_others(job.collected) == []
        assert without_outputs(open_to_others(farm_hosts.homes["eval1"] / ".fleet")) == []
    finally:
        job.end()


@attack("S46")
@AS_ROOT
def test_another_user_reads_and_changes_nothing_of_what_fleet_wrote(leaky: LeakyBatch) -> None:
    homes = [leaky.farm.homes[name] / ".fleet" for name in leaky.farm.names]
    usable = ["(", "-readable", "-o", "-writable", "-o", "-executable", ")"]
    roots = [str(leaky.operator.collected / "night"), str(leaky.state_home), *map(str, homes)]
    found = as_nobody(["find", *roots, *usable])
    assert found.stdout == ""
    assert found.stderr.count("Permission denied") >= len(roots)
    for path in leaky.files(leaky.operator.collected, leaky.state_home, *homes)[::5]:
        assert as_nobody(["cat", str(path)]).returncode != 0, path
    control = as_nobody(["find", str(leaky.directory / "night.json"), *usable])
    assert control.stdout, "only fleet's own modes stand in the way"


@attack("S46")
@AS_ROOT
def test_there_is_no_socket_of_fleet_that_another_user_could_talk_to(leaky: LeakyBatch) -> None:
    """No control sockets of ssh, no listener; connections live and die with the process that opened them."""
    roots = [leaky.directory, Path("/tmp"), Path("/run/user")]
    left = [path for root in roots if root.exists() for path in root.glob("fleet-*/**/*") if path.is_socket()]
    assert left == []
    assert not [path for path in leaky.directory.rglob("*") if path.is_socket() or path.name.startswith("cm-")]


@attack("S46")
@AS_ROOT
@pytest.mark.parametrize("made", ["owned by another", "a link"])
def test_a_directory_that_another_user_prepared_is_not_written_to(tmp_path: Path, made: str) -> None:
    """Whoever owns the directory could exchange every file in it, whatever the files' modes."""
    collected = tmp_path / "collected"
    foreign = collected / "b"
    foreign.mkdir(parents=True)
    if made == "owned by another":
        os.chown(foreign, 65534, 65534)
    else:
        foreign.rmdir()
        (tmp_path / "elsewhere").mkdir()
        foreign.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="somebody else"):
        Batch(collected, "b").prepare()
    assert list(foreign.iterdir()) == []
