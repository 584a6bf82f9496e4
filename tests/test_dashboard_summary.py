"""The summary counts every task once, measures what can be true, and keeps "not known" apart from zero."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.dashboard.export import summary_json
from fleet.dashboard.figures import Figures, Summary
from fleet.dashboard.hosts import status_of
from fleet.dashboard.measures import known_sum, percentile_95, spread, wilson
from fleet.dashboard.summary import summarize
from fleet.dispatch.state.replay import BatchState, replay
from fleet.model.failures import Blame, FailureClass
from fleet.model.findings import Finding, HostReport, Mark
from fleet.model.records import (
    AnyRecord,
    AttemptAdopted,
    AttemptIntended,
    AttemptObserved,
    AttemptRefused,
    AttemptStarted,
    BatchHalted,
    BatchOpened,
    CancelOrdered,
    CollectFailed,
    ControllerLeft,
    HostChecked,
    LinkChanged,
    ResultCollected,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import AttemptState, HostState, Link, TaskState
from fleet.model.tasks import Task
from fleet.model.verdict import Cause, Facts, Outcome
from tests.support.batches import GOOD_FACTS, Batch, iso, reject, seed_case, task, warn

HOSTS = ("eval1", "eval2", "eval3")
TASKS = (
    task("a", "gpt", "eval1"),
    task("b", "gpt", "eval2"),
    task("c", "claude", "eval1", "eval2", "eval3"),
    task("d", "claude", *HOSTS),
)


def one_record(labels: list[str], attempts: list[str]) -> st.SearchStrategy[AnyRecord]:
    """Any record at all about a few tasks, hosts and attempts, also in an order that no controller would write."""
    label, attempt, host = st.sampled_from(labels), st.sampled_from(attempts), st.sampled_from(HOSTS)
    failing = Finding(check="disk", mark=Mark.FAIL, message="full")
    return st.one_of(
        st.builds(AttemptIntended, task=label, host=host, attempt=attempt, number=st.integers(1, 3)),
        st.builds(AttemptStarted, attempt=attempt, epoch=st.just(1), boot_id=st.just("x"), started_at=st.text(max_size=30)),
        st.builds(
            AttemptRefused, attempt=attempt, code=st.just("busy"), reason=st.just("r"), failure=st.sampled_from(FailureClass)
        ),
        st.builds(AttemptAdopted, intended=attempt, attempt=attempt, epoch=st.just(2), boot_id=st.just("y")),
        st.builds(
            AttemptObserved,
            attempt=attempt,
            state=st.sampled_from(AttemptState),
            reason=st.sampled_from(["", "reboot", "\x1b[31m"]),
            elapsed_s=st.one_of(st.none(), st.floats()),
            cancelled=st.booleans(),
            timed_out=st.booleans(),
        ),
        st.builds(ResultCollected, attempt=attempt, path=st.just("p"), files=st.just(1), bytes=st.just(1)),
        st.builds(CollectFailed, attempt=attempt, reason=st.just("no")),
        st.builds(
            ResultJudged,
            attempt=attempt,
            verdict=st.sampled_from(Outcome),
            cause=st.sampled_from([None, *Cause]),
            reasons=st.sampled_from([(), (reject("output-empty"),), (warn("patch-small"),)]),
            facts=st.builds(
                Facts,
                resolved=st.sampled_from([None, True, False]),
                cost_usd=st.one_of(st.none(), st.floats()),
                patch_bytes=st.one_of(st.none(), st.integers()),
            ),
        ),
        st.builds(CancelOrdered, task=label, attempt=st.one_of(st.none(), attempt)),
        st.builds(RetryOrdered, task=label),
        st.builds(LinkChanged, host=host, link=st.sampled_from(Link)),
        st.builds(
            HostChecked,
            report=st.builds(
                HostReport,
                host=host,
                link=st.sampled_from(Link),
                findings=st.sampled_from([(), (failing,)]),
                error=st.just("e"),
            ),
        ),
        st.just(BatchHalted(reason="too many failures")),
        st.just(ControllerLeft(why="detached")),
    )


HISTORIES = st.lists(one_record([one.label for one in TASKS], ["A1", "A2", "A3", "A4"]), max_size=40)


def assert_adds_up(figures: Figures) -> None:
    assert sum(figures.states.values()) == figures.assigned
    assert sum(dict(figures.fate).values()) == figures.assigned
    assert figures.funnel[0].count == figures.assigned
    for stage, following in zip(figures.funnel, figures.funnel[1:], strict=False):
        assert stage.count == following.count + sum(stage.out.values())
    assert figures.funnel[-1].count == figures.fate.resolved
    assert figures.funnel[-2].count == figures.count(TaskState.ACCEPTED, TaskState.FLAGGED)


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_every_task_is_in_exactly_one_state_stage_and_fate_after_any_history(records: list[AnyRecord]) -> None:
    batch = Batch(TASKS, HOSTS)
    summary = summarize(replay([*batch.records, *records]), batch.now)
    assert summary.total.assigned == len(TASKS)
    for figures in (summary.total, *(one.figures for one in (*summary.by_model, *summary.by_host))):
        assert_adds_up(figures)
    assert sum(one.figures.assigned for one in summary.by_model) == len(TASKS)
    assert sum(one.figures.assigned for one in summary.by_host) == len(TASKS)
    bad = (TaskState.BLOCKED, TaskState.REJECTED, TaskState.FAILED, TaskState.CANCELLED, TaskState.LOST, TaskState.HELD)
    assert sum(group.count for group in summary.failures) == summary.total.count(*bad)
    assert {row.task for row in summary.results} == {one.label for one in TASKS}
    assert sum(row.current for row in summary.results) == len(TASKS)
    assert sum(summary.host_counts.values()) == len(HOSTS)
    assert Summary.model_validate_json(summary_json(summary)) == summary


def test_the_seed_case_is_counted_as_its_operator_would() -> None:
    batch = seed_case()
    summary = summarize(batch.state, batch.now)
    assert [(stage.name, stage.count, stage.out) for stage in summary.total.funnel] == [
        ("assigned", 12, {"pending": 2, "blocked": 4}),
        ("started", 6, {"running": 2}),
        ("finished", 4, {}),
        ("collected", 4, {"rejected": 1}),
        ("valid", 3, {"unresolved": 1}),
        ("resolved", 2, {}),
    ]
    assert summary.host_counts == {
        "busy": 2,
        "idle": 2,
        "blocked": 1,
        "occupied": 0,
        "quarantined": 0,
        "orphan": 0,
        "changed": 0,
        "unreachable": 1,
        "unchecked": 0,
    }
    assert summary.progress == "running"
    assert [(one.code, one.count) for one in summary.flags] == [("patch-small", 1)]


def test_the_same_state_gives_the_same_summary_byte_for_byte() -> None:
    batch = seed_case()
    assert summary_json(summarize(batch.state, batch.now)) == summary_json(summarize(replay(batch.records), batch.now))
    assert summarize(batch.state).as_of == "2026-11-20T12:21:40Z"


def test_a_running_task_whose_attempt_is_nowhere_is_lost_not_omitted() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    batch.launch(one)
    state = batch.state
    nowhere = BatchState(batch="phase8", opened_at=state.opened_at, tasks=state.tasks, hosts=state.hosts, attempts={})
    summary = summarize(nowhere, batch.now)
    assert summary.total.states[TaskState.LOST] == 1
    assert summary.total.states[TaskState.RUNNING] == 0
    assert summary.failures[0].failure == "lost"
    assert summary.failures[0].fix == "fleet why a/gpt/run1 --batch phase8"


def test_median_and_p95_are_those_of_the_textbook() -> None:
    assert spread([None, 3.0, 1.0, 2.0]).model_dump() == {
        "n": 3,
        "total": 6.0,
        "min": 1.0,
        "median": 2.0,
        "p95": 2.9,
        "max": 3.0,
    }
    assert percentile_95([float(n) for n in range(1, 101)]) == pytest.approx(95.05)
    assert percentile_95([7.0]) == 7.0
    data = sorted([15.0, 20.0, 35.0, 40.0, 50.0])
    assert percentile_95(data) == pytest.approx(48.0)
    assert percentile_95(data) == pytest.approx(statistics.quantiles(data, n=100, method="inclusive")[94])


def test_what_cannot_be_true_is_not_counted() -> None:
    assert spread([math.nan, math.inf, -1.0, 1e300]).n == 0
    assert known_sum([math.nan, 0.25, None, 0.5]).model_dump() == {"value": 0.75, "known": 2, "of": 4}


def test_what_nobody_reported_is_none_and_what_was_zero_is_zero() -> None:
    assert known_sum([None, None]).model_dump() == {"value": None, "known": 0, "of": 2}
    assert known_sum([0.0]).value == 0.0
    one = task("a")
    batch = Batch([one]).ready().run(one, facts=Facts())
    total = summarize(batch.state).total
    assert (total.cost_usd.value, total.tokens.value, total.patch_bytes.median, total.tests.f2p_total) == (None,) * 4
    assert total.resolved_rate is None
    assert total.fate.resolved_unknown == 1
    assert total.funnel[-2].out == {"not-known": 1}


def test_the_models_failures_are_apart_from_those_of_the_machinery() -> None:
    tasks = [task(name) for name in "abcde"]
    batch = Batch(tasks).ready()
    batch.run(tasks[0], facts=GOOD_FACTS.model_copy(update={"resolved": False}))
    batch.run(tasks[1], "eval1", Outcome.REJECTED, reject("patch-missing"), cause=Cause.MODEL)
    batch.run(tasks[2], "eval1", Outcome.REJECTED, reject("environment-broken"), cause=Cause.ENVIRONMENT)
    batch.run(tasks[3], "eval1", Outcome.REJECTED, reject("eval-missing"))
    batch.observe(batch.launch(tasks[4]), AttemptState.LOST, reason="reboot")
    fate = summarize(batch.state).total.fate
    assert (fate.unresolved, fate.model_rejected, fate.infrastructure, fate.unclear) == (1, 1, 2, 1)


def test_failures_of_one_cause_are_one_group_with_a_command_that_can_be_typed() -> None:
    tasks = [task(name, "gpt", "eval1", "eval2") for name in "abc"]
    batch = Batch(tasks, ("eval1", "eval2")).ready()
    zero = reject("no-tests-executed", "zero tests", "rebuild the image")
    for one, host in zip(tasks, ("eval1", "eval2", "eval1"), strict=True):
        batch.run(one, host, Outcome.REJECTED, zero, cause=Cause.ENVIRONMENT)
    (group,) = summarize(batch.state).failures
    assert (group.count, group.hosts, group.code) == (3, ("eval1", "eval2"), "no-tests-executed")
    assert (group.fix, group.advice) == ("fleet check eval1 eval2", "rebuild the image")
    assert group.tasks == ("a/gpt/run1", "b/gpt/run1", "c/gpt/run1")


def test_several_retryable_failures_are_retried_by_class_and_one_by_its_name() -> None:
    tasks = [task("a"), task("b")]
    batch = Batch(tasks).ready()
    batch.observe(batch.launch(tasks[0]), AttemptState.LOST, reason="reboot")
    assert summarize(batch.state).failures[0].fix == "fleet retry a/gpt/run1 --batch phase8"
    batch.observe(batch.launch(tasks[1]), AttemptState.LOST, reason="reboot")
    assert summarize(batch.state).failures[0].fix == "fleet retry --class lost-reboot --batch phase8"


def test_a_blocked_host_gives_its_check_and_the_checks_advice() -> None:
    one = task("a")
    batch = Batch([one]).blocked("eval1", "disk", "disk is 93 % full", "docker system prune")
    summary = summarize(batch.state, batch.now)
    (group,) = summary.failures
    assert (group.failure, group.code, group.advice) == ("host-not-ready", "disk", "docker system prune")
    assert group.fix == summary.next.command == "fleet check eval1"
    assert summary.hosts[0].status == "blocked"
    assert "disk is 93 % full" in summary.hosts[0].reason


def test_a_host_out_of_reach_keeps_its_running_eval_and_says_since_when() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    batch.launch(one)
    since = iso(batch.at(300).now)
    batch.link("eval1", Link.UNREACHABLE).at(900)
    summary = summarize(batch.state, batch.now)
    (host,) = summary.hosts
    assert (host.status, host.task, host.since) == ("unreachable", "a/gpt/run1", since.replace(".000", ""))
    assert host.elapsed_s == pytest.approx(900, abs=1)
    assert summary.total.states[TaskState.RUNNING] == 1


def test_the_verdict_and_the_cost_of_an_earlier_attempt_are_kept_when_the_journal_gives_them() -> None:
    one = task("a")
    batch = Batch([one]).ready().run(one, "eval1", Outcome.REJECTED, reject("eval-missing"), cause=Cause.HARNESS)
    judged = {record.attempt: record for record in batch.records if isinstance(record, ResultJudged)}
    batch.retry(one).run(one, number=2)
    summary = summarize(batch.state, batch.now, judged)
    assert [(row.number, row.current, row.state) for row in summary.results] == [(1, False, "rejected"), (2, True, "accepted")]
    assert summary.total.cost_usd.value == pytest.approx(0.82)
    assert summary.total.duration_s.n == 2
    assert summary.total.assigned == 1


def test_the_eta_is_the_longest_queue_at_the_median() -> None:
    tasks = [task(f"t{n}", "gpt", "eval1") for n in range(4)] + [task("p1", "gpt", *HOSTS), task("p2", "gpt", *HOSTS)]
    batch = Batch(tasks, HOSTS).ready()
    assert summarize(batch.state, batch.now).pace.eta_s is None
    batch.run(tasks[0], elapsed_s=600)
    batch.launch(tasks[1])
    batch.clock += 200
    pace = summarize(batch.state, batch.now).pace
    assert pace.eta_s == pytest.approx(400 + 2 * 600, abs=2)
    assert pace.evals_per_hour == pytest.approx(4.5, abs=0.1)
    batch.at(batch.clock + 4000)
    assert summarize(batch.state, batch.now).pace.evals_per_hour is None


def test_a_hosts_wrong_clock_does_not_bend_the_running_time() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    batch.add(AttemptIntended(task=one.label, host="eval1", attempt="A", number=1))
    later = iso(batch.now + timedelta(days=400))
    batch.add(AttemptStarted(attempt="A", epoch=1, boot_id="b", started_at=later)).at(60)
    assert summarize(batch.state, batch.now).hosts[0].elapsed_s == pytest.approx(60, abs=1)


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert wilson(0, 0) is None
    low, high = wilson(5, 10) or (0, 0)
    assert (low, high) == (pytest.approx(0.2366, abs=1e-4), pytest.approx(0.7634, abs=1e-4))
    assert wilson(0, 10) == (0.0, pytest.approx(0.2775, abs=1e-4))


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("/data/phase8.json", "fleet dispatch /data/phase8.json"),
        ("/data/my tasks/phase8.json", "fleet dispatch '/data/my tasks/phase8.json'"),
        ("/data/friday.json", "fleet dispatch /data/friday.json --batch phase8"),
    ],
)
def test_a_stopped_batch_is_resumed_with_the_file_that_it_came_from(file: str, command: str) -> None:
    batch = Batch([task("a")]).ready()
    opened = batch.records[0]
    assert isinstance(opened, BatchOpened)
    batch.records[0] = opened.model_copy(update={"assignment_file": file})
    assert summarize(batch.leave("detached").state).next.command == command


def cancelled_batch(*others: Task) -> Batch:
    """Return a batch of others, one task that was cancelled while it ran, and one before it started."""
    ran, waited = task("ran"), task("waited")
    batch = Batch([*others, ran, waited]).ready()
    attempt = batch.launch(ran)
    batch.add(CancelOrdered(task=ran.label, attempt=attempt)).add(CancelOrdered(task=waited.label, attempt=None))
    batch.observe(attempt, AttemptState.FINISHED, elapsed_s=7.0, rc=143, cancelled=True).collect(attempt)
    return batch.judge(attempt, Outcome.REJECTED, reject("output-missing"), cause=Cause.HARNESS, facts=Facts())


def test_what_the_operator_cancelled_is_nobodys_failure() -> None:
    good = task("good")
    batch = cancelled_batch(good).run(good, elapsed_s=600).leave()
    summary = summarize(batch.state)
    (group,) = summary.failures
    assert (group.failure, group.blame, group.cause, group.code, group.count) == ("cancelled", Blame.OPERATOR, None, "", 2)
    assert group.line == "cancelled by the operator"
    fate = summary.total.fate
    assert (fate.cancelled, fate.infrastructure, fate.unclear, fate.resolved) == (2, 0, 0, 1)
    assert {row.task: row.cause for row in summary.results}["ran/gpt/run1"] is None
    assert (summary.total.duration_s.n, summary.total.duration_s.max) == (1, 600.0)
    assert summary.next.command == "fleet retry --class cancelled --batch phase8"
    assert summary.next.why.startswith("1 task ended with a result, 2 tasks cancelled")
    assert "every task has its result" not in summarize(cancelled_batch().leave().state).next.why


def test_a_cancelled_task_does_not_hide_a_failed_one() -> None:
    bad = task("bad")
    batch = cancelled_batch(bad).run(bad, "eval1", Outcome.REJECTED, reject("eval-missing"), cause=Cause.HARNESS).leave()
    summary = summarize(batch.state)
    assert [group.failure for group in summary.failures] == ["harness", "cancelled"]
    assert summary.next.command == "fleet logs bad/gpt/run1 --batch phase8"


def test_a_finished_batch_says_what_comes_next() -> None:
    one = task("a")
    clean = Batch([one]).ready().run(one).leave()
    assert summarize(clean.state).progress == "done"
    assert summarize(clean.state).next.command == "fleet validate collected/phase8"
    stopped = Batch([one, task("b")]).ready().run(one).leave("detached")
    assert summarize(stopped.state).next.command == "fleet dispatch FILE --batch phase8"
    assert json.loads(summary_json(summarize(clean.state)))["schema"] == "fleet.summary/1"


def test_a_host_in_any_state_is_shown() -> None:
    batch = Batch([task("one"), task("two")])
    batch.launch(batch.tasks[0])
    batch.observe("one_gpt_run1#1", AttemptState.HELD, reason="left over: container c1")
    host = batch.state.hosts["eval1"]
    assert [status_of(replace(host, state=state)) for state in HostState].count("unchecked") == 1
    summary = summarize(batch.state)
    assert (summary.hosts[0].status, summary.failures[0].failure) == ("blocked", "held")
