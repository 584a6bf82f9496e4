"""A second controller of the same batch on the same machine, and what the lock file may wrongly say."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from fleet.dispatch.files.batch import Batch
from fleet.dispatch.files.process import identity
from tests.support.catalogue import fault
from tests.support.operator import finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm


@fault("C5")
def test_the_second_of_two_controllers_is_told_who_has_the_batch_and_changes_nothing(
    farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["twice-1", "twice-2"]})
    job.hold()
    first = job.start("dispatch", job.assignment)
    wait_until(lambda: job.starts())
    kept = (job.batch / "assignment.json").read_bytes()
    others = tmp_path / "other.json"
    others.write_text(json.dumps({host: entries[:1] for host, entries in json.loads(kept).items()}))
    for assignment in (job.assignment, others):
        second = job.run("dispatch", assignment, "--batch", "small")
        assert second.code == 64, second.err
        since = json.loads((job.batch / "controller.lock").read_text())["since"]
        assert f"pid {first.pid} since {since}" in second.err
        assert "fleet dashboard small --live" in second.err
    assert (job.batch / "assignment.json").read_bytes() == kept
    job.let_go()
    said = finish(first)
    assert said.code == 0, said.err
    job.assert_each_ran_once()


@fault("C5")
@pytest.mark.parametrize("moment", ["at once", "after the first began"])
def test_of_controllers_started_in_the_same_moment_exactly_one_runs(farm_hosts: SshdFarm, tmp_path: Path, moment: str) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["race-1"], "eval2": ["race-2"]}, seconds=0.5)
    processes = [job.start("dispatch", job.assignment)]
    if moment != "at once":
        wait_until(lambda: job.journal())
    processes += [job.start("dispatch", job.assignment) for _ in range(2)]
    codes = sorted(finish(process).code for process in processes)
    assert codes[0] == 0
    assert set(codes[1:]) <= {0, 64}
    job.assert_each_ran_once()


def _held(tmp_path: Path, **document: object) -> tuple[Batch, int]:
    """Return a batch whose lock this process holds, with what the lock file says."""
    batch = Batch(tmp_path, "b")
    batch.prepare()
    descriptor = os.open(batch.directory / "controller.lock", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(descriptor, json.dumps(document).encode())
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return batch, descriptor


@fault("C5")
def test_a_process_that_merely_has_the_number_of_an_earlier_controller_is_not_signalled(tmp_path: Path) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        known = identity(bystander.pid)
        assert known is not None
        boot, pid, start = known.split()
        for wrong in (f"{boot} {pid} {int(start) - 1}", f"another-boot {pid} {start}", None):
            batch, descriptor = _held(tmp_path, pid=bystander.pid, process=wrong)
            assert not batch.nudge()
            os.close(descriptor)
        with pytest.raises(subprocess.TimeoutExpired):
            bystander.wait(0.3)
        batch, descriptor = _held(tmp_path, pid=bystander.pid, process=known)
        assert batch.nudge()
        os.close(descriptor)
        assert bystander.wait(10) == -signal.SIGUSR1
    finally:
        bystander.kill()
        bystander.wait()
