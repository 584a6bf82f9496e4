"""A pull brings the named regular files and nothing else, whatever the host does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import (
    HostKeyChanged,
    TamperedTransfer,
    TransferFailed,
)
from fleet.inventory import load_inventory
from fleet.transport import PullRequest, SshConnector
from fleet.transport import rsync as rsync_module
from fleet.transport.rsync_outcome import raise_for
from fleet.transport.supervised import Ended, supervise
from tests.support.catalogue import attack, fault
from tests.support.sshd_farm import SshdFarm
from tests.support.yard import Yard

pytestmark = pytest.mark.openssh


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdFarm]:
    with SshdFarm(1, tmp_path_factory.mktemp("pull") / "farm") as running:
        yield running


@pytest.fixture
def yard(farm: SshdFarm, tmp_path: Path) -> Iterator[Yard]:
    with SshConnector() as connector:
        yield Yard(farm, connector.open(load_inventory(farm.hosts_file).get("eval1")), tmp_path)
    for left in farm.homes["eval1"].iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()


def test_named_files_arrive_private_with_their_times(yard: Yard) -> None:
    deep = yard.write("a/b/report.json", b"{}" * 1000)
    deep.chmod(0o4777)
    os.utime(deep, (1_000_000_000, 1_000_000_000))
    yard.write("not-asked-for", b"x")
    old = os.umask(0)
    try:
        result = yard.pull("a/b/report.json")
    finally:
        os.umask(old)
    arrived = yard.arrived()
    assert list(arrived) == ["a/b/report.json"]
    assert arrived["a/b/report.json"].st_mode & 0o7777 == 0o600
    assert arrived["a/b/report.json"].st_mtime == 1_000_000_000
    assert (yard.target / "a").stat().st_mode & 0o777 == 0o700
    assert result.bytes_received > 0
    assert not result.resumed


@fault("T6")
@attack("S1", "S2")
def test_links_fifos_and_devices_are_not_brought(yard: Yard, tmp_path: Path) -> None:
    yard.write("good", b"good")
    os.symlink("/etc/passwd", yard.source / "link")
    os.symlink("../../../../etc", yard.source / "dirlink")
    os.mkfifo(yard.source / "fifo")
    if os.getuid() == 0:
        os.mknod(yard.source / "device", 0o600 | 0o020000, os.makedev(1, 3))
    wanted = [name for name in ("good", "link", "dirlink", "fifo", "device") if os.path.lexists(yard.source / name)]
    yard.pull(*wanted)
    assert list(yard.arrived()) == ["good"]


@fault("T6")
@attack("S8")
def test_a_file_swapped_for_a_link_after_the_manifest_is_not_followed(yard: Yard) -> None:
    path = yard.write("report.json", b"{}")
    path.unlink()
    path.symlink_to("/etc/passwd")
    yard.pull("report.json")
    assert yard.arrived() == {}


def test_a_folder_swapped_for_a_link_arrives_as_a_folder(yard: Yard) -> None:
    elsewhere = yard.home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "x").write_text("secret")
    (yard.source / "a").symlink_to(elsewhere)
    yard.pull("a/x")
    # A host can put any bytes under a name that was asked for (its manifest decides), but no link arrives here.
    assert list(yard.arrived()) == ["a/x"]
    assert (yard.target / "a").is_dir()
    assert not (yard.target / "a").is_symlink()


@attack("S3")
def test_a_file_swapped_for_a_folder_full_of_extras_is_refused(yard: Yard) -> None:
    yard.write("report.json/authorized_keys", b"ssh-ed25519 evil")
    with pytest.raises(TamperedTransfer, match=r"report\.json/authorized_keys|nobody asked for"):
        yard.pull("report.json")


def test_a_sender_with_a_source_of_its_own_adds_nothing(yard: Yard) -> None:
    yard.write("good", b"good")
    evil = yard.home / "evil"
    evil.mkdir()
    (evil / "authorized_keys").write_text("ssh-ed25519 evil")
    yard.replace_rsync(f'#!/bin/sh\nexec /usr/bin/rsync "$@" {evil}/\n')
    with contextlib.suppress(TransferFailed, TamperedTransfer):
        yard.pull("good")
    assert set(yard.arrived()) <= {"good"}
    assert not list(yard.target.rglob("authorized_keys"))


@attack("S3")
def test_a_sender_that_rewrites_its_arguments_adds_nothing(yard: Yard) -> None:
    yard.write("good", b"good")
    evil = yard.home / "evil"
    evil.mkdir()
    (evil / "authorized_keys").write_text("ssh-ed25519 evil")
    yard.replace_rsync(
        f"""#!{sys.executable}
import os, sys
raw = b""
while not raw.endswith(b"\\0\\0"):
    raw += os.read(0, 1)
given = [part.decode() for part in raw[:-2].split(b"\\0")]
options = [item for item in given if item.startswith("-") and not item.startswith("--files-from")]
command = ["/usr/bin/rsync", "--server", "--sender", "-logDtpre.iLsfxCIvu".replace("s", ""), *options, ".", "{evil}/"]
os.execv(command[0], command)
"""
    )
    with pytest.raises((TransferFailed, TamperedTransfer)):
        yard.pull("good")
    assert not list(yard.target.rglob("authorized_keys"))


@attack("S3")
def test_an_extra_file_is_refused_even_when_rsync_is_content(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.write("good", b"good")

    def lenient(*arguments: Any, **keywords: Any) -> Ended:
        ended = supervise(*arguments, **keywords)
        (yard.target / "authorized_keys").write_text("evil")
        return ended

    monkeypatch.setattr(rsync_module, "supervise", lenient)
    with pytest.raises(TamperedTransfer, match="authorized_keys"):
        yard.pull("good")


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "-rf", "a\nb", "a\x1bb", "a b", "$(x)", "a\udcffb", "é", "x" * 256,
     "a/b/c/d/e/f/g/h/i", ".rsync-partial/x", "a/.rsync-partial/x"],
)  # fmt: skip
@attack("S4")
def test_a_name_that_could_do_harm_is_refused_before_rsync_runs(yard: Yard, name: str) -> None:
    with pytest.raises(TamperedTransfer, match="is refused"):
        yard.pull(name)


@pytest.mark.parametrize("source", ["relative", "-e", "/a\nb", ""])
def test_a_source_that_is_no_absolute_folder_is_refused(yard: Yard, source: str) -> None:
    with pytest.raises(TamperedTransfer):
        yard.transport.pull(PullRequest(source, ("x",), yard.target, 1, 1, 5))


def test_a_source_with_spaces_and_shell_text_is_only_a_name(yard: Yard) -> None:
    yard.source = yard.source / "a b$(touch pwned);touch pwned #'\"*"
    yard.write("good", b"good")
    yard.pull("good")
    assert list(yard.arrived()) == ["good"]
    assert not list(yard.farm.directory.rglob("pwned"))


@attack("S5")
def test_a_planted_link_in_the_staging_directory_is_refused(yard: Yard, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (yard.target / "a").symlink_to(victim)
    yard.write("a/x", b"x")
    with pytest.raises(TamperedTransfer, match="put into the staging directory"):
        yard.pull("a/x")
    assert list(victim.iterdir()) == []


@fault("T6")
@attack("S6")
def test_a_file_over_its_cap_stays_on_the_host(yard: Yard) -> None:
    yard.write("big", bytes(100_000))
    yard.write("small", b"x")
    yard.pull("big", "small", file_cap=50_000)
    assert list(yard.arrived()) == ["small"]


@attack("S6")
def test_more_than_the_cap_for_everything_is_refused(yard: Yard) -> None:
    for number in range(4):
        yard.write(f"f{number}", os.urandom(50_000))
    with pytest.raises(TamperedTransfer, match="more than the cap"):
        yard.pull("f0", "f1", "f2", "f3", total_cap=100_000)


@attack("S6")
def test_the_kernel_stops_a_file_that_outgrows_its_cap(tmp_path: Path) -> None:
    argv = [*rsync_module._limited(10_000), "dd", "if=/dev/zero", f"of={tmp_path / 'x'}", "bs=1k", "count=1000"]
    ended = supervise(argv, deadline_s=10, environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, over_limit=lambda: False)
    assert ended.code != 0
    assert (tmp_path / "x").stat().st_size <= 10_752
    with pytest.raises(TamperedTransfer, match="outgrew its cap"):
        raise_for(ended, "h")


@attack("S6")
def test_an_endless_sender_is_ended_by_the_watchdog(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "trap '' TERM; sleep 60 & sleep 60; wait"]
    started = time.monotonic()
    ended = supervise(argv, deadline_s=30, environment={"PATH": "/usr/bin:/bin"}, over_limit=lambda: True)
    assert ended.killed == "limit"
    assert time.monotonic() - started < 6
    with pytest.raises(TamperedTransfer, match="more than its cap"):
        raise_for(ended, "h")


@fault("T2")
@attack("S7")
def test_a_sender_that_says_nothing_costs_the_deadline(yard: Yard) -> None:
    yard.replace_rsync("#!/bin/sh\nsleep 60\n")
    started = time.monotonic()
    with pytest.raises(TransferFailed, match="took too long"):
        yard.pull("x", deadline_s=1.0)
    assert time.monotonic() - started < 5


def test_a_cut_is_resumed_and_gives_the_same_bytes(yard: Yard) -> None:
    data = os.urandom(80_000_000)
    yard.write("big", data)
    before = set(yard.farm.sessions("eval1"))

    def cut() -> None:
        while not any(path.stat().st_size > 4_000_000 for path in yard.target.rglob(".big.*")):
            time.sleep(0.005)
        for pid in set(yard.farm.sessions("eval1")) - before:
            os.kill(pid, signal.SIGKILL)

    cutter = threading.Thread(target=cut, daemon=True)
    cutter.start()
    with pytest.raises(TransferFailed, match=r"link was lost|could not reach") as caught:
        yard.pull("big")
    cutter.join(5)
    assert caught.value.hint
    result = yard.pull("big")
    assert result.resumed
    assert result.bytes_received < len(data)
    assert (yard.target / "big").read_bytes() == data
    assert list(yard.arrived()) == ["big"]
    assert not list(yard.target.rglob(".rsync-partial"))


def test_a_half_written_file_of_a_killed_controller_is_cleared_away(yard: Yard) -> None:
    yard.write("good", b"good")
    (yard.target / ".good.Xy12Za").write_bytes(b"ha")
    yard.pull("good")
    assert list(yard.arrived()) == ["good"]


@attack("S7")
def test_a_talking_shell_is_named(yard: Yard) -> None:
    (yard.home / ".bashrc").write_text("echo Welcome\n")
    with pytest.raises(TransferFailed) as caught:
        yard.pull("x")
    assert ".bashrc" in caught.value.hint


def test_a_host_without_rsync_is_named_with_the_command_that_installs_it(yard: Yard) -> None:
    (yard.home / ".bashrc").write_text("PATH=/nowhere\n")
    with pytest.raises(TransferFailed, match="rsync is not installed there") as caught:
        yard.pull("x")
    assert "apt install rsync" in caught.value.hint


def test_a_file_that_vanished_is_a_failed_transfer(yard: Yard) -> None:
    yard.write("good", b"x")
    with pytest.raises(TransferFailed, match="could not be read on the host"):
        yard.pull("good", "gone")


def test_rsync_trusts_only_the_key_that_the_connection_has_proven(farm: SshdFarm, yard: Yard) -> None:
    yard.write("good", b"x")
    original = farm.directory / "sshd" / "eval1.key"
    # Another machine takes over the address while our own connection is still open.
    farm.listeners["eval1"].terminate()
    farm.listeners["eval1"].wait(5)
    try:
        farm.start_host("eval1", key=farm.new_key("taken-over"))
        with pytest.raises(HostKeyChanged):
            yard.pull("good")
        assert yard.arrived() == {}
    finally:
        farm.stop_host("eval1")
        farm.start_host("eval1", key=original)


def test_no_data_and_no_dangerous_option_is_in_argv(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    modes: list[int] = []

    def spy(argv: list[str], **keywords: Any) -> Ended:
        seen.append(argv)
        config = Path(argv[argv.index("-e") + 1].split("'")[1])
        modes.extend(path.stat().st_mode & 0o777 for path in config.parent.iterdir())
        return supervise(argv, **keywords)

    monkeypatch.setattr(rsync_module, "supervise", spy)
    yard.write("good", b"x")
    yard.pull("good")
    (argv,) = seen
    assert not {"-a", "--archive", "--delete", "--inplace", "--trust-sender", "--links"} & set(argv)
    assert "--no-links" in argv
    assert "--secluded-args" in argv
    assert argv[-3] == "--"
    assert not any("good" in item or f"{yard.farm.user}@" in item or yard.farm.addresses["eval1"] in item for item in argv)
    assert set(modes) == {0o600}
