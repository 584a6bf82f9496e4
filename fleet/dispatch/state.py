"""The state of a batch, rebuilt from its journal by a pure reduction.

    state = apply(state, record)        one fact at a time, while a controller runs
    state = replay(records)             all of them, when one starts or a dashboard looks

Both go through the same `_Draft.reduce`, so what an operator sees after a crash is what the controller saw before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fleet.dispatch.endings import judged_view
from fleet.dispatch.views import AttemptView, BatchState, HostView, TaskView
from fleet.dispatch.waiting import WAITING, settle, unfit_state, with_shared_hosts
from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.records import (
    AnyRecord,
    AttemptAcked,
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
from fleet.model.states import ON_HOST, RETRYABLE, SUCCESS, TERMINAL, AttemptState, HostState, Link, TaskState

__all__ = ["AttemptView", "BatchState", "HostView", "TaskView", "apply", "replay"]

MAX_COLLECT_FAILURES = 3


def apply(state: BatchState, *records: AnyRecord) -> BatchState:
    """Return the state after `records`."""
    draft = _Draft(state)
    for record in records:
        draft.reduce(record)
    return draft.freeze()


def replay(records: Iterable[AnyRecord]) -> BatchState:
    """Return the state that `records` add up to."""
    return apply(BatchState(), *records)


class _Draft:
    """A mutable copy of a state while records are reduced into it."""

    def __init__(self, state: BatchState) -> None:
        self._fields: dict[str, Any] = {
            name: getattr(state, name)
            for name in ("batch", "assignment_sha256", "assignment_file", "controller", "halted", "opened_at", "last_record_at")
        }
        self.tasks = dict(state.tasks)
        self.hosts = dict(state.hosts)
        self.attempts = dict(state.attempts)

    def freeze(self) -> BatchState:
        return BatchState(**self._fields, tasks=self.tasks, hosts=self.hosts, attempts=self.attempts)

    def reduce(self, record: AnyRecord) -> None:
        if record.t:
            self._fields["last_record_at"] = record.t
        _REDUCERS[type(record)](self, record)

    # --- batch ---

    def batch_opened(self, record: BatchOpened) -> None:
        self._fields.update(
            batch=record.batch,
            assignment_sha256=record.assignment_sha256,
            assignment_file=record.assignment_file,
            controller=record.controller,
            halted=None,
        )
        self._fields["opened_at"] = self._fields["opened_at"] or record.t
        for task in with_shared_hosts(record.tasks):
            known = self.tasks.get(task.label)
            self.tasks[task.label] = TaskView(task) if known is None else replace(known, task=task)
        for name, pipeline in record.hosts.items():
            known_host = self.hosts.get(name, HostView(name, pipeline))
            # A new controller trusts no earlier check: the host may have been repaired or broken since.
            self.hosts[name] = replace(known_host, pipeline=pipeline, state=HostState.UNCHECKED, reason="")
        self._settle_waiting()

    def halted(self, record: BatchHalted) -> None:
        self._fields["halted"] = record.reason

    def left(self, _record: ControllerLeft) -> None:
        self._fields["controller"] = None

    # --- hosts ---

    def host_checked(self, record: HostChecked) -> None:
        report = record.report
        host = self.hosts.get(report.host)
        if host is None:
            return
        state = HostState.READY if report.ready else unfit_state(report)
        since = host.link_since if host.link is report.link else record.t
        reason = "; ".join(report.problems)
        self.hosts[host.name] = replace(
            host, report=report, link=report.link, link_since=since, state=state, reason=reason, trouble=""
        )
        self._refuse_another_machine(host, report)
        self._settle_waiting()

    def _refuse_another_machine(self, before: HostView, report: HostReport) -> None:
        """Block a host behind whose name another machine answers: what is known of its attempts is not true of it."""
        if before.host_uid and report.host_uid and before.host_uid != report.host_uid:
            reason = "another machine answers under this name (its fleet host id changed)"
            self.hosts[before.name] = replace(
                self.hosts[before.name], link=Link.KEY_CHANGED, state=HostState.BLOCKED, reason=reason
            )
        elif report.host_uid:
            self.hosts[before.name] = replace(self.hosts[before.name], host_uid=report.host_uid)

    def link_changed(self, record: LinkChanged) -> None:
        host = self.hosts.get(record.host)
        if host is None:
            return
        since = host.link_since if host.link is record.link else record.t
        self.hosts[host.name] = replace(host, link=record.link, link_since=since, trouble=record.error)

    def _settle_waiting(self) -> None:
        settle(self.tasks, self.hosts)

    # --- attempts ---

    def intended(self, record: AttemptIntended) -> None:
        self.attempts[record.attempt] = AttemptView(
            record.attempt, record.task, record.host, record.number, intended_at=record.t
        )
        view = self.tasks[record.task]
        if view.state in ON_HOST | SUCCESS:
            # Two commands meant the same task: the first in the journal has it, for every reader.
            return
        self.tasks[record.task] = replace(
            view,
            state=TaskState.LAUNCHING,
            host=record.host,
            attempt=record.attempt,
            attempts=(*view.attempts, record.attempt),
            failure=None,
            reason="",
        )
        self._set_host(record.host, attempt=record.attempt)

    def started(self, record: AttemptStarted) -> None:
        attempt = self._set_attempt(
            record.attempt,
            state=AttemptState.RUNNING,
            epoch=record.epoch,
            boot_id=record.boot_id,
            started_at=record.started_at or record.t,
        )
        if attempt is not None:
            self._move(attempt, TaskState.RUNNING)

    def refused(self, record: AttemptRefused) -> None:
        attempt = self._set_attempt(record.attempt, refused=record.code)
        if attempt is None:
            return
        view = self.tasks[attempt.task]
        self._set_host(attempt.host, attempt=None, only_if=attempt.attempt)
        remaining = tuple(one for one in view.attempts if one != attempt.attempt)
        if view.attempt != attempt.attempt:
            self.tasks[attempt.task] = replace(view, attempts=remaining)
            return
        view = replace(view, attempt=remaining[-1] if remaining else None, attempts=remaining)
        if attempt.cancel_ordered:
            reason = "cancelled before it started"
            self.tasks[attempt.task] = replace(view, state=TaskState.CANCELLED, failure=FailureClass.CANCELLED, reason=reason)
        elif record.failure in _REFUSING:
            self.tasks[attempt.task] = replace(view, state=TaskState.PENDING, host=None)
            self._set_host(attempt.host, state=_REFUSING[record.failure], reason=record.reason)
            self._settle_waiting()
        elif record.failure is FailureClass.CANCELLED:
            self.tasks[attempt.task] = replace(view, state=TaskState.CANCELLED, failure=record.failure, reason=record.reason)
        else:
            self.tasks[attempt.task] = replace(view, state=TaskState.FAILED, failure=record.failure, reason=record.reason)

    def adopted(self, record: AttemptAdopted) -> None:
        intended = self.attempts.get(record.intended)
        if intended is None:
            return
        known = self.attempts.get(record.attempt)
        if known is not None and known is not intended and (known.task, known.host) != (intended.task, intended.host):
            # A host may not take over, by naming it, what is under way or has ended elsewhere.
            reason = f"{intended.host} claims attempt {record.attempt}, which is {known.task} on {known.host}"
            refusal = {"code": "conflict", "reason": reason, "failure": FailureClass.HOST_IDENTITY}
            self.refused(AttemptRefused.model_validate({"attempt": record.intended, **refusal}))
            return
        del self.attempts[record.intended]
        self.attempts[record.attempt] = replace(
            intended,
            attempt=record.attempt,
            epoch=record.epoch,
            boot_id=record.boot_id,
            followed=True,
            state=AttemptState.RUNNING,
            started_at=record.t,
        )
        view = self.tasks[intended.task]
        kept = tuple(one for one in view.attempts if one not in (record.intended, record.attempt))
        self.tasks[intended.task] = replace(
            view, state=TaskState.RUNNING, attempt=record.attempt, attempts=(*kept, record.attempt)
        )
        self._set_host(intended.host, attempt=record.attempt)

    def observed(self, record: AttemptObserved) -> None:
        known = self.attempts.get(record.attempt)
        if known is None:
            return
        ended = record.state in (AttemptState.FINISHED, AttemptState.LOST, AttemptState.HELD)
        attempt = self._set_attempt(
            record.attempt,
            state=record.state,
            rc=record.rc,
            timed_out=record.timed_out,
            cancelled=record.cancelled,
            elapsed_s=record.elapsed_s if record.elapsed_s is not None else known.elapsed_s,
            finished_at=record.t if ended and not known.finished_at else known.finished_at,
            phase=record.phase or known.phase,
        )
        assert attempt is not None
        if record.state is AttemptState.FINISHED:
            self._release(attempt)
            self._move(attempt, TaskState.FINISHED)
        elif record.state is AttemptState.LOST:
            reboot = "reboot" in record.reason
            self._end(
                attempt,
                TaskState.LOST,
                FailureClass.LOST_REBOOT if reboot else FailureClass.LOST_KILLED,
                record.reason,
            )
            self._set_host(attempt.host, state=HostState.UNCHECKED)
        elif record.state is AttemptState.HELD:
            self._end(attempt, TaskState.HELD, FailureClass.HELD, record.reason)
            self._set_host(attempt.host, state=HostState.HELD, reason=record.reason)
            self._settle_waiting()
        elif record.state is AttemptState.ACCEPTED:
            self._move(attempt, TaskState.LAUNCHING)
        elif record.state is not AttemptState.UNKNOWN:
            self._move(attempt, TaskState.RUNNING)

    def collected(self, record: ResultCollected) -> None:
        attempt = self._set_attempt(record.attempt, path=record.path)
        if attempt is None:
            return
        view = self.tasks[attempt.task]
        if view.failure is FailureClass.COLLECT_FAILED and view.attempt == attempt.attempt:
            # Giving up on a transfer is not the attempt's end: a later `fleet collect` brought it after all.
            self.tasks[attempt.task] = replace(view, state=TaskState.FINISHED, failure=None, reason="")
        self._move(attempt, TaskState.COLLECTED, path=record.path)

    def collect_failed(self, record: CollectFailed) -> None:
        known = self.attempts.get(record.attempt)
        if known is None:
            return
        attempt = self._set_attempt(record.attempt, collect_failures=known.collect_failures + 1)
        assert attempt is not None
        if attempt.collect_failures >= MAX_COLLECT_FAILURES:
            self._end(attempt, TaskState.FAILED, record.failure, record.reason)
        else:
            self._move(attempt, TaskState.FINISHED, reason=record.reason)

    def judged(self, record: ResultJudged) -> None:
        attempt = self.attempts.get(record.attempt)
        if attempt is None:
            return
        view = self.tasks[attempt.task]
        if view.attempt != attempt.attempt:
            return
        verdict: dict[str, Any] = {
            "verdict": record.verdict,
            "cause": record.cause,
            "reasons": record.reasons,
            "facts": record.facts,
        }
        self._set_host(attempt.host, attempt=None, only_if=attempt.attempt)
        if view.state in TERMINAL:
            # A salvaged result of a lost attempt: shown, but the attempt stays lost.
            self.tasks[attempt.task] = replace(view, **verdict)
            return
        self.tasks[attempt.task] = judged_view(replace(view, **verdict), record.verdict, attempt)

    def acked(self, record: AttemptAcked) -> None:
        self._set_attempt(record.attempt, acked=True)

    # --- orders ---

    def cancel_ordered(self, record: CancelOrdered) -> None:
        view = self.tasks.get(record.task)
        if view is None:
            return
        if view.state in WAITING:
            self.tasks[record.task] = replace(
                view, state=TaskState.CANCELLED, failure=FailureClass.CANCELLED, reason="cancelled before it started"
            )
        elif record.attempt:
            self._set_attempt(record.attempt, cancel_ordered=True)

    def retry_ordered(self, record: RetryOrdered) -> None:
        view = self.tasks.get(record.task)
        if view is None or view.state not in RETRYABLE:
            return
        self.tasks[record.task] = TaskView(view.task, attempts=view.attempts, ordered_again=True)
        self._settle_waiting()

    # --- helpers ---

    def _set_attempt(self, attempt: str, **changes: Any) -> AttemptView | None:
        known = self.attempts.get(attempt)
        if known is None:
            return None
        self.attempts[attempt] = replace(known, **changes)
        return self.attempts[attempt]

    def _set_host(self, name: str, *, only_if: str | None = None, **changes: Any) -> None:
        host = self.hosts.get(name)
        if host is not None and (only_if is None or host.attempt == only_if):
            self.hosts[name] = replace(host, **changes)

    def _move(self, attempt: AttemptView, state: TaskState, **changes: Any) -> None:
        """Move the attempt's task, unless it has ended or has gone on to another attempt."""
        view = self.tasks[attempt.task]
        if view.attempt == attempt.attempt and view.state not in TERMINAL:
            self.tasks[attempt.task] = replace(view, state=state, **changes)

    def _release(self, attempt: AttemptView) -> None:
        """Move a held task on, and have its host looked at again: nothing is left of the attempt any more."""
        view = self.tasks[attempt.task]
        if view.state is not TaskState.HELD or view.attempt != attempt.attempt:
            return
        view = replace(view, state=TaskState.FINISHED, failure=None, reason="", path=attempt.path)
        self.tasks[attempt.task] = view if view.verdict is None else judged_view(view, view.verdict, attempt)
        self._set_host(attempt.host, state=HostState.UNCHECKED, reason="")
        self._settle_waiting()

    def _end(self, attempt: AttemptView, state: TaskState, failure: FailureClass, reason: str) -> None:
        self._move(attempt, state, failure=failure, reason=reason)
        self._set_host(attempt.host, attempt=None, only_if=attempt.attempt)


_REFUSING = {
    FailureClass.HOST_NOT_READY: HostState.BLOCKED,
    FailureClass.HOST_BUSY: HostState.BUSY,
    FailureClass.HELD: HostState.HELD,
}
"""Refusals that say something of the host and nothing of the task."""


_REDUCERS: dict[type[Any], Callable[[_Draft, Any], None]] = {
    BatchOpened: _Draft.batch_opened,
    BatchHalted: _Draft.halted,
    ControllerLeft: _Draft.left,
    HostChecked: _Draft.host_checked,
    LinkChanged: _Draft.link_changed,
    AttemptIntended: _Draft.intended,
    AttemptStarted: _Draft.started,
    AttemptRefused: _Draft.refused,
    AttemptAdopted: _Draft.adopted,
    AttemptObserved: _Draft.observed,
    ResultCollected: _Draft.collected,
    CollectFailed: _Draft.collect_failed,
    ResultJudged: _Draft.judged,
    AttemptAcked: _Draft.acked,
    CancelOrdered: _Draft.cancel_ordered,
    RetryOrdered: _Draft.retry_ordered,
}
