"""The controller with the real agent and links that fail on a plan: whatever is lost on the way, each task starts once."""

from __future__ import annotations

import itertools
import json
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet.dispatch.controller import Controller
from fleet.dispatch.files.batch import Batch
from fleet.dispatch.job import Ended, Job, opened
from fleet.dispatch.resolve import resolve_assignment
from fleet.dispatch.state.replay import BatchState
from fleet.errors import AgentError, StorageError
from fleet.inventory import Inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.exitcodes import Exit
from fleet.model.findings import HostReport
from fleet.model.hosts import Defaults
from fleet.model.records import AnyRecord, AttemptObserved, AttemptStarted, BatchOpened, QuarantineTold
from fleet.model.states import AttemptState, Link, TaskState
from fleet.testing import Fault, FlakyConnector, LocalConnector, local_host
from fleet.transport import Connector
from tests.conftest import end_processes_of
from tests.support.datasets import task, write_dataset

SCRIPT = """#!/bin/sh
echo "$FLEET_ATTEMPT {id}" >> "$HOME/starts"
mkdir -p "$FLEET_OUTPUT_DIR"
echo '{{"instance_id": "{id}"}}' > "$FLEET_OUTPUT_DIR/output.jsonl"
sleep {seconds}
"""
PIPELINE = """
schema: fleet.pipeline/1
name: tiny
workdir: "~/work"
readiness: {disk: {max_used_percent: 100, min_free_gb: 0, min_free_inodes: 0}, min_free_memory_gb: 0}
command: ["./eval-{instance_id}.sh"]
outputs: {root: "{output_dir}"}
cleanup: {grace_s: 1}
"""


@dataclass
class World:
    """Hosts as directories, a pipeline whose eval notes each start, and an assignment."""

    directory: Path
    homes: dict[str, Path] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)

    def add(self, host: str, *instances: str, seconds: float = 0.3) -> World:
        home = self.homes.setdefault(host, self.directory / host)
        (home / "work").mkdir(parents=True, exist_ok=True)
        for instance in instances:
            write_dataset(self.directory / "a" / f"{instance}.json", instance)
            script = home / "work" / f"eval-{instance}.sh"
            script.write_text(SCRIPT.format(id=instance, seconds=seconds))
            script.chmod(0o755)
        self.tasks.setdefault(host, []).extend(instances)
        return self

    def job(self) -> Job:
        pipelines = self.directory / "scripts" / "tiny"
        pipelines.mkdir(parents=True, exist_ok=True)
        (pipelines / "pipeline.yaml").write_text(PIPELINE)
        path = self.directory / "a" / "b.json"
        document = {host: [task(one, "gpt", f"{one}.json") for one in names] for host, names in self.tasks.items()}
        path.write_text(json.dumps(document))
        return Job(Batch(self.directory / "collected", "b"), path, resolve_assignment(path, self.inventory(), self.pipelines()))

    def inventory(self) -> Inventory:
        hosts = [local_host(name, pipeline="tiny") for name in self.homes]
        return Inventory(self.directory / "hosts.yaml", hosts, Defaults(), {})

    def pipelines(self) -> Pipelines:
        return Pipelines([self.directory / "scripts"])

    def run(self, connector: Connector | None = None, patience_s: float = 60.0) -> Ended:
        with opened(
            self.job(), self.inventory(), self.pipelines(), connector or LocalConnector(self.homes), None, patience_s
        ) as runner:
            return runner.run()

    def starts(self) -> Counter[str]:
        lines = [
            line
            for home in self.homes.values()
            if (home / "starts").exists()
            for line in (home / "starts").read_text().splitlines()
        ]
        return Counter(line.split()[1] for line in lines)


def lent_world(directory: Path) -> Iterator[World]:
    """Yield a world, and end what is left in it."""
    made = World(directory)
    yield made
    for home in made.homes.values():
        end_processes_of(home)
    for thread in threading.enumerate():
        if thread.name.startswith("reap "):
            thread.join(10)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from lent_world(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.dispatch.controller.BACKOFF_S", (0.05, 0.1, 0.2))
    monkeypatch.setattr("fleet.testing.local.LocalTransport.dead_after_s", 1.4)


def test_every_task_runs_once_and_is_judged(world: World) -> None:
    ended = world.add("h1", "a-1", "a-2").add("h2", "a-3").run()
    # The tiny eval leaves no evaluation, so each result is rejected, with its reasons, and kept.
    assert {view.state for view in ended.state.tasks.values()} == {TaskState.REJECTED}
    assert ended.code is Exit.FAILED
    assert world.starts() == {"a-1": 1, "a-2": 1, "a-3": 1}


@pytest.mark.parametrize("drop", ["request", "answer"])
@pytest.mark.parametrize("number", range(7))
def test_a_message_lost_at_any_step_is_asked_again_and_starts_nothing_twice(world: World, drop: str, number: int) -> None:
    world.add("h1", "a-1")
    lossy = FlakyConnector(LocalConnector(world.homes), lambda _host, n: Fault(drop=drop) if n == number else None)
    ended = world.run(lossy)
    if ended.code & Exit.INCOMPLETE:
        # Lost on the very first question: the host counts as out of reach, and the same command again is the way on.
        ended = world.run(lossy)
    assert {view.state for view in ended.state.tasks.values()} == {TaskState.REJECTED}
    assert world.starts() == {"a-1": 1}


def test_three_lost_answers_in_a_row_still_start_nothing_twice(world: World) -> None:
    world.add("h1", "a-1", seconds=0.5)
    lossy = FlakyConnector(LocalConnector(world.homes), lambda _host, n: Fault(drop="answer") if n in (2, 3, 4) else None)
    ended = world.run(lossy)
    assert {view.state for view in ended.state.tasks.values()} == {TaskState.REJECTED}
    assert world.starts() == {"a-1": 1}


def test_a_host_that_is_down_costs_its_own_tasks_only(world: World) -> None:
    world.add("h1", "a-1").add("h2", "a-2")
    connector = LocalConnector(world.homes)
    connector.down.add("h2")
    ended = world.run(connector)
    assert ended.state.tasks["a-2/gpt/run1"].state is TaskState.BLOCKED
    assert ended.state.hosts["h2"].link is Link.UNREACHABLE
    assert ended.code == Exit.FAILED | Exit.INCOMPLETE
    assert world.starts() == {"a-1": 1}


def test_a_changed_dataset_is_refused_and_not_run(world: World) -> None:
    job = world.add("h1", "a-1").job()
    write_dataset(world.directory / "a" / "a-1.json", "a-1", extra={"note": "changed"})
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:
        ended = runner.run()
    assert ended.state.tasks["a-1/gpt/run1"].state is TaskState.FAILED
    assert "no longer the file" in ended.state.tasks["a-1/gpt/run1"].reason
    assert world.starts() == {}


def test_a_journal_that_cannot_be_written_stops_before_anything_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = world.add("h1", "a-1").job()
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:

        def refuse(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fleet.dispatch.files.journal.os.fsync", refuse)
        with pytest.raises(StorageError, match="No space left"):
            runner.run()
    assert world.starts() == {}


class Script:
    """An executor that does as told; the seam's third implementation, for what real hosts do rarely."""

    def __init__(self, **answers: Callable[..., None]) -> None:
        self.answers = answers
        self.calls: queue.SimpleQueue[str] = queue.SimpleQueue()

    def check(self) -> HostReport:
        return HostReport(host="h1", link=Link.OK)

    def launch(self, _task: Any, attempt: Any, _after: Any, tell: Callable[..., None]) -> None:
        self.calls.put("launch")
        tell(AttemptStarted(attempt=attempt.attempt, epoch=1, boot_id="boot"))

    def quarantine(self, _note: Any, _tasks: Any, tell: Callable[..., None]) -> None:
        self.calls.put("quarantine")
        tell(QuarantineTold(host="h1"))

    def wait(self, attempt: Any, tell: Callable[..., None], beat: Callable[[dict[str, Any]], None], *_: Any) -> None:
        self.calls.put("wait")
        beat({"last_line": "working"})
        self.answers["wait"](attempt, tell)

    def collect(self, _task: Any, _attempt: Any, _tell: Callable[..., None]) -> None:
        self.calls.put("collect")

    def close(self) -> None:
        pass


def controlled(world: World, script: Script, **settings: Any) -> BatchState:
    controller, _ = under_control(world, script, **settings)
    controller.run()
    return controller.state


def under_control(world: World, script: Script, **settings: Any) -> tuple[Controller, Callable[[], list[AnyRecord]]]:
    job = world.add("h1", "a-1").job()
    job.batch.prepare()
    opening = BatchOpened(batch="b", assignment_sha256="0", controller="me", tasks=job.resolved.tasks, hosts={"h1": "tiny"})
    job.batch.journal.append(opening)
    controller = Controller(job.batch.journal, {"h1": script}, survey=lambda _: [[script.check()]], **settings)
    return controller, job.batch.journal.read


@pytest.mark.parametrize("states", [(AttemptState.ACCEPTED,), (AttemptState.STARTING, AttemptState.RUNNING)])
def test_a_host_that_goes_round_in_circles_does_not_fill_the_journal(world: World, states: tuple[AttemptState, ...]) -> None:
    told = itertools.cycle(states)

    def circle(attempt: Any, tell: Callable[..., None]) -> None:
        tell(AttemptObserved(attempt=attempt.attempt, state=next(told)))

    script = Script(wait=circle)
    controller, records = under_control(world, script)
    timer = threading.Timer(2.5, controller.detach)
    timer.start()
    assert not controller.run()
    timer.join()
    assert len(records()) < 60


def test_an_agent_that_answers_nonsense_is_called_again_later_and_not_for_ever(world: World) -> None:
    def nonsense(_attempt: Any, _tell: Any) -> None:
        raise AgentError("the answer is not a JSON object", code="protocol")

    state = controlled(world, Script(wait=nonsense), patience_s=0.6)
    assert state.tasks["a-1/gpt/run1"].state is TaskState.RUNNING
    assert state.hosts["h1"].link is Link.OK
    assert "not a JSON object" in state.hosts["h1"].trouble


def test_a_rebooted_host_means_lost_and_never_an_automatic_second_start(world: World) -> None:
    def rebooted(attempt: Any, tell: Callable[..., None]) -> None:
        tell(AttemptObserved(attempt=attempt.attempt, state=AttemptState.LOST, reason="the host rebooted during the eval"))

    script = Script(wait=rebooted)
    state = controlled(world, script, patience_s=0.1, collect=False)
    assert state.tasks["a-1/gpt/run1"].state is TaskState.LOST
    calls: Mapping[str, int] = Counter(script.calls.get() for _ in range(script.calls.qsize()))
    assert calls == {"launch": 1, "wait": 1}
