"""Whose fault bad ends are: the host's, when tasks in a row end badly there, or the task's, when it ends so on two hosts."""

from __future__ import annotations

from fleet.dispatch.state.views import AttemptView, BatchState, HostView, TaskView

HOSTS_THAT_CLEAR = 2
"""A task that ended badly on so many hosts is itself at fault."""


def bad_ends(state: BatchState, view: TaskView) -> tuple[AttemptView, ...]:
    """Return the task's attempts that ended badly with the host possibly at fault, oldest first."""
    known = (state.attempts.get(one) for one in view.attempts)
    return tuple(attempt for attempt in known if attempt is not None and attempt.suspected is not None)


def is_tasks_fault(state: BatchState, view: TaskView) -> bool:
    """Tell whether the task ended so on two different hosts: then it counts against neither."""
    return len({attempt.host for attempt in bad_ends(state, view)}) >= HOSTS_THAT_CLEAR


def row_of(state: BatchState, host: HostView) -> tuple[AttemptView, ...]:
    """Return what counts against a host: the last bad end of each task in its row, those that are the task's fault left out."""
    last = {state.attempts[one].task: state.attempts[one] for one in host.row if one in state.attempts}
    return tuple(attempt for task, attempt in last.items() if not is_tasks_fault(state, state.tasks[task]))


def said_of(attempt: AttemptView, limit: int = 120) -> str:
    """Return one link of a causal chain: `TASK: CLASS: what was said`."""
    text = " ".join(attempt.ended_with.split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"{attempt.task}: {attempt.suspected}" + (f": {text}" if text else "")
