"""How rsync ends is told in words, and only a usable rsync of this machine is used."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet.cli.main import run
from fleet.errors import (
    FleetError,
    InputError,
    TamperedTransfer,
    TransferFailed,
)
from fleet.testing import LocalConnector, local_host
from fleet.transport import PullRequest
from fleet.transport.rsync import find_client
from fleet.transport.rsync_outcome import raise_for
from fleet.transport.supervised import Ended, supervise
from tests.support.catalogue import attack


@pytest.mark.parametrize(
    ("code", "stderr", "expected", "said"),
    [
        (11, b"rsync: [receiver] write failed on \"/x\": No space left on device (28)", TransferFailed, "here is in order"),
        (12, b"rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]", TransferFailed, "link was lost"),
        (23, b"rsync: [sender] read errors mapping \"/x\": Input/output error (5)", TransferFailed, "could not be read"),
        (24, b"file has vanished: \"/x\x1b]0;y\x07\"", TransferFailed, "vanished"),
        (30, b"rsync error: timeout in data send/receive", TransferFailed, "stood still"),
        (255, b"ssh: connect to host x: No route to host", TransferFailed, "could not reach"),
        (255, b"Connection to 10.0.0.1 closed by remote host.", TransferFailed, "link was lost"),
        (255, b"Timeout, server 10.0.0.1 not responding.", TransferFailed, "link was lost"),
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
@attack("S11")
def test_an_unusable_rsync_here_is_refused_with_the_command_that_installs_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str | None, said: str
) -> None:
    _fake_rsync(tmp_path, monkeypatch, version)
    with pytest.raises(InputError, match=said) as caught:
        find_client()
    assert "install rsync" in caught.value.hint


@attack("S11")
def test_an_old_rsync_here_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_rsync(tmp_path, monkeypatch, "rsync  version 3.2.7  protocol version 31")
    assert "older than 3.5.0" in (find_client().warning or "")
    _fake_rsync(tmp_path, monkeypatch, "rsync  version 3.5.0  protocol version 32")
    assert find_client().warning is None


@pytest.mark.parametrize("command", ["check", "collect"])
def test_an_old_rsync_here_is_said_once_to_people_and_is_no_hosts_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("hosts:\n  a: {address: 127.0.0.1, port: 1}\n  b: {address: 127.0.0.1, port: 2}\n")
    words = [command, "--hosts-file", str(hosts), "--collected", str(tmp_path / "collected")]
    _fake_rsync(tmp_path, monkeypatch, "rsync  version 3.2.7  protocol version 31")
    run(words)
    said = capsys.readouterr()
    assert said.err.count("older than 3.5.0") == 1
    assert "older than" not in said.out
    for silent in ("--json", "--quiet"):
        run([*words, silent])
        assert "older than" not in "".join(capsys.readouterr())
    (tmp_path / "empty").mkdir()
    _fake_rsync(tmp_path / "empty", monkeypatch, None)
    run(words)
    assert "rsync is not installed on this machine" in capsys.readouterr().err


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


FOLLOWER = """
import sys
from fleet.transport.supervised import supervise
supervise(sys.argv[1:], deadline_s=300, environment={"PATH": "/usr/bin:/bin"}, over_limit=lambda: False)
"""


@pytest.mark.parametrize("ignores", ["", "trap '' TERM; "])
def test_no_transfer_outlives_a_killed_controller(tmp_path: Path, ignores: str) -> None:
    """The program and its own child (rsync's ssh) end, also when they do not listen."""
    pids = tmp_path / "pids"
    script = f'{ignores}sleep 300 & echo $$ $! >"$0.tmp"; mv "$0.tmp" "$0"; while :; do wait; done'
    controller = subprocess.Popen([sys.executable, "-c", FOLLOWER, "sh", "-c", script, str(pids)])
    eventually(pids.exists)
    running = [int(pid) for pid in pids.read_text().split()]
    assert all(map(is_running, running))
    controller.kill()
    controller.wait()
    eventually(lambda: not any(map(is_running, running)))


def test_nothing_is_left_behind_by_a_program_that_ended(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    ended = supervise(
        ["sh", "-c", 'cat; echo "$0"; exit 7', mark],
        deadline_s=10,
        environment={"PATH": "/usr/bin:/bin"},
        over_limit=lambda: False,
    )
    assert (ended.code, ended.stdout.decode().strip(), ended.killed) == (7, mark, None)
    eventually(lambda: not [pid for pid in Path("/proc").glob("[0-9]*") if mark.encode() in command_of(pid)])


def eventually(true: Callable[[], bool]) -> None:
    """Wait until it is true."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def command_of(process: Path) -> bytes:
    """Return the command line, nothing for a process that is gone or waits for its parent."""
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def is_running(pid: int) -> bool:
    return command_of(Path(f"/proc/{pid}")) != b""


def test_rsync_is_there_for_these_tests() -> None:
    assert subprocess.run(["rsync", "--version"], capture_output=True, check=True).stdout
