"""What a hostile host, or somebody else on this machine, may try while a result is brought home."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.collect import AttemptRef, Collected, collect_attempt
from fleet.errors import StorageError, TamperedTransfer, TransferFailed
from fleet.transport import PullRequest, PullResult
from tests.support.catalogue import attack, fault
from tests.support.finished import FinishedHost, finished_host, manifest_files, small_pipeline, tree

SCRIPT = 'cd "$FLEET_OUTPUT_DIR"; echo one > output.jsonl; mkdir d; echo two > d/two'


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FinishedHost]:
    with finished_host(tmp_path / "eval1") as found:
        yield found


@pytest.fixture
def ref(host: FinishedHost) -> AttemptRef:
    return host.run(SCRIPT)


def bring(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> Collected:
    return collect_attempt(
        host.client, host.transport, attempt=ref, batch_dir=tmp_path / "c" / "b", pipeline=small_pipeline(), provenance={}
    )


def staging_of(ref: AttemptRef, tmp_path: Path) -> Path:
    return (tmp_path / "c" / "b" / ref.relative).with_name("attempt1.partial")


def nothing_published(ref: AttemptRef, tmp_path: Path) -> bool:
    return not (tmp_path / "c" / "b" / ref.relative).exists()


def on_pull(host: FinishedHost, before: Any = None, after: Any = None) -> list[int]:
    """Let something happen around every pull; returns the growing list of pulls."""
    pull, calls = host.transport.pull, []

    def around(request: PullRequest) -> PullResult:
        calls.append(len(calls))
        if before is not None:
            before(request, len(calls))
        result = pull(request)
        if after is not None:
            after(request, len(calls))
        return result

    host.transport.pull = around  # type: ignore[method-assign]
    return calls


@fault("T4")
@attack("S9")
def test_bytes_changed_under_the_same_size_and_time_are_caught(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    path = host.out("a1") / "output.jsonl"
    times = path.stat()
    path.write_text("eno\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    calls = on_pull(host)
    with pytest.raises(TamperedTransfer, match=r"output.jsonl: another sha256 .*; twice"):
        bring(host, ref, tmp_path)
    assert len(calls) == 2, "the file was brought once more before the host was blamed"
    assert nothing_published(ref, tmp_path) and not staging_of(ref, tmp_path).exists()


@fault("T4")
def test_a_file_corrupted_here_once_is_brought_again(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    def corrupt(request: PullRequest, number: int) -> None:
        if number == 1:
            path = request.target / "output.jsonl"
            times = path.stat()
            path.write_text("eno\n")
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    on_pull(host, after=corrupt)
    got = bring(host, ref, tmp_path)
    assert (got.path / "output.jsonl").read_text() == "one\n"


@fault("T4")
@attack("S9")
def test_a_corrupt_file_of_an_earlier_collector_is_not_believed(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    staging = staging_of(ref, tmp_path)
    staging.mkdir(parents=True, mode=0o700)
    planted = staging / "output.jsonl"
    planted.write_text("eno\n")
    planted.chmod(0o600)
    times = (host.out("a1") / "output.jsonl").stat()
    os.utime(planted, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (bring(host, ref, tmp_path).path / "output.jsonl").read_text() == "one\n"


@fault("T5")
def test_a_file_that_grows_after_the_seal_fails_after_one_more_try(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    with (host.out("a1") / "output.jsonl").open("a") as file:
        file.write("more\n")
    calls = on_pull(host)
    with pytest.raises(TransferFailed, match=r"output.jsonl: another size \(9\).*changed on the host after"):
        bring(host, ref, tmp_path)
    assert len(calls) == 2
    assert nothing_published(ref, tmp_path)
    (host.out("a1") / "output.jsonl").write_text("one\n")
    assert bring(host, ref, tmp_path).files == 2, "and the same command goes on when the file is right again"


@fault("T5")
def test_a_file_that_vanished_fails_after_one_more_try(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    (host.out("a1") / "d" / "two").unlink()
    with pytest.raises(TransferFailed):
        bring(host, ref, tmp_path)
    assert nothing_published(ref, tmp_path)


@fault("T6")
@attack("S8")
def test_a_file_swapped_for_a_link_after_the_seal_is_not_followed(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one\n")
    path = host.out("a1") / "output.jsonl"
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(TransferFailed, match=r"output.jsonl: missing"):
        bring(host, ref, tmp_path)
    assert nothing_published(ref, tmp_path)


@attack("S3")
def test_a_file_that_the_manifest_does_not_list_is_tampering(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    def add(request: PullRequest, number: int) -> None:
        (request.target / "authorized_keys").write_text("ssh-ed25519 evil")

    on_pull(host, after=add)
    with pytest.raises(TamperedTransfer, match=r"authorized_keys.*does not list"):
        bring(host, ref, tmp_path)
    assert nothing_published(ref, tmp_path)
    assert not list((tmp_path / "c").rglob("authorized_keys"))


@pytest.mark.parametrize("kind", ["link", "fifo", "hard link"])
@attack("S2", "S8")
def test_what_is_not_a_plain_file_of_ours_is_tampering(host: FinishedHost, ref: AttemptRef, tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("one\n")

    def swap(request: PullRequest, number: int) -> None:
        path = request.target / "output.jsonl"
        path.unlink()
        if kind == "link":
            path.symlink_to(victim)
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.hardlink_to(victim)

    on_pull(host, after=swap)
    with pytest.raises(TamperedTransfer, match="not a plain file"):
        bring(host, ref, tmp_path)
    assert nothing_published(ref, tmp_path)
    assert victim.read_text() == "one\n"


@pytest.mark.parametrize(
    "planted", ["link to a file", "link to a directory", "the directory is a link", "fifo", "setuid", "hard link"]
)
@attack("S5")
def test_what_somebody_planted_in_the_staging_directory_is_wiped_not_used(
    host: FinishedHost, ref: AttemptRef, tmp_path: Path, planted: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("precious")
    staging = staging_of(ref, tmp_path)
    staging.parent.mkdir(parents=True)
    if planted == "the directory is a link":
        staging.symlink_to(victim)
    else:
        staging.mkdir(mode=0o700)
        target = staging / "output.jsonl"
        if planted == "link to a file":
            target.symlink_to(victim / "file")
        elif planted == "link to a directory":
            (staging / "d").symlink_to(victim)
        elif planted == "fifo":
            os.mkfifo(target)
        elif planted == "hard link":
            target.hardlink_to(victim / "file")
        else:
            target.write_text("x")
            target.chmod(0o4755)
    got = bring(host, ref, tmp_path)
    assert tree(victim) == {"file": b"precious"}
    assert (got.path / "output.jsonl").read_text() == "one\n"
    for path in (got.path, *got.path.rglob("*")):
        info = path.lstat()
        assert stat.S_ISDIR(info.st_mode) or (stat.S_ISREG(info.st_mode) and info.st_nlink == 1)


@pytest.mark.parametrize("part", ["1319603449576684", "1319603449576684/gpt", "1319603449576684/gpt/run1"])
@attack("S5")
def test_a_link_on_the_way_below_the_batch_is_refused(host: FinishedHost, ref: AttemptRef, tmp_path: Path, part: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    link = tmp_path / "c" / "b" / part
    link.parent.mkdir(parents=True)
    link.symlink_to(victim)
    with pytest.raises(StorageError, match="symbolic link"):
        bring(host, ref, tmp_path)
    assert not list(victim.iterdir())


def test_the_batch_directory_itself_may_be_a_link_of_the_users(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    big_disk = tmp_path / "big-disk"
    big_disk.mkdir()
    (tmp_path / "c").symlink_to(big_disk)
    assert bring(host, ref, tmp_path).files == 2


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([{"path": "../evil"}], "may be created"),
        ([{"path": "/etc/passwd"}], "may be created"),
        ([{"path": "a/../../b"}], "may be created"),
        ([{"path": "-rf"}], "may be created"),
        ([{"path": "a\nb"}], "may be created"),
        ([{"path": "a\x1b]0;x"}], "may be created"),
        ([{"path": "$(touch x)"}], "may be created"),
        ([{"path": "a b"}], "may be created"),
        ([{"path": "\udcff"}], "manifest"),
        ([{"path": "x" * 256}], "may be created"),
        ([{"path": "caf\u00e9"}, {"path": "cafe\u0301"}], "may be created"),
        ([{"path": "1/2/3/4/5/6/7/8/9"}], "may be created"),
        ([{"path": ""}], "may be created"),
        ([{"path": "A"}, {"path": "a"}], "only in case"),
        ([{"path": "D/x"}, {"path": "d/y"}], "only in case"),
        ([{"path": "a"}, {"path": "a"}], "listed twice"),
        ([{"path": "a"}, {"path": "a/b"}], "a file and a directory"),
        ([{"path": "d/.rsync-partial/x"}], "fleet itself"),
        ([{"path": "host-files/x"}], "fleet itself"),
        ([{"path": "a", "size": -1}], "size"),
        ([{"path": "a", "size": "1"}], "size"),
        ([{"path": "a", "size": True}], "size"),
        ([{"path": "a", "size": 2**53 + 1}], "size"),
        ([{"path": "a", "sha256": "0" * 63}], "sha256"),
        ([{"path": "a", "sha256": None}], "sha256"),
        ([{"path": 7}], "path"),
        (["a"], "files"),
        ({"a": 1}, "files"),
        ("abc", "files"),
    ],
)
@attack("S4")
def test_a_manifest_with_one_bad_entry_is_refused_whole(
    host: FinishedHost, ref: AttemptRef, tmp_path: Path, files: Any, said: str
) -> None:
    good = {"size": 1, "sha256": "0" * 64}
    listed = [{**good, **one} if isinstance(one, dict) else one for one in files] if isinstance(files, list) else files
    host.rewrite_manifest("a1", files=listed)
    pulls = on_pull(host)
    with pytest.raises(TamperedTransfer, match=said) as caught:
        bring(host, ref, tmp_path)
    assert caught.value.message.isprintable()
    assert not pulls and not (tmp_path / "c").exists()


def test_notes_of_the_host_are_kept_harmless_and_bounded(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    skipped = [{"path": "\x1b]0;title\x07\u202e", "why": "x" * 5000}, *[{"path": str(n), "why": ""} for n in range(5000)]]
    host.rewrite_manifest("a1", skipped=skipped, stale=["\x1b[2J", {"path": "y"}, 7], root=str(host.out("a1")))
    got = bring(host, ref, tmp_path)
    text = (got.path / "manifest.json").read_text()
    assert text.isascii() and "\x1b" not in text and len(text) < 200_000
    assert len(got.findings) == 1000


def test_an_attempt_of_another_task_is_refused(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    with pytest.raises(TamperedTransfer, match=r"is 1319603449576684/claude/1 here and 1319603449576684/gpt/1 on the host"):
        bring(host, AttemptRef("a1", ref.instance_id, "claude", 1, 1, "eval1"), tmp_path)


def test_a_manifest_that_claims_more_than_the_disk_holds_fails_before_the_pull(
    host: FinishedHost, ref: AttemptRef, tmp_path: Path
) -> None:
    files = manifest_files(host.out("a1"))
    free = os.statvfs(tmp_path)
    files += [{"path": f"f{n}", "size": 1 << 44, "sha256": "0" * 64} for n in range(1 + free.f_bavail * free.f_frsize >> 44)]
    files.append({"path": "last", "size": 1 << 44, "sha256": "0" * 64})
    host.rewrite_manifest("a1", files=files)
    pulls = on_pull(host)
    huge = small_pipeline(max_file_mb=1 << 30, max_total_mb=1 << 40)
    with pytest.raises(StorageError, match="bytes needed"):
        collect_attempt(host.client, host.transport, attempt=ref, batch_dir=tmp_path / "c" / "b", pipeline=huge, provenance={})
    assert not pulls


def test_a_read_only_disk_is_a_storage_error(host: FinishedHost, ref: AttemptRef, tmp_path: Path) -> None:
    place = tmp_path / "ro"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(place)], check=True)
    try:
        with pytest.raises(StorageError, match="read-only"):
            collect_attempt(
                host.client, host.transport, attempt=ref, batch_dir=place / "b", pipeline=small_pipeline(), provenance={}
            )
    finally:
        subprocess.run(["umount", str(place)], check=True)
