"""What a batch came to, as an exit code: bits that add up over its tasks."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.dispatch.state.views import BatchState, TaskView
from fleet.model.exitcodes import Exit
from fleet.model.failures import FailureClass
from fleet.model.states import NOT_PROVEN, ON_HOST, SUCCESS, TaskState

_BLOCKED = {
    FailureClass.HOST_NOT_READY: Exit.FAILED,
    FailureClass.HOST_BUSY: Exit.OWNED,
    FailureClass.HELD: Exit.INCOMPLETE,
    FailureClass.HOST_IDENTITY: Exit.SAFETY,
    FailureClass.HOST_CHANGED: Exit.SAFETY,
    FailureClass.HOST_QUARANTINED: Exit.FAILED,
    FailureClass.UNREACHABLE: Exit.INCOMPLETE,
}
_UNSAFE = (FailureClass.HOST_IDENTITY, FailureClass.TRANSFER_TAMPERED)


def exit_code(state: BatchState, labels: Iterable[str] | None = None) -> Exit:
    """Return the exit code for the named tasks, or for all."""
    code = Exit.OK
    for label in state.tasks if labels is None else labels:
        view = state.tasks[label]
        code |= _of_task(view)
        if view.state in ON_HOST and view.attempt is not None:
            host = state.hosts.get(state.attempts[view.attempt].host)
            if host is not None and host.link in NOT_PROVEN:
                code |= Exit.SAFETY
    return code | Exit.HALTED if state.halted else code


def _of_task(view: TaskView) -> Exit:
    if view.state in SUCCESS:
        return Exit.OK
    if view.state in (TaskState.REJECTED, TaskState.CANCELLED):
        return Exit.FAILED
    if view.state is TaskState.FAILED:
        return Exit.SAFETY if view.failure in _UNSAFE else Exit.FAILED
    if view.state is TaskState.BLOCKED and view.failure is not None:
        return _BLOCKED.get(view.failure, Exit.FAILED)
    return Exit.INCOMPLETE
