"""A pull brings the named regular files and nothing else, whatever the host does."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import (
    FleetError,
    HostKeyChanged,
    InputError,
    StorageError,
    TamperedTransfer,
    TransferFailed,
)
from fleet.inventory import load_inventory
from fleet.testing import LocalConnector, local_host
from fleet.transport import PullRequest, PullResult, SshConnector, Transport
from fleet.transport import rsync as rsync_module
from fleet.transport.rsync import find_client
from fleet.transport.rsync_outcome import raise_for
from fleet.transport.supervised import Ended, supervise
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh


class Yard:
    """One host with an output directory, an open connection, and a place for what comes back."""

    def __init__(self, farm: SshdFarm, transport: Transport, directory: Path) -> None:
        self.farm = farm
        self.home = farm.homes["eval1"]
        self.source = self.home / "out"
        self.transport = transport
        self.target = directory / "staging"
        self.target.mkdir(mode=0o700)
        self.source.mkdir()

    def pull(
        self, *files: str, file_cap: int = 200_000_000, total_cap: int = 400_000_000, deadline_s: float = 30
    ) -> PullResult:
        return self.transport.pull(PullRequest(str(self.source), files, self.target, file_cap, total_cap, deadline_s))

    def write(self, name: str, data: bytes) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def arrived(self) -> dict[str, os.stat_result]:
        found = [path for path in self.target.rglob("*") if path.is_symlink() or not path.is_dir()]
        return {str(path.relative_to(self.target)): path.lstat() for path in found}

    def replace_rsync(self, body: str) -> None:
        """Put a program of the attacker first in the host's PATH."""
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "rsync").write_text(body)
        (folder / "rsync").chmod(0o755)
        (self.home / ".bashrc").write_text(f"PATH={folder}:$PATH\n")


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


def test_a_planted_link_in_the_staging_directory_is_refused(yard: Yard, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (yard.target / "a").symlink_to(victim)
    yard.write("a/x", b"x")
    with pytest.raises(TamperedTransfer, match="put into the staging directory"):
        yard.pull("a/x")
    assert list(victim.iterdir()) == []


def test_a_file_over_its_cap_stays_on_the_host(yard: Yard) -> None:
    yard.write("big", bytes(100_000))
    yard.write("small", b"x")
    yard.pull("big", "small", file_cap=50_000)
    assert list(yard.arrived()) == ["small"]


def test_more_than_the_cap_for_everything_is_refused(yard: Yard) -> None:
    for number in range(4):
        yard.write(f"f{number}", os.urandom(50_000))
    with pytest.raises(TamperedTransfer, match="more than the cap"):
        yard.pull("f0", "f1", "f2", "f3", total_cap=100_000)


def test_the_kernel_stops_a_file_that_outgrows_its_cap(tmp_path: Path) -> None:
    argv = [*rsync_module._limited(10_000), "dd", "if=/dev/zero", f"of={tmp_path / 'x'}", "bs=1k", "count=1000"]
    ended = supervise(argv, deadline_s=10, environment={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, over_limit=lambda: False)
    assert ended.code != 0
    assert (tmp_path / "x").stat().st_size <= 10_752
    with pytest.raises(TamperedTransfer, match="outgrew its cap"):
        raise_for(ended, "h")


def test_an_endless_sender_is_ended_by_the_watchdog(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "trap '' TERM; sleep 60 & sleep 60; wait"]
    started = time.monotonic()
    ended = supervise(argv, deadline_s=30, environment={"PATH": "/usr/bin:/bin"}, over_limit=lambda: True)
    assert ended.killed == "limit"
    assert time.monotonic() - started < 6
    with pytest.raises(TamperedTransfer, match="more than its cap"):
        raise_for(ended, "h")


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


@pytest.mark.parametrize(
    ("code", "stderr", "expected", "said"),
    [
        (11, b"rsync: [receiver] write failed on \"/x\": No space left on device (28)", StorageError, "No space left"),
        (11, b"rsync: [receiver] mkstemp failed: Read-only file system (30)", StorageError, "Read-only"),
        (11, b"rsync: [sender] write error: No space left on device (28)", TransferFailed, "code 11"),
        (12, b"rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]", TransferFailed, "link was lost"),
        (24, b"file has vanished: \"/x\x1b]0;y\x07\"", TransferFailed, "vanished"),
        (30, b"rsync error: timeout in data send/receive", TransferFailed, "stood still"),
        (255, b"ssh: connect to host x: No route to host", TransferFailed, "could not reach"),
        (4, b"ERROR: rejecting unrequested file-list name: authorized_keys", TamperedTransfer, "nobody asked for"),
        (99, b"", TransferFailed, "code 99"),
    ],
)  # fmt: skip
def test_every_ending_has_its_class_and_its_words(code: int, stderr: bytes, expected: type[FleetError], said: str) -> None:
    with pytest.raises(expected, match=said) as caught:
        raise_for(Ended(code, b"", stderr, None), "eval1")
    assert "\x1b" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("openrsync: protocol version 29, rsync version 2.6.9 compatible", "is not the rsync that fleet needs"),
        ("rsync  version 3.1.3  protocol version 31", "fleet needs 3.2.6 or newer"),
        (None, "not installed"),
    ],
)
def test_an_unusable_rsync_here_is_refused_with_the_command_that_installs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, said: str
) -> None:
    _fake_rsync(tmp_path, monkeypatch, version)
    with pytest.raises(InputError, match=said) as caught:
        find_client()
    assert "install rsync" in caught.value.hint


def test_an_old_rsync_here_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_rsync(tmp_path, monkeypatch, "rsync  version 3.2.7  protocol version 31")
    assert "older than 3.5.0" in (find_client().warning or "")
    _fake_rsync(tmp_path, monkeypatch, "rsync  version 3.5.0  protocol version 32")
    assert find_client().warning is None


@pytest.fixture(autouse=True)
def _fresh_client() -> Iterator[None]:
    find_client.cache_clear()
    yield
    find_client.cache_clear()


def _fake_rsync(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    if version is not None:
        (folder / "rsync").write_text(f"#!/bin/sh\necho '{version}'\n")
        (folder / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    find_client.cache_clear()


def test_the_public_fake_pulls_with_the_same_rules(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "out").mkdir(parents=True)
    (home / "out" / "good").write_text("x")
    (home / "out" / "link").symlink_to("/etc/passwd")
    target = tmp_path / "staging"
    target.mkdir()
    connector = LocalConnector({"a": home})
    transport = connector.open(local_host("a"))
    transport.pull(PullRequest(str(home / "out"), ("good", "link"), target, 1000, 1000, 20))
    assert [path.name for path in target.iterdir()] == ["good"]
    connector.close()


def test_rsync_is_there_for_these_tests() -> None:
    assert subprocess.run(["rsync", "--version"], capture_output=True, check=True).stdout
