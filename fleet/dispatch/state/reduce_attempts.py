"""What records about attempts do to a state, from the intent to the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet.dispatch.state.draft import Draft
from fleet.dispatch.state.endings import judged_view
from fleet.dispatch.state.views import AttemptView, TaskView
from fleet.model.failures import NOT_BROUGHT, FailureClass
from fleet.model.records import (
    AttemptAcked,
    AttemptAdopted,
    AttemptIntended,
    AttemptMoving,
    AttemptObserved,
    AttemptRefused,
    AttemptStalled,
    AttemptStarted,
    CollectFailed,
    ResultCollected,
    ResultJudged,
)
from fleet.model.states import ON_HOST, SUCCESS, TERMINAL, AttemptState, HostState, TaskState
from fleet.model.verdict import Outcome

MAX_COLLECT_FAILURES = 3
_REFUSING = {
    FailureClass.HOST_NOT_READY: HostState.BLOCKED,
    FailureClass.HOST_BUSY: HostState.BUSY,
    FailureClass.HELD: HostState.HELD,
}
"""Refusals that say something of the host and nothing of the task."""


def intended(draft: Draft, record: AttemptIntended) -> None:
    view = draft.tasks[record.task]
    # Two commands meant the same task: the first in the journal has it, for every reader.
    forestalled = view.state in ON_HOST | SUCCESS
    draft.attempts[record.attempt] = AttemptView(
        record.attempt,
        record.task,
        record.host,
        record.number,
        intended_at=record.t,
        refused="forestalled" if forestalled else "",
        # Cancelled in the moment in which it was begun; its writer may have died before it could take the intent back.
        cancel_ordered=view.state is TaskState.CANCELLED,
    )
    if forestalled:
        return
    draft.tasks[record.task] = replace(
        view,
        state=TaskState.LAUNCHING,
        host=record.host,
        attempt=record.attempt,
        attempts=(*view.attempts, record.attempt),
        failure=None,
        reason="",
    )
    draft.occupy(record.host, record.attempt)


def started(draft: Draft, record: AttemptStarted) -> None:
    attempt = draft.set_attempt(
        record.attempt,
        state=AttemptState.RUNNING,
        epoch=record.epoch,
        boot_id=record.boot_id,
        started_at=record.started_at or record.t,
    )
    if attempt is not None:
        draft.move(attempt, TaskState.RUNNING)


def refused(draft: Draft, record: AttemptRefused) -> None:
    attempt = draft.set_attempt(record.attempt, refused=record.code)
    if attempt is None:
        return
    view = draft.tasks[attempt.task]
    draft.leave(attempt)
    remaining = tuple(one for one in view.attempts if one != attempt.attempt)
    if view.attempt != attempt.attempt:
        draft.tasks[attempt.task] = replace(view, attempts=remaining)
        return
    view = replace(view, attempt=remaining[-1] if remaining else None, attempts=remaining)
    if attempt.cancel_ordered:
        reason = "cancelled before it started"
        draft.tasks[attempt.task] = replace(view, state=TaskState.CANCELLED, failure=FailureClass.CANCELLED, reason=reason)
    elif record.failure in _REFUSING:
        draft.tasks[attempt.task] = replace(view, state=TaskState.PENDING, host=None)
        draft.set_host(attempt.host, state=_REFUSING[record.failure], reason=record.reason)
        draft.settle_waiting()
    elif record.failure is FailureClass.CANCELLED:
        draft.tasks[attempt.task] = replace(view, state=TaskState.CANCELLED, failure=record.failure, reason=record.reason)
    else:
        draft.tasks[attempt.task] = replace(view, state=TaskState.FAILED, failure=record.failure, reason=record.reason)


def adopted(draft: Draft, record: AttemptAdopted) -> None:
    intended = draft.attempts.get(record.intended)
    if intended is None:
        return
    known = draft.attempts.get(record.attempt)
    if known is not None and known is not intended and (known.task, known.host) != (intended.task, intended.host):
        # A host may not take over, by naming it, what is under way or has ended elsewhere.
        reason = f"{intended.host} claims attempt {record.attempt}, which is {known.task} on {known.host}"
        refusal = {"code": "conflict", "reason": reason, "failure": FailureClass.HOST_IDENTITY}
        refused(draft, AttemptRefused.model_validate({"attempt": record.intended, **refusal}))
        return
    del draft.attempts[record.intended]
    draft.attempts[record.attempt] = replace(
        intended,
        attempt=record.attempt,
        epoch=record.epoch,
        boot_id=record.boot_id,
        followed=True,
        state=AttemptState.RUNNING,
        started_at=record.t,
    )
    view = draft.tasks[intended.task]
    kept = tuple(one for one in view.attempts if one not in (record.intended, record.attempt))
    draft.tasks[intended.task] = replace(
        view, state=TaskState.RUNNING, attempt=record.attempt, attempts=(*kept, record.attempt)
    )
    draft.set_host(intended.host, attempt=record.attempt)


def observed(draft: Draft, record: AttemptObserved) -> None:
    known = draft.attempts.get(record.attempt)
    if known is None:
        return
    ended = record.state in (AttemptState.FINISHED, AttemptState.LOST, AttemptState.HELD)
    attempt = draft.set_attempt(
        record.attempt,
        state=record.state,
        rc=record.rc,
        timed_out=record.timed_out,
        cancelled=record.cancelled,
        elapsed_s=record.elapsed_s if record.elapsed_s is not None else known.elapsed_s,
        finished_at=record.t if ended and not known.finished_at else known.finished_at,
        stalled_since="" if ended else known.stalled_since,
        phase=record.phase or known.phase,
    )
    assert attempt is not None
    if record.state is AttemptState.FINISHED:
        _given_back(draft, attempt)
        draft.move(attempt, TaskState.FINISHED)
    elif record.state is AttemptState.LOST:
        reboot = "reboot" in record.reason
        draft.end(
            attempt,
            TaskState.LOST,
            FailureClass.LOST_REBOOT if reboot else FailureClass.LOST_KILLED,
            record.reason,
        )
        draft.set_host(attempt.host, state=HostState.UNCHECKED)
    elif record.state is AttemptState.HELD:
        draft.end(attempt, TaskState.HELD, FailureClass.HELD, record.reason)
        draft.set_host(attempt.host, state=HostState.HELD, reason=record.reason)
        draft.settle_waiting()
    elif record.state is AttemptState.ACCEPTED:
        draft.move(attempt, TaskState.LAUNCHING)
    elif record.state is not AttemptState.UNKNOWN:
        draft.move(attempt, TaskState.RUNNING)


def collected(draft: Draft, record: ResultCollected) -> None:
    attempt = draft.set_attempt(record.attempt, path=record.path)
    if attempt is None:
        return
    view = draft.tasks[attempt.task]
    if view.failure in NOT_BROUGHT and view.attempt == attempt.attempt:
        # Giving up on a transfer is not the attempt's end: a later `fleet collect` brought it after all.
        draft.tasks[attempt.task] = replace(view, state=TaskState.FINISHED, failure=None, reason="")
        draft.forget_bad_end(attempt)
    draft.move(attempt, TaskState.COLLECTED, path=record.path)


def collect_failed(draft: Draft, record: CollectFailed) -> None:
    known = draft.attempts.get(record.attempt)
    if known is None:
        return
    attempt = draft.set_attempt(record.attempt, collect_failures=known.collect_failures + 1)
    assert attempt is not None
    if attempt.collect_failures >= MAX_COLLECT_FAILURES:
        draft.end(attempt, TaskState.FAILED, record.failure, record.reason)
    else:
        draft.move(attempt, TaskState.FINISHED, reason=record.reason)


def judged(draft: Draft, record: ResultJudged) -> None:
    attempt = draft.attempts.get(record.attempt)
    if attempt is None:
        return
    view = draft.tasks[attempt.task]
    if view.attempt != attempt.attempt:
        return
    verdict: dict[str, Any] = {
        "verdict": record.verdict,
        "cause": record.cause,
        "reasons": record.reasons,
        "facts": record.facts,
    }
    draft.leave(attempt)
    if view.state in TERMINAL:
        # A salvaged result of a lost attempt: shown, but the attempt stays lost.
        draft.tasks[attempt.task] = replace(view, **verdict)
        return
    _judge(draft, replace(view, **verdict), record.verdict, attempt)


def _given_back(draft: Draft, attempt: AttemptView) -> None:
    """Move a held task on, and have its host looked at again: nothing is left of the attempt any more."""
    view = draft.tasks[attempt.task]
    if view.state is not TaskState.HELD or view.attempt != attempt.attempt:
        return
    draft.forget_bad_end(attempt)
    view = replace(view, state=TaskState.FINISHED, failure=None, reason="", path=attempt.path)
    draft.tasks[attempt.task] = view
    if view.verdict is not None:
        _judge(draft, view, view.verdict, attempt)
    draft.set_host(attempt.host, state=HostState.UNCHECKED, reason="")
    draft.settle_waiting()


def _judge(draft: Draft, view: TaskView, verdict: Outcome, attempt: AttemptView) -> None:
    """Let the verdict decide what becomes of the task, and of the row of bad ends of its host."""
    after = draft.tasks[attempt.task] = judged_view(view, verdict, attempt)
    if after.state in SUCCESS:
        draft.note_good_end(attempt)
    elif after.failure is not None:
        draft.note_bad_end(attempt, after.failure, after.reason, after.cause)


def acked(draft: Draft, record: AttemptAcked) -> None:
    draft.set_attempt(record.attempt, acked=True)


def stalled(draft: Draft, record: AttemptStalled) -> None:
    draft.set_attempt(record.attempt, stalled_since=record.since, stalled_unknown=record.unknown)


def moving(draft: Draft, record: AttemptMoving) -> None:
    draft.set_attempt(record.attempt, stalled_since="")
