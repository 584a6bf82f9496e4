"""An operator's command that meets a controller at an unlucky moment."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.main import run
from fleet.cli.options import Context
from fleet.dispatch.controller import Controller
from fleet.dispatch.job import opened
from fleet.dispatch.rules.scheduler import Begin, decide
from fleet.errors import NoAnswer
from fleet.model.findings import HostReport
from fleet.model.records import (
    AnyRecord,
    AttemptIntended,
    AttemptObserved,
    CancelOrdered,
    HostChecked,
    ResultCollected,
    ResultJudged,
)
from fleet.model.states import AttemptState, Link, TaskState
from fleet.model.verdict import Outcome
from fleet.testing import LocalConnector
from tests.test_controller import Script, World, controlled, lent_world
from tests.test_lost_launches import intend, launch_unheard

NUDGED_EARLY_AND_LATE = """
import os, signal
from contextlib import contextmanager
from types import SimpleNamespace
import fleet.dispatch.job
from fleet.cli.dispatch import _run

class Runner:
    nudged = 0
    def nudge(self): self.nudged += 1
    def run(self): return "ended"

runner = Runner()

@contextmanager
def opened(*_):
    os.kill(os.getpid(), signal.SIGUSR1)
    yield runner
    os.kill(os.getpid(), signal.SIGUSR1)

fleet.dispatch.job.opened = opened
nothing = lambda: None
context = SimpleNamespace(
    interactive=False, no_color=True, quiet=True, json=False, inventory=nothing, pipelines=nothing, connector=nothing
)
print(_run(context, None, 1.0), runner.nudged >= 1)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from lent_world(tmp_path)


def test_a_controller_that_is_told_of_an_order_while_it_opens_or_leaves_its_batch_lives_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NUDGED_EARLY_AND_LATE], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended True\n", "")


def test_a_task_that_begins_while_the_operator_confirms_its_cancelling_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = world.add("h1", "a-1", seconds=60.0).job()
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)):
        pass

    def confirm(*_: object, **__: object) -> bool:
        intend(world, job)
        launch_unheard(world, job)
        return True

    monkeypatch.setattr("click.confirm", confirm)
    monkeypatch.setattr(Context, "interactive", True)
    monkeypatch.setattr(Context, "inventory", lambda _self: world.inventory())
    monkeypatch.setattr(Context, "connector", lambda _self: LocalConnector(world.homes))
    code = run(["cancel", "--all", "--batch", "b", "--grace", "1", "--json", "--collected", str(world.directory / "collected")])
    (row,) = json.loads(capsys.readouterr().out)["cancelled"]
    assert (code, row["outcome"], row["processes_left"]) == (0, "cancelled", 0)
    assert (world.homes["h1"] / ".fleet/attempts/a1/rc.json").is_file()


def test_a_task_cancelled_while_others_begin_is_not_launched(world: World) -> None:
    job = world.add("h1", "a-1").add("h2", "a-2").job()
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)):
        pass
    ready = [HostChecked(report=HostReport(host=name, link=Link.OK)) for name in ("h1", "h2")]
    job.batch.journal.append(*ready)
    scripts = {"h1": Script(), "h2": Script()}
    controller = Controller(job.batch.journal, scripts, survey=lambda _: [])
    first, second = decide(controller.state, frozenset())
    assert isinstance(first, Begin) and isinstance(second, Begin)
    job.batch.journal.append(CancelOrdered(task=second.task))
    controller._begin(first)
    controller._begin(second)
    assert scripts["h1"].calls.get(timeout=5) == "launch"
    assert scripts["h2"].calls.empty()
    assert controller.state.tasks[second.task].state is TaskState.CANCELLED
    assert [record.task for record in job.batch.journal.read() if isinstance(record, AttemptIntended)] == [first.task]


def test_a_task_whose_result_another_command_noted_first_is_not_begun(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = world.add("h1", "a-1").job()
    journal, append = job.batch.journal, job.batch.journal.append
    theirs: tuple[AnyRecord, ...] = (
        AttemptIntended(task="a-1/gpt/run1", host="h1", attempt="theirs", number=1),
        AttemptObserved(attempt="theirs", state=AttemptState.FINISHED, rc=0),
        ResultCollected(attempt="theirs", path="p", files=1, bytes=1),
        ResultJudged(attempt="theirs", verdict=Outcome.ACCEPTED),
    )

    def collect_first(*records: AnyRecord) -> list[AnyRecord]:
        if any(isinstance(record, AttemptIntended) for record in records):
            append(*theirs)
        return append(*records)

    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:
        monkeypatch.setattr(journal, "append", collect_first)
        ended = runner.run()
    view = ended.state.tasks["a-1/gpt/run1"]
    assert (view.state, view.attempt) == (TaskState.ACCEPTED, "theirs")
    assert world.starts() == {}


def test_a_timer_that_comes_due_between_two_looks_at_the_clock_is_not_missed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.dispatch.controller.BACKOFF_S", (1.5,))
    monkeypatch.setattr("fleet.dispatch.controller.random.uniform", lambda *_: 1.0)
    calls: list[str] = []

    def wait(attempt: Any, tell: Callable[..., None]) -> None:
        calls.append("wait")
        if len(calls) == 1:
            raise NoAnswer("the connection was lost")
        tell(AttemptObserved(attempt=attempt.attempt, state=AttemptState.LOST, reason="killed"))

    state = controlled(world, Script(wait=wait), collect=False, clock=itertools.count(0.0).__next__)
    assert state.tasks["a-1/gpt/run1"].state is TaskState.LOST
