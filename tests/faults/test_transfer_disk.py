"""The disk here fills up, breaks or is said to: the exit code tells whose disk it is, and nothing half is left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import StorageError, TransferFailed
from fleet.transport import PullRequest, PullResult
from fleet.transport.ssh import SshTransport
from tests.support.catalogue import fault
from tests.support.collect_bench import Bench, writes
from tests.support.results import INSTANCE
from tests.support.yard import Yard

LABEL = f"{INSTANCE}/gpt/run1"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 5 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m,mode=700", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def big(bench: Bench, tmp_path: Path, size: int) -> None:
    """Have an eval end on the host with `size` bytes that do not compress."""
    bench.opened(bench.task(), attempts={"a1": LABEL})
    bench.hosts["eval1"].run(writes(tmp_path) + f"; head -c {size} /dev/urandom > $FLEET_OUTPUT_DIR/big")


def results_below(directory: Path) -> list[str]:
    return [path.name for path in directory.rglob("attempt1*")]


@fault("T3")
def test_a_result_larger_than_the_disk_is_refused_before_it_is_sent(
    bench: Bench, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.collected = small_disk / "collected"
    big(bench, tmp_path, 9_000_000)
    pulls: list[PullRequest] = []
    monkeypatch.setattr(SshTransport, "pull", lambda _self, request: pulls.append(request))
    code, document = bench.typed("collect", "phase8", "--collected", str(bench.collected))
    assert code == 32
    assert "bytes needed" in document["error"]["message"] and "attempt1.partial" in document["error"]["message"]
    assert "fleet collect" in document["error"]["hint"]
    assert not pulls and not results_below(small_disk)
    assert bench.hosts["eval1"].out("a1").is_dir(), "the host keeps its outputs"


@fault("T3")
def test_a_disk_that_fills_up_during_the_transfer_is_local_leaves_nothing_and_the_same_command_goes_on(
    bench: Bench, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.collected = small_disk / "collected"
    big(bench, tmp_path, 3_000_000)
    pull, filler = SshTransport.pull, small_disk / "filler"

    def fill_meanwhile(self: SshTransport, request: PullRequest) -> PullResult:
        filler.write_bytes(bytes(3_500_000))
        return pull(self, request)

    monkeypatch.setattr(SshTransport, "pull", fill_meanwhile)
    code, document = bench.typed("collect", "phase8", "--collected", str(bench.collected))
    assert code == 32, document
    assert document["error"]["code"] == "storage"
    assert not results_below(small_disk), "no half result, and the bytes were given back"
    assert len(list(bench.hosts["eval1"].out("a1").iterdir())) > 3, "the host keeps its outputs"
    assert not (bench.hosts["eval1"].fleet / "attempts/a1/acked").exists()
    monkeypatch.setattr(SshTransport, "pull", pull)
    filler.unlink()
    code, document = bench.typed("collect", "phase8", "--collected", str(bench.collected))
    assert (code, [row["got"] for row in document["results"]]) == (0, ["collected"])


@fault("T3")
@pytest.mark.parametrize("state", ["read-only", "full"])
def test_a_disk_here_that_takes_no_write_is_found_out_by_writing(yard: Yard, small_disk: Path, state: str) -> None:
    yard.write("big", os.urandom(2_000_000))
    yard.target = small_disk / "staging"
    yard.target.mkdir(mode=0o700)
    if state == "full":
        with pytest.raises(OSError, match="No space"), (small_disk / "filler").open("wb") as filler:
            filler.write(bytes(6 << 20))
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match=r"cannot write below .*staging: (No space|Read-only)"):
        yard.pull("big")


@fault("T3")
@pytest.mark.parametrize(
    "said",
    [
        'rsync: [receiver] write failed on "/x": No space left on device (28)',
        'rsync: [generator] mkstemp "/x/.f" failed: Read-only file system (30)',
        "rsync: write failed: Disk quota exceeded (122)",
    ],
)
def test_a_host_cannot_make_this_disk_look_full(yard: Yard, said: str) -> None:
    yard.write("x", b"x")
    yard.replace_rsync(f"#!/bin/sh\necho '{said}' >&2\necho 'rsync error: error in file IO (code 11)' >&2\nexit 11\n")
    with pytest.raises(TransferFailed) as caught:
        yard.pull("x")
    assert not caught.value.bit & 32
