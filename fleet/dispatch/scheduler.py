"""What to do next, decided purely: (state, who is occupied) → actions. No clock, no I/O, no randomness.

Per host, in this order:
    an attempt is or may be there   → launch it again (same id), wait for it, or collect it; never anything else
    a lost attempt has outputs      → salvage them once
    not checked by this controller  → check
    ready, tasks waiting            → begin the next one
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet.dispatch.views import AttemptView, BatchState, HostView, TaskView
from fleet.model.states import ON_HOST, HostState, TaskState


@dataclass(frozen=True)
class Check:
    """Ask the host whether it is ready."""

    host: str


@dataclass(frozen=True)
class Begin:
    """Choose an attempt id for the task and journal it; the launch follows from the new state."""

    host: str
    task: str


@dataclass(frozen=True)
class Launch:
    """Stage and send the launch of a journaled attempt, for the first time or again."""

    host: str
    attempt: str


@dataclass(frozen=True)
class Wait:
    """Follow a running attempt until the host says that it ended."""

    host: str
    attempt: str


@dataclass(frozen=True)
class Collect:
    """Bring an ended attempt's outputs here, judge them, acknowledge."""

    host: str
    attempt: str


Action = Check | Begin | Launch | Wait | Collect

_UNCOLLECTED = frozenset({TaskState.FINISHED, TaskState.COLLECTING, TaskState.COLLECTED})


def decide(
    state: BatchState,
    occupied: frozenset[str],
    due: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
    *,
    collect: bool = True,
) -> tuple[Action, ...]:
    """Return what to start now, at most one action per host.

    `occupied` hosts have an action in flight or are waiting out a back-off; `due` hosts that were not ready may be asked
    again; `only` limits new attempts to these task labels; without `collect`, ended attempts stay on their hosts.
    """
    actions: list[Action] = []
    queues = _Queues(state, only)
    for host in state.hosts.values():
        if host.name in occupied:
            continue
        action = _for_host(state, host, queues, host.name in due, collect)
        if action is not None:
            actions.append(action)
    return tuple(actions)


def _for_host(state: BatchState, host: HostView, queues: _Queues, due: bool, collect: bool) -> Action | None:
    attempt = _open_attempt(state, host)
    if attempt is not None:
        task_state = state.tasks[attempt.task].state
        if task_state is TaskState.LAUNCHING:
            return Launch(host.name, attempt.attempt)
        if task_state is TaskState.RUNNING:
            return Wait(host.name, attempt.attempt)
    ended = queues.ended.get(host.name)
    if ended is not None and collect:
        return Collect(host.name, ended)
    if not queues.wanted(host.name) or state.halted:
        return None
    if host.state is HostState.UNCHECKED or (due and host.state is not HostState.READY):
        return Check(host.name)
    if host.state is HostState.READY:
        task = queues.take(host.name)
        return None if task is None else Begin(host.name, task)
    return None


def _open_attempt(state: BatchState, host: HostView) -> AttemptView | None:
    """Return the attempt that is or may be on the host, whatever the host's own view says."""
    attempt = state.attempts.get(host.attempt or "")
    if attempt is None:
        return None
    task = state.tasks[attempt.task]
    return attempt if task.attempt == attempt.attempt and task.state in ON_HOST else None


class _Queues:
    """Waiting tasks by host, computed once per decision."""

    def __init__(self, state: BatchState, only: frozenset[str] | None) -> None:
        self._pinned: dict[str, list[str]] = {}
        self._shared: list[TaskView] = []
        self._images: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        """Host → the oldest attempt whose outputs are to be brought here: finished, or lost and not yet salvaged."""
        for label, view in state.tasks.items():
            if view.attempt is not None and _uncollected(view, state.attempts[view.attempt]):
                self.ended.setdefault(state.attempts[view.attempt].host, view.attempt)
            if view.host is not None and view.attempt is not None:
                self._images[view.host] = view.task.image
            waiting = view.state in (TaskState.PENDING, TaskState.BLOCKED)
            if not waiting or (only is not None and label not in only):
                continue
            if len(view.task.hosts) == 1:
                self._pinned.setdefault(view.task.hosts[0], []).append(label)
            else:
                self._shared.append(view)

    def wanted(self, host: str) -> bool:
        """Whether any waiting task could run on the host."""
        return bool(self._pinned.get(host)) or any(host in view.task.hosts for view in self._shared)

    def take(self, host: str) -> str | None:
        """Remove and return the host's next task: its own queue first, then a shared one, best with the image it holds."""
        pinned = self._pinned.get(host)
        if pinned:
            return pinned.pop(0)
        fitting = [view for view in self._shared if host in view.task.hosts]
        if not fitting:
            return None
        held = self._images.get(host)
        chosen = next((view for view in fitting if held and view.task.image == held), fitting[0])
        self._shared.remove(chosen)
        return chosen.task.label


def _uncollected(view: TaskView, attempt: AttemptView) -> bool:
    """Tell whether the attempt's outputs are still to be had; those of a lost one are tried for once."""
    if view.state is TaskState.LOST:
        return attempt.path is None and attempt.collect_failures == 0
    return view.state in _UNCOLLECTED


def may_be_running(state: BatchState) -> tuple[AttemptView, ...]:
    """Return the attempts that are, or may be, on a host now."""
    found = (_open_attempt(state, host) for host in state.hosts.values())
    return tuple(attempt for attempt in found if attempt is not None)
