"""What becomes of a task when the verdict on its attempt is in."""

from __future__ import annotations

from dataclasses import replace

from fleet.dispatch.state.views import AttemptView, TaskView
from fleet.model.failures import FailureClass
from fleet.model.states import TaskState
from fleet.model.verdict import Cause, Outcome, joined

_CANCELLED_BY = {
    "": "cancelled by the operator",
    "halt": "cancelled because the batch was halted (--halt now)",
    "stall": "cancelled because nothing of it moved (on_stall: cancel)",
}


def judged_view(view: TaskView, verdict: Outcome, attempt: AttemptView) -> TaskView:
    """Return the task of an attempt whose verdict is in."""
    if attempt.cancelled:
        reason = _CANCELLED_BY.get(attempt.cancel_by, _CANCELLED_BY[""])
        return replace(view, state=TaskState.CANCELLED, failure=FailureClass.CANCELLED, reason=reason)
    if verdict is Outcome.REJECTED:
        reason = joined(one.message for one in view.reasons if one.severity == "reject")
        return replace(view, state=TaskState.REJECTED, failure=_rejection(view.cause, attempt), reason=reason)
    return replace(view, state=TaskState(str(verdict)), failure=None, reason="")


def _rejection(cause: Cause | None, attempt: AttemptView) -> FailureClass:
    if attempt.timed_out:
        return FailureClass.TIMEOUT
    by_cause = {
        Cause.ENVIRONMENT: FailureClass.ENVIRONMENT,
        Cause.PROVIDER: FailureClass.PROVIDER,
        Cause.HARNESS: FailureClass.HARNESS,
        Cause.TRANSFER: FailureClass.COLLECT_FAILED,
    }
    return by_cause.get(cause, FailureClass.OUTPUT_REJECTED) if cause else FailureClass.OUTPUT_REJECTED
