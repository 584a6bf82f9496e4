"""Care for hosts is decided from the state alone: quarantine, whose fault it is, retries by policy, halting."""

from __future__ import annotations

import pytest

from fleet.dispatch.answers.outcome import exit_code
from fleet.dispatch.answers.why import why_host, why_task
from fleet.dispatch.rules.care import Rules, due
from fleet.dispatch.rules.faults import is_tasks_fault, row_of
from fleet.dispatch.rules.halt import halt_rule
from fleet.dispatch.rules.retries import backoff_s
from fleet.dispatch.rules.scheduler import Begin, Check, Collect, Launch, Tell, Wait, decide
from fleet.dispatch.state.replay import BatchState, apply
from fleet.errors import InputError
from fleet.model.exitcodes import Exit
from fleet.model.failures import FailureClass
from fleet.model.records import (
    AttemptAcked,
    AttemptAdopted,
    AttemptIntended,
    AttemptMoving,
    AttemptStalled,
    BatchHalted,
    CancelOrdered,
    CollectFailed,
    HostQuarantined,
    HostReleased,
    QuarantineTold,
    RetryOrdered,
)
from fleet.model.states import AttemptState, HostState, TaskState
from fleet.model.tasks import Task
from fleet.model.verdict import Cause, Outcome
from tests.support.batches import Batch, reject, task

NOBODY: frozenset[str] = frozenset()
BROKEN = reject("environment-broken", "docker: command not found")


def pinned(*names: str, retry: dict[str, int] | None = None) -> list[Task]:
    return [task(name).model_copy(update={"retry": retry or {}}) for name in names]


def bad(batch: Batch, one: Task, host: str = "eval1", number: int = 1, cause: Cause = Cause.ENVIRONMENT) -> Batch:
    return batch.run(one, host, Outcome.REJECTED, BROKEN, cause=cause, number=number)


def cared_for(batch: Batch, rules: Rules | None = None) -> BatchState:
    """Return the state with everything that follows from it, as the controller writes it."""
    state = batch.state
    for _ in range(5):
        found = due(state, rules or Rules())
        if not found:
            return state
        state = apply(state, *(record.model_copy(update={"t": "2026-11-20T13:00:00.000Z"}) for record in found))
    raise AssertionError("care does not come to an end")


def test_three_different_tasks_in_a_row_put_their_host_in_quarantine_with_the_whole_chain() -> None:
    a, b, c, d = pinned("a", "b", "c", "d")
    batch = Batch([a, b, c, d]).ready()
    for one in (a, b):
        bad(batch, one)
    assert due(batch.state, Rules()) == []
    (record,) = due(bad(batch, c).state, Rules())
    assert isinstance(record, HostQuarantined)
    assert record.host == "eval1"
    state = cared_for(batch)
    assert (state.tasks[d.label].state, state.tasks[d.label].failure) == (TaskState.BLOCKED, FailureClass.HOST_QUARANTINED)
    assert exit_code(state, [d.label]) == Exit.FAILED
    why = why_host(state, state.hosts["eval1"])
    assert "is quarantined since 2026-11-20T13:00:00.000Z: 3 tasks in a row ended badly here" in why.sentence
    for name in ("a", "b", "c"):
        assert f"{name}/gpt/run1: environment: docker: command not found" in why.sentence
    assert why.next == "fleet release eval1"
    assert why_task(state, state.tasks[d.label]).sentence.startswith("is blocked: eval1 is quarantined since")


def test_a_host_in_quarantine_is_told_before_anything_else_and_gets_no_task_and_no_check() -> None:
    a, b = pinned("a", "b")
    batch = bad(Batch([a, b]).ready(), a)
    state = cared_for(batch, Rules(quarantine=1))
    assert decide(state, NOBODY) == (Tell("eval1"),)
    told = apply(state, QuarantineTold(host="eval1"))
    assert decide(told, NOBODY) == ()
    assert decide(told, NOBODY, due=frozenset({"eval1"})) == ()
    again = apply(told, batch.records[0])
    assert again.hosts["eval1"].state is HostState.UNCHECKED
    assert decide(again, NOBODY) == ()
    released = apply(told, HostReleased(host="eval1"))
    assert decide(released, NOBODY) == (Check("eval1"),)
    assert due(released, Rules(quarantine=1)) == []


def test_what_is_on_a_host_in_quarantine_is_still_brought_to_its_end() -> None:
    a, b, c = pinned("a", "b", "c")
    batch = bad(Batch([a, b, c]).ready(), a)
    attempt = batch.launch(b)
    state = apply(cared_for(batch, Rules(quarantine=1)), QuarantineTold(host="eval1"))
    assert decide(state, NOBODY) == (Wait("eval1", attempt),)
    batch.finish(attempt)
    state = apply(cared_for(batch, Rules(quarantine=1)), QuarantineTold(host="eval1"))
    assert decide(state, NOBODY) == (Collect("eval1", attempt),)


def test_results_that_were_adopted_by_hand_say_nothing_of_their_host() -> None:
    tasks = pinned("a", "b", "c")
    batch = Batch(tasks).ready()
    for one in tasks:
        adopted = batch.launch(one, start=False)
        batch.finish(adopted).collect(adopted).judge(adopted, Outcome.REJECTED, BROKEN, cause=Cause.ENVIRONMENT)
    state = cared_for(batch)
    assert {view.state for view in state.tasks.values()} == {TaskState.REJECTED}
    assert state.hosts["eval1"].quarantine is None


def test_a_good_result_ends_the_row() -> None:
    tasks = pinned("a", "b", "c", "d")
    batch = Batch(tasks).ready()
    bad(bad(batch, tasks[0]), tasks[1]).run(tasks[2])
    assert due(bad(batch, tasks[3]).state, Rules()) == []
    assert [one.task for one in row_of(batch.state, batch.state.hosts["eval1"])] == [tasks[3].label]


@pytest.mark.parametrize("cause", [Cause.MODEL, Cause.PROVIDER, Cause.OPERATOR])
def test_what_is_not_the_hosts_fault_neither_lengthens_nor_ends_the_row(cause: Cause) -> None:
    tasks = pinned("a", "b", "c", "d", "e")
    batch = Batch(tasks).ready()
    bad(batch, tasks[0])
    for one in tasks[1:4]:
        bad(batch, one, cause=cause)
    assert due(batch.state, Rules()) == []
    assert [record.type for record in due(bad(batch, tasks[4]).state, Rules(quarantine=2))] == ["quarantined"]


def test_one_task_that_fails_again_and_again_is_one_task() -> None:
    (one,) = pinned("a")
    batch = Batch([one]).ready()
    for number in (1, 2, 3, 4):
        bad(batch, one, number=number).retry(one)
    assert due(batch.state, Rules()) == []


def test_lost_held_and_uncollectable_count_too_and_zero_switches_quarantine_off() -> None:
    a, b, c = pinned("a", "b", "c")
    batch = Batch([a, b, c]).ready()
    batch.observe(batch.launch(a), AttemptState.LOST, reason="the host rebooted during the eval")
    batch.observe(batch.launch(b), AttemptState.HELD, reason="1 process is left")
    attempt = batch.launch(c)
    batch.finish(attempt)
    for _ in range(3):
        batch.add(CollectFailed(attempt=attempt, reason="rsync: code 12"))
    (record,) = due(batch.state, Rules())
    assert isinstance(record, HostQuarantined)
    for word in ("lost-reboot", "held", "collect-failed"):
        assert word in record.reason
    assert due(batch.state, Rules(quarantine=0)) == []


def test_a_task_that_fails_on_two_hosts_is_at_fault_itself_and_counts_against_neither() -> None:
    pool = task("p", "gpt", "eval1", "eval2").model_copy(update={"retry": {"environment": 5}})
    a, b = task("a"), task("b", "gpt", "eval2")
    batch = Batch([pool, a, b], ("eval1", "eval2")).ready()
    bad(batch, pool, "eval1")
    assert [type(record) for record in due(batch.state, Rules())] == [RetryOrdered]
    bad(batch.retry(pool), pool, "eval2", number=2)
    bad(bad(batch, a), b, "eval2")
    state = batch.state
    assert is_tasks_fault(state, state.tasks[pool.label])
    assert due(state, Rules(quarantine=2)) == []
    sentence = why_task(state, state.tasks[pool.label]).sentence
    assert "it is the task's fault, because it failed on different hosts" in sentence
    assert "eval1: environment: docker: command not found; eval2: environment" in sentence


def test_a_policy_allows_so_many_attempts_over_the_whole_history_and_no_more() -> None:
    (one,) = pinned("a", retry={"lost": 2})
    batch = Batch([one]).ready()
    for number in (1, 2, 3):
        attempt = batch.launch(one, number=number)
        reason = "the host rebooted during the eval" if number == 1 else "killed"
        batch.observe(attempt, AttemptState.LOST, reason=reason)
        assert due(batch.state, Rules(quarantine=0)) == [], "nothing before its outputs were tried for"
        batch.add(CollectFailed(attempt=attempt, reason="nothing there"))
        # Another controller takes the batch: it does not count from the beginning.
        batch.records.append(batch.records[0])
        orders = due(batch.ready().state, Rules(quarantine=0))
        if number == 3:
            assert orders == []
        else:
            (order,) = orders
            assert isinstance(order, RetryOrdered)
            assert (order.by, order.after) == ("policy", attempt)
            batch.add(order)
            assert decide(batch.state, NOBODY) == (Begin("eval1", one.label),)
    assert batch.state.tasks[one.label].state is TaskState.LOST


def test_without_a_policy_for_its_class_nothing_that_may_have_run_is_ordered_again() -> None:
    (one,) = pinned("a", retry={"provider": 3, "lost-reboot": 3})
    batch = Batch([one]).ready()
    attempt = batch.launch(one)
    batch.observe(attempt, AttemptState.LOST, reason="killed").add(CollectFailed(attempt=attempt, reason="nothing there"))
    assert due(batch.state, Rules()) == []


def test_a_policys_order_that_comes_after_an_operators_changes_nothing() -> None:
    (one,) = pinned("a", retry={"environment": 1})
    batch = bad(Batch([one]).ready(), one)
    (order,) = due(batch.state, Rules())
    bad(batch.retry(one), one, number=2)
    after = apply(batch.state, order)
    assert after.tasks[one.label].state is TaskState.REJECTED
    assert after.tasks[one.label].by_policy == ()


def test_a_provider_that_refuses_is_left_alone_for_twice_as_long_each_time() -> None:
    (one,) = pinned("a", retry={"provider": 3})
    batch = Batch([one]).ready()
    waits = []
    for number in (1, 2, 3):
        bad(batch, one, number=number, cause=Cause.PROVIDER)
        (order,) = due(batch.state, Rules())
        batch.add(order)
        waits.append(backoff_s(batch.state.tasks[one.label]))
        assert decide(batch.state, NOBODY, delayed=frozenset({one.label})) == ()
    assert waits == [30.0, 60.0, 120.0]


def test_a_retried_task_of_a_pool_prefers_another_host_and_takes_the_same_when_there_is_none() -> None:
    pool = task("p", "gpt", "eval1", "eval2")
    batch = Batch([pool], ("eval1", "eval2")).ready()
    bad(batch, pool, "eval1").retry(pool)
    assert decide(batch.state, NOBODY) == (Begin("eval2", pool.label),)
    assert decide(batch.state, frozenset({"eval2"})) == ()
    batch.blocked("eval2")
    assert decide(batch.state, NOBODY) == (Begin("eval1", pool.label),)


@pytest.mark.parametrize("text", ["now,fail=0", "later,fail=1", "now,fail=101%", "now", "now,fail=-1"])
def test_a_halt_rule_is_read_strictly(text: str) -> None:
    with pytest.raises(InputError):
        halt_rule(text)


def test_halt_now_orders_the_end_of_what_runs_in_the_same_breath_and_once() -> None:
    a, b, c = task("a"), task("b", "gpt", "eval2"), task("c", "gpt", "eval2")
    batch = Batch([a, b, c], ("eval1", "eval2")).ready()
    attempt = batch.launch(b, "eval2")
    bad(batch, a)
    soon = due(batch.state, Rules(halt=halt_rule("soon,fail=1")))
    assert [type(record) for record in soon] == [BatchHalted]
    halted, cancel = due(batch.state, Rules(halt=halt_rule("now,fail=1")))
    assert isinstance(halted, BatchHalted) and halted.cancel
    assert cancel == CancelOrdered(task=b.label, attempt=attempt, by="halt")
    # A controller that died between the two finds the second due, with or without the rule.
    assert due(apply(batch.state, halted), Rules()) == [cancel]
    state = apply(batch.state, halted, cancel)
    assert due(state, Rules(halt=halt_rule("now,fail=1"))) == []
    assert exit_code(state) & Exit.HALTED
    batch.records += [halted, cancel]
    batch.observe(attempt, AttemptState.FINISHED, cancelled=True).collect(attempt).judge(attempt, Outcome.REJECTED)
    view = batch.state.tasks[b.label]
    assert (view.state, view.failure) == (TaskState.CANCELLED, FailureClass.CANCELLED)
    assert "--halt now" in view.reason


def test_a_failure_that_its_policy_will_retry_does_not_halt() -> None:
    (one,) = pinned("a", retry={"environment": 1})
    batch = bad(Batch([one]).ready(), one)
    assert [type(record) for record in due(batch.state, Rules(halt=halt_rule("now,fail=1")))] == [RetryOrdered]


def test_an_intent_whose_writer_died_before_taking_it_back_is_not_sent() -> None:
    (one,) = pinned("a")
    batch = Batch([one]).ready().add(CancelOrdered(task=one.label))
    batch.add(AttemptIntended(task=one.label, host="eval1", attempt="x", number=1))
    state = batch.state
    # The launch is settled with the host instead of being sent, because its end is ordered.
    assert decide(state, NOBODY) == (Launch("eval1", "x"),)
    assert state.attempts["x"].cancel_ordered
    batch = Batch([one]).ready()
    first = batch.launch(one)
    batch.add(AttemptIntended(task=one.label, host="eval1", attempt="x", number=2))
    assert batch.state.attempts["x"].refused == "forestalled"
    assert decide(batch.state, NOBODY) == (Wait("eval1", first),)


def test_a_stall_is_a_condition_of_running_that_ends_with_the_first_movement_or_the_attempt() -> None:
    (one,) = pinned("a")
    batch = Batch([one]).ready()
    attempt = batch.launch(one)
    batch.add(AttemptStalled(attempt=attempt, since="2026-11-20T12:00:00.000Z", idle_s=900.0))
    state = batch.state
    assert state.tasks[one.label].state is TaskState.RUNNING
    for why in (why_task(state, state.tasks[one.label]), why_host(state, state.hosts["eval1"])):
        assert "is STALLED: neither its log nor CPU nor containers moved since 2026-11-20T12:00:00.000Z" in why.sentence
        assert why.next == "fleet logs a/gpt/run1 --batch phase8"
    assert apply(state, AttemptMoving(attempt=attempt)).attempts[attempt].stalled_since == ""
    batch.finish(attempt).add(AttemptAcked(attempt=attempt))
    assert batch.state.attempts[attempt].stalled_since == ""


def test_halting_now_leaves_another_controllers_eval_alone() -> None:
    a, b, c = pinned("a", "b"), task("c", "gpt", "eval2"), task("d", "gpt", "eval3")
    batch = Batch([*a, b, c], ("eval1", "eval2", "eval3")).ready()
    ours = batch.launch(b, "eval2")
    intended = batch.launch(c, "eval3", start=False)
    batch.add(AttemptAdopted(intended=intended, attempt="theirs", epoch=1, boot_id="boot"))
    bad(batch, a[0])
    halted, cancel = due(batch.state, Rules(halt=halt_rule("now,fail=1")))
    assert isinstance(halted, BatchHalted)
    assert isinstance(cancel, CancelOrdered)
    assert cancel.attempt == ours


def test_a_task_that_the_operator_cancelled_is_not_tried_again_by_policy_however_it_ended() -> None:
    (one,) = pinned("a", retry={"lost": 2, "environment": 2})
    batch = Batch([one]).ready()
    attempt = batch.launch(one)
    batch.add(CancelOrdered(task=one.label, attempt=attempt))
    batch.observe(attempt, AttemptState.LOST, reason="the host rebooted during the eval").collect(attempt)
    assert due(batch.state, Rules()) == []
    assert due(bad(batch.retry(one), one, number=2).state, Rules()) != []
