"""Which task an operator means: by its label, or by any beginning of it that is unique."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.dispatch.state.views import BatchState, TaskView
from fleet.errors import InputError
from fleet.model.base import nearest
from fleet.model.names import visible

MAX_LISTED = 8


def find_task(state: BatchState, name: str, *, hosts: Iterable[str] = ()) -> TaskView:
    """Return the task named by `INSTANCE[/MODEL[/runN]]` or an attempt id; InputError lists what it could be.

    `hosts` are names that were possible too, and are none that was meant exactly.
    """
    if name in state.tasks:
        return state.tasks[name]
    if name in state.attempts:
        return state.tasks[state.attempts[name].task]
    matches = [label for label in state.tasks if label.startswith(name + "/")]
    if len(matches) == 1:
        return state.tasks[matches[0]]
    shown = visible(name, 120)
    if matches:
        more = " …" if len(matches) > MAX_LISTED else ""
        raise InputError(
            f"{shown} is {len(matches)} tasks of batch {state.batch}: {', '.join(matches[:MAX_LISTED])}{more}",
            hint=f"name one, such as {matches[0]}",
        )
    hosts = tuple(hosts)
    what = "host or task" if hosts else "task"
    near = nearest(name, [*state.tasks, *hosts])
    raise InputError(
        f"no {what} {shown} in batch {state.batch}" + (f", did you mean {near}?" if near else ""),
        hint=f"fleet status {state.batch}",
    )
