"""What the operator ordered holds, whatever the hosts answer and however often the controller starts again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.dispatch.answers.outcome import exit_code
from fleet.dispatch.job import Job, opened
from fleet.dispatch.rules.scheduler import decide
from fleet.dispatch.state.replay import BatchState, apply
from fleet.model.exitcodes import Exit
from fleet.model.failures import FailureClass
from fleet.model.records import (
    AttemptAdopted,
    AttemptIntended,
    AttemptRefused,
    CancelOrdered,
    LinkChanged,
    RetryOrdered,
)
from fleet.model.states import AttemptState, Link, TaskState
from fleet.model.verdict import Outcome
from fleet.testing import LocalConnector
from tests.test_controller import World, lent_world
from tests.test_scheduler import NOBODY, intend, judge, label, observe, ready, start, task
from tests.test_scheduler import opened as batch


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from lent_world(tmp_path)


def refused(attempt: str, failure: FailureClass = FailureClass.HOST_BUSY) -> AttemptRefused:
    return AttemptRefused(attempt=attempt, code="busy", reason="an eval is running here", failure=failure)


def test_a_task_cancelled_while_its_launch_was_refused_is_not_begun_again() -> None:
    state = intend(ready(batch(task("t1", "h1", "h2"))), "t1", "h1")
    state = apply(state, CancelOrdered(task=label("t1"), attempt="a1"), refused("a1"))
    assert state.tasks[label("t1")].state is TaskState.CANCELLED
    assert decide(state, NOBODY) == ()


def test_the_first_of_two_attempts_at_one_task_has_it_and_the_refusal_of_the_other_changes_nothing() -> None:
    state = start(intend(ready(batch(task("t1", "h1", "h2"))), "t1", "h1"))
    state = apply(intend(state, "t1", "h2", "a2", 2), refused("a2"))
    view = state.tasks[label("t1")]
    assert (view.state, view.attempt, view.attempts) == (TaskState.RUNNING, "a1", ("a1",))


def test_a_host_cannot_take_over_another_tasks_attempt_by_naming_it() -> None:
    state = start(intend(ready(batch(task("t1", "h1"), task("t2", "h2"))), "t1", "h1", "a1"), "a1")
    state = intend(state, "t2", "h2", "a2")
    state = apply(state, AttemptAdopted(intended="a2", attempt="a1", epoch=1, boot_id="boot"))
    assert (state.attempts["a1"].task, state.attempts["a1"].host) == (label("t1"), "h1")
    assert state.tasks[label("t1")].state is TaskState.RUNNING
    assert state.tasks[label("t2")].failure is FailureClass.HOST_IDENTITY
    state = judge(observe(state, AttemptState.FINISHED), Outcome.ACCEPTED)
    assert state.tasks[label("t1")].state is TaskState.ACCEPTED


@pytest.mark.parametrize("link", [Link.KEY_CHANGED, Link.KEY_UNKNOWN, Link.CHANGED])
def test_an_eval_behind_a_host_key_that_is_not_trusted_is_a_matter_of_safety(link: Link) -> None:
    state = start(intend(ready(batch(task("t1", "h1"))), "t1", "h1"))
    state = apply(state, LinkChanged(host="h1", link=link, error="the host key changed"))
    assert exit_code(state) == Exit.INCOMPLETE | Exit.SAFETY


def rejected(world: World) -> BatchState:
    return world.add("h1", "a-1").add("h2", "a-2").run().state


def dispatched(world: World, **changes: Any) -> BatchState:
    job = replace(world.job(), **changes)
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:
        return runner.run().state


def test_only_on_some_hosts_orders_nothing_on_the_others(world: World) -> None:
    assert {view.state for view in rejected(world).tasks.values()} == {TaskState.REJECTED}
    state = dispatched(world, retry=frozenset({TaskState.REJECTED}), hosts=("h1",))
    assert world.starts() == {"a-1": 2, "a-2": 1}
    assert {view.state for view in state.tasks.values()} == {TaskState.REJECTED}
    assert state.tasks["a-2/gpt/run1"].verdict is Outcome.REJECTED


def test_only_given_again_after_a_crash_goes_on_with_what_it_had_ordered(world: World) -> None:
    state = rejected(world)
    job = world.job()
    order = RetryOrdered(task="a-1/gpt/run1", after=state.tasks["a-1/gpt/run1"].attempt)
    job.batch.journal.append(order)
    dispatched(world, retry=frozenset({TaskState.FAILED}))
    assert world.starts() == {"a-1": 2, "a-2": 1}


def test_a_launch_sent_again_has_its_variables_also_when_its_host_gets_no_new_tasks(world: World) -> None:
    job = with_env(world.add("h1", "a-1").add("h2", "a-2"))
    script = world.homes["h1"] / "work" / "eval-a-1.sh"
    script.write_text(script.read_text().replace("\n", '\necho "$SOME_KEY" > ~/seen\n', 1))
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)):
        pass
    job.batch.journal.append(AttemptIntended(task="a-1/gpt/run1", host="h1", attempt="a1", number=1))
    narrowed = replace(job, hosts=("h2",))
    with opened(narrowed, world.inventory(), world.pipelines(), LocalConnector(world.homes)) as runner:
        runner.run()
    assert world.starts()["a-1"] == 1
    assert (world.homes["h1"] / "seen").read_text() == "value\n"
    spec = (world.homes["h1"] / ".fleet/attempts/a1/spec.json").read_text()
    assert '"env": {}' in spec, "what was acknowledged no longer needs its variables"


def with_env(world: World) -> Job:
    job = world.job()
    tasks = tuple(one.model_copy(update={"env": {"SOME_KEY": "value"}}) for one in job.resolved.tasks)
    return replace(job, resolved=replace(job.resolved, tasks=tasks))
