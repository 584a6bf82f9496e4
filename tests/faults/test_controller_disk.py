"""This machine's disk is full, fails, is read-only or somebody else's: it is said so, and nothing is begun unrecorded."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.durable_steps import Plan, chosen
from tests.support.fork_server import Ended, ForkServer
from tests.support.operator import finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

LOCAL = 32
FAILING = ("fsync", "rename", "replace", "link")


@pytest.fixture(scope="module")
def server() -> Iterator[ForkServer]:
    with ForkServer() as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield an empty file system of 64 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "small", str(disk)], check=True, timeout=20)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=20)


def dispatch(server: ForkServer, job: SmallJob, plan: Plan | None = None, collected: Path | None = None) -> Ended:
    words = ["dispatch", str(job.assignment), "-q", *(["--collected", str(collected)] if collected is not None else [])]
    return server.run(words, job.directory, job.env, plan)


def fill(disk: Path, leave: int) -> Path:
    """Write a file that leaves `leave` bytes free."""
    filler = disk / "filler"
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    filler.write_bytes(b"x" * max(0, free - leave))
    return filler


@fault("C7")
def test_a_disk_that_is_full_before_the_batch_begins_is_said_so_before_any_host_is_asked(
    server: ForkServer, farm_hosts: SshdFarm, tmp_path: Path, small_disk: Path
) -> None:
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["full-1"]})
    filler, logins = fill(small_disk, 0), job.contacts()
    said = dispatch(server, job, collected=small_disk)
    assert said.code == LOCAL, said.err
    assert "No space left" in said.err
    assert job.contacts() == logins
    filler.unlink()
    assert dispatch(server, job).code == 0
    job.assert_each_ran_once()
    job.end()


@fault("C7")
@pytest.mark.parametrize("leave", [4096, 12288, 20480, 24576])
def test_a_disk_that_fills_up_during_a_batch_leaves_the_journal_as_it_was_and_launches_nothing_unrecorded(
    server: ForkServer, farm_hosts: SshdFarm, tmp_path: Path, small_disk: Path, leave: int
) -> None:
    instances = [f"fills{leave}-{number}" for number in range(4)]
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": instances})
    filler = fill(small_disk, leave)
    said = dispatch(server, job, collected=small_disk)
    assert said.code == LOCAL, said.err
    journal = small_disk / "small" / "journal.jsonl"
    before = journal.read_bytes() if journal.exists() else b""
    assert before == b"" or before.endswith(b"}\n")
    intended = before.count(b'"type":"attempt"')
    assert sum(job.markers().values()) <= intended
    again = dispatch(server, job, collected=small_disk)
    assert again.code == LOCAL
    assert not journal.exists() or journal.read_bytes().startswith(before)
    filler.unlink()
    larger = tmp_path / "larger"
    shutil.copytree(small_disk, larger)
    done = dispatch(server, job, collected=larger)
    assert done.code == 0, done.err
    assert job.starts() == job.markers() == dict.fromkeys(instances, 1)
    job.end()


@fault("C10")
@pytest.mark.timeout(300)
def test_an_error_of_the_disk_at_any_fsync_or_rename_is_a_failed_write_and_the_end_of_the_run(
    server: ForkServer, farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    def fail_at(at: int) -> list[str]:
        """Fail step `at` of a batch (0: none), prove what must follow, and return the steps that were taken."""
        job = SmallJob(tmp_path / str(at), farm_hosts, {"eval1": [f"eio{at}-1"]}, seconds=0.01)
        log = tmp_path / f"log{at}"
        said = dispatch(server, job, Plan(str(job.collected), str(log), at, "eio", only=FAILING))
        steps = log.read_text().splitlines()
        if at:
            assert said.code == LOCAL, f"{steps[-1]}: {said.err}"
            assert os.strerror(errno.EIO) in said.err
            # Nothing is written after the failure: asking the disk again would say that all is well.
            assert len(steps) == at, steps[at - 1 :]
        again = dispatch(server, job)
        assert again.code == 0, f"{steps[-1]}: {again.err}"
        job.assert_each_ran_once()
        job.end()
        return steps

    steps = fail_at(0)
    assert len(steps) > 30
    after_a_rename = [number + 1 for number, step in enumerate(steps, start=1) if step.split()[1] in ("rename", "link")]
    for at in sorted({*chosen(list(range(1, len(steps) - 1))), *after_a_rename}):
        fail_at(at)


@fault("C10")
def test_an_intent_whose_fsync_fails_in_the_kernel_is_not_sent(
    server: ForkServer, farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["strace-1"]})
    failing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=2"]
    done = subprocess.run(
        [*failing, sys.executable, "-m", "fleet", "dispatch", str(job.assignment), "-q"],
        cwd=job.directory, env=job.env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == LOCAL, done.stderr
    assert "Input/output error" in done.stderr
    assert job.markers() == {}
    assert not any(record["type"] == "attempt" for record in job.journal())
    assert dispatch(server, job).code == 0
    job.assert_each_ran_once()
    job.end()


def _read_only(job: SmallJob) -> None:
    subprocess.run(["mount", "--bind", str(job.collected), str(job.collected)], check=True, timeout=20)
    subprocess.run(["mount", "-o", "remount,ro,bind", str(job.collected)], check=True, timeout=20)


def _foreign_directory(job: SmallJob) -> None:
    os.chown(job.batch, 65534, 65534)


def _foreign_journal(job: SmallJob) -> None:
    os.chown(job.journal_file, 65534, 65534)


def _linked_directory(job: SmallJob) -> None:
    job.batch.rename(job.directory / "elsewhere")
    job.batch.symlink_to(job.directory / "elsewhere")


def _linked_journal(job: SmallJob) -> None:
    job.journal_file.rename(job.directory / "elsewhere")
    job.journal_file.symlink_to(job.directory / "elsewhere")


def _dangling_journal(job: SmallJob) -> None:
    job.journal_file.unlink()
    job.journal_file.symlink_to(job.directory / "nowhere")


def _linked_lock(job: SmallJob) -> None:
    (job.directory / "victim").write_text("precious")
    (job.batch / "controller.lock").unlink()
    (job.batch / "controller.lock").symlink_to(job.directory / "victim")


@fault("C9")
@pytest.mark.parametrize(
    "change",
    [_read_only, _foreign_directory, _foreign_journal, _linked_directory, _linked_journal, _dangling_journal, _linked_lock],
)
def test_a_batch_that_is_not_ours_to_write_is_refused_before_any_host_is_asked(
    server: ForkServer, farm_hosts: SshdFarm, tmp_path: Path, change: object
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["ours-1"]})
    assert dispatch(server, job).code == 0
    before, logins = job.journal_file.read_bytes(), job.contacts()
    assert callable(change)
    change(job)
    try:
        said = dispatch(server, job)
        assert said.code == LOCAL, said.err
        assert str(job.batch) in said.err
        assert job.contacts() == logins
        for path in (job.directory / "elsewhere" / "journal.jsonl", job.directory / "elsewhere", job.journal_file):
            assert not path.is_file() or path.read_bytes() == before
        assert not (job.directory / "victim").exists() or (job.directory / "victim").read_text() == "precious"
        assert not (job.directory / "nowhere").exists()
    finally:
        if change is _read_only:
            subprocess.run(["umount", "--lazy", str(job.collected)], check=True, timeout=20)
        job.end()


@fault("C9")
def test_a_planted_link_instead_of_the_results_directory_of_another_user_is_not_followed(
    server: ForkServer, farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["planted-1"]})
    victim = tmp_path / "victim"
    victim.mkdir()
    job.collected.mkdir()
    job.batch.symlink_to(victim)
    logins = job.contacts()
    assert dispatch(server, job).code == LOCAL
    assert (list(victim.iterdir()), job.contacts()) == ([], logins)


@fault("C7")
def test_a_controller_whose_disk_fills_up_leaves_its_evals_alone(
    farm_hosts: SshdFarm, tmp_path: Path, small_disk: Path
) -> None:
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["alone-1"]}, seconds=1.0)
    process = job.start("dispatch", job.assignment, "--collected", small_disk)
    wait_until(lambda: job.starts() == {"alone-1": 1})
    filler = fill(small_disk, 0)
    said = finish(process)
    assert said.code == LOCAL, said.err
    assert (farm_hosts.homes["eval1"] / "stops").read_text() == "alone-1\n"
    filler.unlink()
    larger = tmp_path / "larger"
    shutil.copytree(small_disk, larger)
    assert job.run("dispatch", job.assignment, "--collected", larger).code == 0
    assert job.starts() == job.markers() == {"alone-1": 1}
