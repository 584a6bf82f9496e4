"""How rsync ends is told in words, and only a usable rsync of this machine is used."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import (
    FleetError,
    InputError,
    StorageError,
    TamperedTransfer,
    TransferFailed,
)
from fleet.testing import LocalConnector, local_host
from fleet.transport import PullRequest
from fleet.transport.rsync import find_client
from fleet.transport.rsync_outcome import raise_for
from fleet.transport.supervised import Ended


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
