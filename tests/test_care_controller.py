"""The controller carries out what care decides: it waits out a back-off, notes stalls, and keeps a task's variables apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.dispatch.clockwatch import ClockWatch
from fleet.dispatch.executor import SshExecutor
from fleet.dispatch.job import opened
from fleet.dispatch.rules.care import Rules
from fleet.dispatch.rules.stalls import StallRule
from fleet.model.failures import FailureClass
from fleet.model.records import AttemptAdopted, AttemptObserved, AttemptStalled, HostQuarantined, ResultCollected, ResultJudged
from fleet.model.states import AttemptState, TaskState
from fleet.model.verdict import Cause, Outcome
from fleet.testing import LocalConnector
from tests.support.batches import reject
from tests.test_controller import Script, World, controlled, lent_world, under_control
from tests.test_lost_launches import LABEL, intend, launch_unheard


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from lent_world(tmp_path)


def finished(attempt: Any, tell: Callable[..., None]) -> None:
    tell(AttemptObserved(attempt=attempt.attempt, state=AttemptState.FINISHED, rc=0))


class Judging(Script):
    """Brings results whose verdicts are given one after the other."""

    def __init__(self, *verdicts: Cause | None) -> None:
        super().__init__(wait=finished)
        self.verdicts = list(verdicts)
        self.launched: list[float] = []

    def launch(self, task: Any, attempt: Any, after: Any, tell: Callable[..., None]) -> None:
        self.launched.append(time.monotonic())
        super().launch(task, attempt, after, tell)

    def collect(self, _task: Any, attempt: Any, tell: Callable[..., None]) -> None:
        cause = self.verdicts.pop(0)
        verdict = Outcome.ACCEPTED if cause is None else Outcome.REJECTED
        judged = ResultJudged(attempt=attempt.attempt, verdict=verdict, cause=cause, reasons=(reject("agent-error"),))
        tell(ResultCollected(attempt=attempt.attempt, path=f"p{len(self.verdicts)}", files=1, bytes=1), judged)


def test_a_retry_after_the_provider_waits_and_the_controller_waits_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.dispatch.rules.retries.BACKOFF_S", 0.4)
    script = Judging(Cause.PROVIDER, Cause.PROVIDER, None)
    make = world.job
    monkeypatch.setattr(world, "job", lambda: _allowing(make(), provider=2))
    state = controlled(world, script)
    assert state.tasks[LABEL].state is TaskState.ACCEPTED
    assert state.tasks[LABEL].by_policy == (FailureClass.PROVIDER, FailureClass.PROVIDER)
    first, second, third = script.launched
    assert second - first >= 0.4
    assert third - second >= 0.8


def test_the_policy_ends_where_it_was_told_to(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Judging(Cause.ENVIRONMENT, Cause.ENVIRONMENT, None)
    make = world.job
    monkeypatch.setattr(world, "job", lambda: _allowing(make(), environment=1))
    state = controlled(world, script, rules=Rules(quarantine=0))
    assert state.tasks[LABEL].state is TaskState.REJECTED
    assert len(script.launched) == 2


def _allowing(job: Any, **retry: int) -> Any:
    resolved = replace(job.resolved, tasks=tuple(one.model_copy(update={"retry": retry}) for one in job.resolved.tasks))
    return replace(job, resolved=resolved)


class Beating(Script):
    """Shows signs of life at moments of a clock that it moves itself."""

    def __init__(self, *beats: tuple[float, dict[str, Any]]) -> None:
        super().__init__()
        self.beats = beats
        self.now = 1000.0
        self.ordered: list[bool] = []

    def wait(self, attempt: Any, tell: Any, beat: Any, ordered: Callable[[], bool]) -> None:  # type: ignore[override]
        for step, status in self.beats:
            self.now += step
            beat(status)
            # The controller reads its clock when it takes the message.
            time.sleep(0.05)
            self.ordered.append(ordered())
        finished(attempt, tell)

    def clock(self) -> float:
        return self.now


SIGNS = {"log_bytes": 10, "cpu_s": 1.0, "containers": None, "containers_cpu_s": None}
STILL = {"progress": SIGNS}


def test_an_eval_that_stands_still_is_noted_once_and_so_is_its_moving(world: World) -> None:
    moved = {"progress": {**SIGNS, "log_bytes": 11}}
    script = Beating(*[(10.0, STILL)] * 8, (10.0, moved), (10.0, moved))
    seen: list[str] = []

    class Watching:
        def update(self, state: Any, _lanes: Any) -> None:
            found = [attempt.stalled_since for attempt in state.attempts.values()]
            if found and (not seen or bool(seen[-1]) != bool(found[0])):
                seen.append(found[0])

    rule = StallRule(after_s=50.0)
    state = controlled(world, script, collect=False, clock=script.clock, stall_rule=lambda _: rule, observer=Watching())
    assert [bool(one) for one in seen] == [False, True, False]
    assert state.tasks[LABEL].state is TaskState.FINISHED
    assert not any(script.ordered)


def test_a_laptop_that_slept_does_not_count_its_sleep(world: World) -> None:
    script = Beating(*[(10.0, STILL)] * 3, (100_000.0, STILL), *[(10.0, STILL)] * 3)
    assert not stalled(world, script, 50.0)


def stalled(world: World, script: Beating, after_s: float) -> bool:
    """Run the script to its end; tell whether its eval was ever called stalled."""
    rule = StallRule(after_s=after_s)
    controller, records = under_control(world, script, collect=False, clock=script.clock, stall_rule=lambda _: rule)
    controller.run()
    return any(isinstance(record, AttemptStalled) for record in records())


def test_a_sign_of_life_that_came_while_nobody_looked_ends_no_count(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Beating(*[(10.0, STILL)] * 2, (40.0, STILL), (10.0, STILL))
    monkeypatch.setattr("fleet.dispatch.controller.ClockWatch", lambda: ClockWatch(script.clock, script.clock))
    assert not stalled(world, script, 35.0)


@pytest.mark.parametrize(("rule", "status", "ends"), [
    (StallRule(50.0, cancel=True), STILL, True),
    (StallRule(50.0), STILL, False),
    (StallRule(50.0, cancel=True), {"log_size": 10}, False),
    (StallRule(50.0, cancel=True, containers=True), STILL, False),
], ids=["allowed", "not allowed", "cpu not told", "containers not told"])  # fmt: skip
def test_a_stalled_eval_is_ended_only_where_the_pipeline_says_so_and_on_all_the_evidence(
    world: World, rule: StallRule, status: dict[str, Any], ends: bool
) -> None:
    script = Beating(*[(10.0, status)] * 9)
    state = controlled(world, script, collect=False, clock=script.clock, stall_rule=lambda _: rule)
    (attempt,) = state.attempts.values()
    assert (attempt.cancel_ordered, attempt.cancel_by) == ((True, "stall") if ends else (False, ""))
    assert script.ordered[-1] is ends


def test_another_controllers_eval_is_shown_as_stalled_and_never_ended_by_our_rule(world: World) -> None:
    class Following(Beating):
        def launch(self, _task: Any, attempt: Any, _after: Any, tell: Callable[..., None]) -> None:
            tell(AttemptAdopted(intended=attempt.attempt, attempt="theirs", epoch=1, boot_id="boot"))

    script = Following(*[(10.0, STILL)] * 9)
    rule = StallRule(50.0, True)
    seen: list[str] = []

    class Watching:
        def update(self, state: Any, _lanes: Any) -> None:
            seen.extend(attempt.stalled_since for attempt in state.attempts.values())

    state = controlled(world, script, collect=False, clock=script.clock, stall_rule=lambda _: rule, observer=Watching())
    assert any(seen)
    assert not state.attempts["theirs"].cancel_ordered


def test_a_launch_of_a_task_that_was_taken_out_of_the_assignment_is_not_sent_without_its_variables(world: World) -> None:
    job = world.add("h1", "a-1", "a-2").job()
    intend(world, job)
    world.tasks["h1"].remove("a-1")
    with opened(world.job(), world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:
        ended = runner.run()
    view = ended.state.tasks[LABEL]
    assert (view.state, view.reason) == (TaskState.CANCELLED, "taken out of the assignment before it started")
    assert world.starts() == {"a-2": 1}


def test_one_that_had_been_started_is_followed_all_the_same(world: World) -> None:
    job = world.add("h1", "a-1", seconds=1.0).add("h2", "a-2").job()
    intend(world, job)
    launch_unheard(world, job)
    world.tasks["h1"].remove("a-1")
    with opened(world.job(), world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:
        ended = runner.run()
    assert ended.state.tasks[LABEL].state is TaskState.REJECTED
    assert world.starts() == {"a-1": 1, "a-2": 1}


def test_a_release_that_overtakes_the_order_on_its_way_to_the_host_wins(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("h1", "a-1")
    (attempt,) = world.run().state.attempts
    job = world.add("h1", "a-2").job()
    job.batch.journal.append(HostQuarantined(host="h1", reason="decided a moment ago", attempts=(attempt,)))
    told = SshExecutor.quarantine

    def overtaken(self: SshExecutor, *arguments: Any) -> None:
        self._client().release()
        told(self, *arguments)

    monkeypatch.setattr(SshExecutor, "quarantine", overtaken)
    state = world.run().state
    assert "a person has released it since" in state.hosts["h1"].trouble
    assert not (world.homes["h1"] / ".fleet" / "quarantine.json").exists()
