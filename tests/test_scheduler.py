"""The scheduler decides purely: one action per host, never a second attempt where one may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.dispatch.answers.outcome import exit_code
from fleet.dispatch.rules.scheduler import Begin, Check, Collect, Launch, Wait, decide
from fleet.dispatch.state.replay import BatchState, apply
from fleet.model.exitcodes import Exit
from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.records import (
    AttemptAdopted,
    AttemptIntended,
    AttemptObserved,
    AttemptRefused,
    AttemptStarted,
    BatchHalted,
    BatchOpened,
    CancelOrdered,
    CollectFailed,
    HostChecked,
    LinkChanged,
    ResultCollected,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import AttemptState, HostState, Link, TaskState
from fleet.model.tasks import Task, TaskKey
from fleet.model.verdict import Outcome

NOBODY: frozenset[str] = frozenset()


def task(name: str, *hosts: str, image: str = "") -> Task:
    key = TaskKey(instance_id=name, model="gpt")
    return Task(key=key, dataset_file=Path("/d.json"), place=hosts[0], hosts=hosts, image=image)


def label(name: str) -> str:
    return f"{name}/gpt/run1"


def opened(*tasks: Task) -> BatchState:
    hosts = {host: "openhands" for one in tasks for host in one.hosts}
    record = BatchOpened(batch="b", assignment_sha256="0", controller="me", tasks=tasks, hosts=hosts)
    return apply(BatchState(), record)


def ready(state: BatchState, *hosts: str) -> BatchState:
    return apply(state, *(HostChecked(report=HostReport(host=host, link=Link.OK)) for host in hosts or state.hosts))


def intend(state: BatchState, name: str, host: str, attempt: str = "a1", number: int = 1) -> BatchState:
    return apply(state, AttemptIntended(task=label(name), host=host, attempt=attempt, number=number))


def start(state: BatchState, attempt: str = "a1") -> BatchState:
    return apply(state, AttemptStarted(attempt=attempt, epoch=1, boot_id="boot"))


def observe(state: BatchState, kind: AttemptState, attempt: str = "a1", **fields: object) -> BatchState:
    return apply(state, AttemptObserved(attempt=attempt, state=kind, **fields))


def judge(state: BatchState, verdict: Outcome = Outcome.ACCEPTED, attempt: str = "a1") -> BatchState:
    collected = ResultCollected(attempt=attempt, path="p", files=1, bytes=1)
    return apply(state, collected, ResultJudged(attempt=attempt, verdict=verdict))


def test_an_unchecked_host_is_checked_before_anything_else() -> None:
    assert decide(opened(task("t1", "h1")), NOBODY) == (Check("h1"),)


def test_a_ready_host_begins_its_queue_in_file_order() -> None:
    state = ready(opened(task("t1", "h1"), task("t2", "h1")))
    assert decide(state, NOBODY) == (Begin("h1", label("t1")),)


def test_each_host_gets_one_action_and_each_shared_task_one_host() -> None:
    pool = ("h1", "h2", "h3")
    state = ready(opened(task("t1", *pool), task("t2", *pool)))
    assert decide(state, NOBODY) == (Begin("h1", label("t1")), Begin("h2", label("t2")))


def test_a_host_prefers_its_own_queue_to_the_shared_pool() -> None:
    state = ready(opened(task("shared", "h1", "h2"), task("own", "h1")), "h1")
    assert decide(state, frozenset({"h2"})) == (Begin("h1", label("own")),)


def test_a_host_prefers_the_shared_task_whose_image_it_holds() -> None:
    pool = ("h1", "h2")
    state = ready(opened(task("t1", *pool, image="x"), task("t2", *pool, image="y"), task("t3", *pool, image="x")), "h1")
    state = judge(observe(start(intend(state, "t1", "h1")), AttemptState.FINISHED))
    assert decide(state, frozenset({"h2"})) == (Begin("h1", label("t3")),)


def test_an_occupied_host_is_left_alone() -> None:
    assert decide(ready(opened(task("t1", "h1"))), frozenset({"h1"})) == ()


def test_a_journaled_attempt_without_an_answer_is_sent_again_with_the_same_id() -> None:
    state = intend(ready(opened(task("t1", "h1"))), "t1", "h1", "a7")
    assert decide(state, NOBODY) == (Launch("h1", "a7"),)


def test_a_resumed_controller_sends_the_same_id_before_it_checks_the_host() -> None:
    state = intend(ready(opened(task("t1", "h1"))), "t1", "h1", "a7")
    again = apply(state, BatchOpened(batch="b", assignment_sha256="0", controller="you", tasks=(), hosts={"h1": "openhands"}))
    assert again.hosts["h1"].state is HostState.UNCHECKED
    assert decide(again, NOBODY) == (Launch("h1", "a7"),)


def test_a_task_whose_launch_is_unanswered_is_never_given_to_another_host() -> None:
    state = intend(ready(opened(task("t1", "h1", "h2"))), "t1", "h1")
    state = apply(state, LinkChanged(host="h1", link=Link.UNREACHABLE))
    assert decide(state, frozenset({"h1"})) == ()


def test_running_is_waited_for_and_finished_is_collected() -> None:
    state = start(intend(ready(opened(task("t1", "h1"))), "t1", "h1"))
    assert decide(state, NOBODY) == (Wait("h1", "a1"),)
    assert decide(observe(state, AttemptState.FINISHED, rc=0), NOBODY) == (Collect("h1", "a1"),)


def test_losing_the_link_does_not_move_the_task() -> None:
    state = start(intend(ready(opened(task("t1", "h1"))), "t1", "h1"))
    state = apply(state, LinkChanged(host="h1", link=Link.UNREACHABLE))
    assert state.tasks[label("t1")].state is TaskState.RUNNING
    assert decide(state, NOBODY) == (Wait("h1", "a1"),)


def test_the_next_task_begins_only_after_the_verdict() -> None:
    state = start(intend(ready(opened(task("t1", "h1"), task("t2", "h1"))), "t1", "h1"))
    state = observe(state, AttemptState.FINISHED)
    collected = apply(state, ResultCollected(attempt="a1", path="p", files=1, bytes=1))
    assert decide(collected, NOBODY) == (Collect("h1", "a1"),)
    assert decide(judge(collected), NOBODY) == (Begin("h1", label("t2")),)


def test_without_collecting_the_queue_goes_on_and_the_outputs_stay() -> None:
    state = start(intend(ready(opened(task("t1", "h1"), task("t2", "h1"))), "t1", "h1"))
    state = observe(state, AttemptState.FINISHED)
    assert decide(state, NOBODY, collect=False) == (Begin("h1", label("t2")),)
    later = judge(observe(start(intend(state, "t2", "h1", "a2"), "a2"), AttemptState.FINISHED, "a2"), attempt="a2")
    assert decide(later, NOBODY) == (Collect("h1", "a1"),)


def test_a_lost_attempt_is_salvaged_once_and_never_started_again_by_itself() -> None:
    state = observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.LOST, reason="the host rebooted")
    assert state.tasks[label("t1")].failure is FailureClass.LOST_REBOOT
    assert decide(state, NOBODY) == (Collect("h1", "a1"),)
    failed = apply(state, CollectFailed(attempt="a1", reason="nothing there"))
    assert decide(failed, NOBODY) == ()
    salvaged = judge(state)
    assert salvaged.tasks[label("t1")].state is TaskState.LOST
    assert decide(salvaged, NOBODY) == ()


def test_a_retry_is_a_new_attempt_that_knows_the_old_one() -> None:
    state = judge(observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.FINISHED), Outcome.REJECTED)
    assert decide(state, NOBODY) == ()
    state = apply(state, RetryOrdered(task=label("t1"), after="a1"))
    assert decide(state, NOBODY) == (Begin("h1", label("t1")),)
    assert state.tasks[label("t1")].attempts == ("a1",)


def test_an_accepted_task_cannot_be_retried() -> None:
    state = judge(observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.FINISHED))
    view = apply(state, RetryOrdered(task=label("t1"))).tasks[label("t1")]
    assert view.state is TaskState.ACCEPTED


def test_a_late_report_never_overwrites_a_terminal_state() -> None:
    state = judge(observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.FINISHED))
    for late in (AttemptState.RUNNING, AttemptState.LOST, AttemptState.FINISHED, AttemptState.HELD):
        assert observe(state, late).tasks[label("t1")].state is TaskState.ACCEPTED


def test_a_held_attempt_keeps_its_host_and_its_result_is_salvaged_meanwhile() -> None:
    state = start(intend(ready(opened(task("t1", "h1"), task("t2", "h1"))), "t1", "h1"))
    state = observe(state, AttemptState.HELD, reason="left over: process 7 (sleep 60)")
    assert (state.tasks[label("t1")].state, state.hosts["h1"].state) == (TaskState.HELD, HostState.HELD)
    waiting = state.tasks[label("t2")]
    assert (waiting.state, waiting.failure) == (TaskState.BLOCKED, FailureClass.HELD)
    assert "process 7" in waiting.reason
    assert decide(state, NOBODY) == (Collect("h1", "a1"),)
    state = judge(state)
    assert state.tasks[label("t1")].state is TaskState.HELD
    assert decide(state, NOBODY) == ()
    assert exit_code(state) == Exit.INCOMPLETE


def test_a_held_attempt_is_judged_once_the_host_says_that_nothing_is_left_of_it() -> None:
    state = judge(observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.HELD, reason="left over"))
    state = ready(state)
    assert decide(state, NOBODY) == (Wait("h1", "a1"),)
    assert observe(state, AttemptState.HELD).hosts["h1"].state is HostState.HELD
    state = observe(state, AttemptState.FINISHED)
    view = state.tasks[label("t1")]
    assert (view.state, view.failure, view.path) == (TaskState.ACCEPTED, None, "p")
    assert state.hosts["h1"].state is HostState.UNCHECKED
    assert exit_code(state) == Exit.OK


def test_a_held_attempt_that_its_host_no_longer_knows_is_not_asked_for_again() -> None:
    state = judge(observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.HELD))
    state = ready(observe(state, AttemptState.LOST, reason="the host no longer knows the attempt"))
    assert state.tasks[label("t1")].state is TaskState.HELD
    assert decide(state, NOBODY) == ()


@pytest.mark.parametrize(
    ("failure", "host_state"),
    [
        (FailureClass.HELD, HostState.HELD),
        (FailureClass.HOST_NOT_READY, HostState.BLOCKED),
        (FailureClass.HOST_BUSY, HostState.BUSY),
    ],
)
def test_a_refusing_host_blocks_its_own_tasks_with_the_reason(failure: FailureClass, host_state: HostState) -> None:
    state = intend(ready(opened(task("t1", "h1"), task("t2", "h2"))), "t1", "h1")
    state = apply(state, AttemptRefused(attempt="a1", code="x", reason="disk: 99 % used", failure=failure))
    assert state.hosts["h1"].state is host_state
    assert state.tasks[label("t1")].state is TaskState.BLOCKED
    assert "disk: 99 % used" in state.tasks[label("t1")].reason
    assert decide(state, NOBODY) == (Begin("h2", label("t2")),)


def test_a_shared_task_refused_by_one_host_goes_to_another() -> None:
    state = intend(ready(opened(task("t1", "h1", "h2"))), "t1", "h1")
    refused = AttemptRefused(attempt="a1", code="not-ready", reason="docker", failure=FailureClass.HOST_NOT_READY)
    assert decide(apply(state, refused), NOBODY) == (Begin("h2", label("t1")),)


def test_a_blocked_host_is_asked_again_when_it_is_due() -> None:
    state = intend(ready(opened(task("t1", "h1"))), "t1", "h1")
    refused = AttemptRefused(attempt="a1", code="not-ready", reason="docker", failure=FailureClass.HOST_NOT_READY)
    state = apply(state, refused)
    assert decide(state, NOBODY) == ()
    assert decide(state, NOBODY, due=frozenset({"h1"})) == (Check("h1"),)
    assert decide(ready(state), NOBODY) == (Begin("h1", label("t1")),)


def test_an_adopted_attempt_takes_the_place_of_the_intended_one() -> None:
    state = intend(ready(opened(task("t1", "h1"))), "t1", "h1", "mine")
    state = apply(state, AttemptAdopted(intended="mine", attempt="theirs", epoch=4, boot_id="boot"))
    assert "mine" not in state.attempts
    assert state.tasks[label("t1")].attempts == ("theirs",)
    assert decide(state, NOBODY) == (Wait("h1", "theirs"),)


def test_an_attempt_that_the_host_took_but_never_started_is_launched_again() -> None:
    state = observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.ACCEPTED)
    assert decide(state, NOBODY) == (Launch("h1", "a1"),)


def test_halting_starts_nothing_new_and_still_brings_home_what_runs() -> None:
    state = start(intend(ready(opened(task("t1", "h1"), task("t2", "h2"))), "t1", "h1"))
    state = apply(state, BatchHalted(reason="3 tasks failed"))
    assert decide(state, NOBODY) == (Wait("h1", "a1"),)


def test_a_cancelled_waiting_task_is_never_begun() -> None:
    state = apply(ready(opened(task("t1", "h1"))), CancelOrdered(task=label("t1")))
    assert state.tasks[label("t1")].state is TaskState.CANCELLED
    assert decide(state, NOBODY) == ()


def test_a_cancelled_running_task_ends_as_cancelled_whatever_its_outputs_are() -> None:
    state = start(intend(ready(opened(task("t1", "h1"))), "t1", "h1"))
    state = judge(observe(state, AttemptState.FINISHED, cancelled=True), Outcome.ACCEPTED)
    assert state.tasks[label("t1")].state is TaskState.CANCELLED


def test_collecting_is_given_up_after_three_failures_and_said_so() -> None:
    state = observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.FINISHED)
    for _ in range(2):
        state = apply(state, CollectFailed(attempt="a1", reason="rsync: code 12"))
        assert decide(state, NOBODY) == (Collect("h1", "a1"),)
    state = apply(state, CollectFailed(attempt="a1", reason="rsync: code 12"))
    view = state.tasks[label("t1")]
    assert (view.state, view.failure, view.reason) == (TaskState.FAILED, FailureClass.COLLECT_FAILED, "rsync: code 12")


def test_only_limits_new_attempts_and_not_what_is_under_way() -> None:
    state = start(intend(ready(opened(task("t1", "h1"), task("t2", "h2"))), "t1", "h1"))
    assert decide(state, NOBODY, only=frozenset({"other"})) == (Wait("h1", "a1"),)


def test_another_machine_under_a_known_name_is_blocked_until_a_person_decides() -> None:
    state = opened(task("t1", "h1"))
    state = apply(state, HostChecked(report=HostReport(host="h1", link=Link.OK, host_uid="aaaa")))
    assert decide(state, NOBODY) == (Begin("h1", label("t1")),)
    state = apply(state, HostChecked(report=HostReport(host="h1", link=Link.OK, host_uid="bbbb")))
    assert state.hosts["h1"].link is Link.CHANGED
    assert state.hosts["h1"].shown == "changed"
    assert state.tasks[label("t1")].failure is FailureClass.HOST_CHANGED
    assert decide(state, NOBODY) == ()
    assert exit_code(state) == Exit.SAFETY


def test_a_result_collected_after_giving_up_counts_after_all() -> None:
    state = observe(start(intend(ready(opened(task("t1", "h1"))), "t1", "h1")), AttemptState.FINISHED)
    for _ in range(3):
        state = apply(state, CollectFailed(attempt="a1", reason="rsync: code 12"))
    assert judge(state).tasks[label("t1")].state is TaskState.ACCEPTED


def test_a_result_that_another_command_notes_does_not_hide_what_runs_on_its_host() -> None:
    state = ready(opened(task("t1", "h1"), task("t2", "h1")))
    state = start(intend(state, "t1", "h1", "ours"), "ours")
    state = judge(observe(intend(state, "t2", "h1", "theirs"), AttemptState.FINISHED, "theirs"), attempt="theirs")
    assert state.tasks[label("t2")].state is TaskState.ACCEPTED
    assert decide(state, NOBODY) == (Wait("h1", "ours"),)
    ended = judge(observe(state, AttemptState.FINISHED, "ours"), attempt="ours")
    assert ended.hosts["h1"].attempt is None


def test_one_order_of_another_attempt_is_good_for_one_attempt_however_often_and_late_it_is_written() -> None:
    def rejected(state: BatchState, attempt: str, number: int) -> BatchState:
        state = observe(start(intend(state, "t1", "h1", attempt, number), attempt), AttemptState.FINISHED, attempt)
        return judge(state, Outcome.REJECTED, attempt)

    order = RetryOrdered(task=label("t1"), after="a1")
    state = apply(rejected(ready(opened(task("t1", "h1"))), "a1", 1), order, order)
    assert decide(state, NOBODY) == (Begin("h1", label("t1")),)
    state = rejected(state, "a2", 2)
    assert decide(apply(state, order), NOBODY) == ()
    assert decide(apply(state, RetryOrdered(task=label("t1"), after="a2")), NOBODY) == (Begin("h1", label("t1")),)
