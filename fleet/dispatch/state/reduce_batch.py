"""What records about a batch as a whole do to a state, and what orders do."""

from __future__ import annotations

from dataclasses import replace

from fleet.dispatch.state.draft import Draft
from fleet.dispatch.state.views import HostView, TaskView
from fleet.dispatch.state.waiting import WAITING, with_shared_hosts
from fleet.model.failures import FailureClass
from fleet.model.records import (
    BatchHalted,
    BatchOpened,
    CancelOrdered,
    ClockSet,
    ControllerLeft,
    ImagesChecked,
    JournalRecovered,
    RetryOrdered,
)
from fleet.model.states import RETRYABLE, SUCCESS, HostState, TaskState


def batch_opened(draft: Draft, record: BatchOpened) -> None:
    draft.fields.update(
        batch=record.batch,
        assignment_sha256=record.assignment_sha256,
        assignment_file=record.assignment_file,
        controller=record.controller,
        halted=None,
        halted_now=False,
        scope=frozenset([task.label for task in record.tasks] if record.only is None else record.only),
    )
    draft.fields["opened_at"] = draft.fields["opened_at"] or record.t
    for task in with_shared_hosts(record.tasks):
        known = draft.tasks.get(task.label)
        draft.tasks[task.label] = TaskView(task) if known is None else replace(known, task=task)
    for name, pipeline in record.hosts.items():
        known_host = draft.hosts.get(name, HostView(name, pipeline))
        # A new controller trusts no earlier check: the host may have been repaired or broken since.
        draft.hosts[name] = replace(known_host, pipeline=pipeline, state=HostState.UNCHECKED, reason="")
    draft.settle_waiting()


def images_checked(draft: Draft, record: ImagesChecked) -> None:
    draft.fields["archives"] = draft.fields["archives"] | record.archives


def halted(draft: Draft, record: BatchHalted) -> None:
    draft.fields.update(halted=record.reason, halted_now=record.cancel)


def recovered(draft: Draft, record: JournalRecovered) -> None:
    # What was rebuilt stands in the order of its tasks: that times go back there says nothing of the clock.
    draft.fields["clock_set"] = False
    for name, uid in record.host_uids.items():
        draft.set_host(name, host_uid=uid)
    for label, reason in record.held.items():
        view = draft.tasks.get(label)
        if view is None or view.state in SUCCESS:
            continue
        attempt = draft.attempts.get(view.attempt or "")
        begun = view.attempt if attempt is not None and attempt.epoch is not None else None
        uncertain = FailureClass.UNCERTAIN
        draft.tasks[label] = replace(view, state=TaskState.HELD, attempt=begun, failure=uncertain, reason=reason)
        if attempt is not None:
            draft.leave(attempt)


def clock_set(draft: Draft, _record: ClockSet) -> None:
    draft.fields["clock_set"] = True


def left(draft: Draft, _record: ControllerLeft) -> None:
    draft.fields["controller"] = None


def cancel_ordered(draft: Draft, record: CancelOrdered) -> None:
    view = draft.tasks.get(record.task)
    if view is None:
        return
    if view.state in WAITING:
        draft.tasks[record.task] = replace(
            view, state=TaskState.CANCELLED, failure=FailureClass.CANCELLED, reason="cancelled before it started"
        )
    elif record.attempt:
        draft.set_attempt(record.attempt, cancel_ordered=True, cancel_by="" if record.by == "operator" else record.by)


def retry_ordered(draft: Draft, record: RetryOrdered) -> None:
    view = draft.tasks.get(record.task)
    if view is None or view.state not in RETRYABLE:
        return
    if record.after != view.attempt and record.after in view.attempts:
        # Given twice, or read late: what this order asked for has been tried, and has ended too.
        return
    by_policy = view.by_policy
    if record.by == "policy":
        if record.after != view.attempt or record.failure is None:
            # Somebody else's order came first, and what it led to has ended too: the policy is asked again about that.
            return
        by_policy = (*by_policy, record.failure)
    draft.tasks[record.task] = TaskView(view.task, attempts=view.attempts, ordered_again=True, by_policy=by_policy)
    draft.settle_waiting()
