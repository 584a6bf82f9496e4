"""The controller dies at every durable step of a batch, and the same command again brings each task's one result.

All points: `make crashpoints`. The normal run takes a spread, seeded selection of them.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.durable_steps import Act, Plan, chosen
from tests.support.fork_server import ForkServer
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm


@dataclass
class Crashes:
    """Batches one after another, each killed at a point of its own and run again."""

    directory: Path
    farm: SshdFarm
    server: ForkServer
    made: int = 0
    killed: list[str] = field(default_factory=list)

    def job(self) -> SmallJob:
        self.made += 1
        return SmallJob(self.directory / str(self.made), self.farm, {"eval1": [f"crash{self.made}-1"]}, seconds=0.01)

    def dispatch(self, job: SmallJob, plan: Plan | None = None) -> tuple[int, str]:
        ended = self.server.run(["dispatch", str(job.assignment), "-q"], job.directory, job.env, plan)
        return ended.code, ended.err

    def steps(self) -> list[str]:
        """Return the durable steps of an undisturbed batch, in order: `CALL PATH`."""
        job = self.job()
        log = self.directory / f"steps{self.made}"
        code, said = self.dispatch(job, Plan(str(job.collected), str(log)))
        assert code == 0, said
        job.assert_each_ran_once()
        job.end()
        return [line.split(maxsplit=1)[1] for line in log.read_text().splitlines()]

    def kill_and_resume(self, at: int, act: Act, when: str) -> None:
        """Kill a batch at a point and run it again; prove from the host that everything happened once."""
        job = self.job()
        try:
            log = self.directory / f"log{self.made}"
            plan = Plan(str(job.collected), str(log), at, act, "after" if when == "after" else "before")
            code, said = self.dispatch(job, plan)
            done = log.read_text().splitlines()
            # Whether "running" is seen before "finished" is a matter of milliseconds: some batches take a few steps less.
            assert code == -signal.SIGKILL or (code == 0 and len(done) < at), said
            self.killed += done[-1:] if code else []
            code, said = self.dispatch(job)
            assert code == 0, f"{done[-1]}: {said}"
            job.assert_each_ran_once()
            assert [json.loads(line)["type"] for line in job.journal_file.read_text().splitlines()][-1] == "left"
            assert not list(job.batch.rglob("*.partial"))
        finally:
            job.end()


@pytest.fixture(scope="module")
def crashes(sshd_farm: SshdFarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crashes]:
    with ForkServer() as server:
        yield Crashes(tmp_path_factory.mktemp("crash"), sshd_farm, server)


@fault("C1")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("act", ["kill", "kill-all"])
def test_a_controller_killed_at_any_durable_step_is_resumed_by_the_same_command(crashes: Crashes, act: Act, when: str) -> None:
    steps = crashes.steps()
    assert len(steps) > 60
    assert {step.split()[0] for step in steps} >= {"mkdir", "pwrite", "fsync", "rename", "link", "replace", "unlink"}
    points = chosen(list(range(1, len(steps) + 1)))
    before = len(crashes.killed)
    for at in points:
        crashes.kill_and_resume(at, act, when)
    killed = len(crashes.killed) - before
    print(f"{act} {when}: killed and resumed at {killed} of {len(steps)} durable steps")
    assert killed >= len(points) - 5


@fault("C1", "C8")
@pytest.mark.timeout(600)
def test_a_controller_killed_in_the_middle_of_any_line_of_the_journal_is_resumed(crashes: Crashes) -> None:
    writes = [
        number
        for number, step in enumerate(crashes.steps(), start=1)
        if step.startswith("pwrite") and step.endswith((".tmp", "journal.jsonl", "controller.lock", "journal.mark"))
    ]
    assert len(writes) > 8
    for at in chosen(writes):
        crashes.kill_and_resume(at, "torn", "before")
