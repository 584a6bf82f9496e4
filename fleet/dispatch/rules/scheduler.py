"""What to do next, decided purely: (state, who is occupied) → actions. No clock, no I/O, no randomness.

Per host, in this order:
    in quarantine, and not told so  → tell it, so that no other controller starts anything there
    an attempt is or may be there   → launch it again (same id), wait for it, or collect it; never anything else
    a lost or held one has outputs  → salvage them once
    in quarantine                   → nothing, until a person releases it
    not checked by this controller  → check
    ready, and a task is held       → hear from the host that nothing is left of it
    ready, tasks waiting            → begin the next one
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fleet.dispatch.rules.faults import bad_ends
from fleet.dispatch.state.views import AttemptView, BatchState, HostView, TaskView
from fleet.dispatch.state.waiting import WAITING
from fleet.model.states import ON_HOST, AttemptState, HostState, Link, TaskState


@dataclass(frozen=True)
class Check:
    """Ask the host whether it is ready."""

    host: str


@dataclass(frozen=True)
class Tell:
    """Tell the host that it is in quarantine."""

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


Action = Check | Tell | Begin | Launch | Wait | Collect

_UNCOLLECTED = frozenset({TaskState.FINISHED, TaskState.COLLECTING, TaskState.COLLECTED})


def decide(
    state: BatchState,
    occupied: frozenset[str],
    due: frozenset[str] = frozenset(),
    only: frozenset[str] | None = None,
    *,
    collect: bool = True,
    delayed: frozenset[str] = frozenset(),
) -> tuple[Action, ...]:
    """Return what to start now, at most one action per host.

    `occupied` hosts have an action in flight or are waiting out a back-off; `due` hosts that were not ready may be asked
    again; `only` limits new attempts to these task labels; `delayed` tasks wait out a back-off; without `collect`, ended
    attempts stay on their hosts.
    """
    actions: list[Action] = []
    queues = _Queues(state, only, delayed)
    for host in state.hosts.values():
        if host.name in occupied:
            continue
        action = _for_host(state, host, queues, host.name in due, collect)
        if action is not None:
            actions.append(action)
    return tuple(actions)


def _for_host(state: BatchState, host: HostView, queues: _Queues, due: bool, collect: bool) -> Action | None:
    if host.quarantine is not None and not host.quarantine.told:
        return Tell(host.name)
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
    held = queues.held.get(host.name)
    if host.quarantine is not None or state.halted or (held is None and not queues.wanted(host.name)):
        return None
    if host.state is HostState.UNCHECKED or (due and host.state is not HostState.READY):
        return Check(host.name)
    if host.state is HostState.READY and held is not None:
        return Wait(host.name, held)
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

    def __init__(self, state: BatchState, only: frozenset[str] | None, delayed: frozenset[str]) -> None:
        self._pinned: dict[str, deque[str]] = {}
        self._pools: dict[int, _Pool] = {}
        self._images: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        """Host → the oldest attempt whose outputs are to be brought here: finished, or lost or held and not yet salvaged."""
        self.held: dict[str, str] = {}
        """Host → an ended attempt of which something was left there."""
        for number, (label, view) in enumerate(state.tasks.items()):
            if view.attempt is not None and _uncollected(view, state.attempts[view.attempt]):
                self.ended.setdefault(state.attempts[view.attempt].host, view.attempt)
            if view.state is TaskState.HELD and view.attempt is not None:
                attempt = state.attempts[view.attempt]
                # Whatever else the host says of it later is no end that it could be given back from.
                if attempt.state is AttemptState.HELD:
                    self.held.setdefault(attempt.host, attempt.attempt)
            if view.host is not None and view.attempt is not None:
                self._images[view.host] = view.task.image
            if view.state not in WAITING or label in delayed or (only is not None and label not in only):
                continue
            names = view.task.hosts
            if len(names) == 1:
                self._pinned.setdefault(names[0], deque()).append(label)
            else:
                # Tasks of one place share one tuple: 300 hosts are made a set once, not once per task.
                pool = self._pools.get(id(names)) or self._pools.setdefault(id(names), _Pool(names))
                pool.add(number, label, view.task.image, _to_avoid(state, view))

    def wanted(self, host: str) -> bool:
        """Whether any waiting task could run on the host."""
        return bool(self._pinned.get(host)) or any(pool.first(host) for pool in self._pools.values())

    def take(self, host: str) -> str | None:
        """Remove and return the host's next task: its own queue first, then a shared one, best with the image it holds."""
        pinned = self._pinned.get(host)
        if pinned:
            return pinned.popleft()
        pools = self._pools.values()
        held = self._images.get(host)
        fitting = [found for pool in pools if held and (found := pool.first(host, held))]
        fitting = fitting or [found for pool in pools if (found := pool.first(host))]
        if not fitting:
            return None
        _, label, pool = min(fitting, key=lambda found: found[0])
        pool.taken.add(label)
        return label


class _Pool:
    """Waiting tasks that may run on the same hosts, in file order, and by image."""

    def __init__(self, hosts: tuple[str, ...]) -> None:
        self._hosts = frozenset(hosts)
        self._queues: dict[str | None, deque[tuple[int, str]]] = {}
        self._avoided: dict[str, frozenset[str]] = {}
        self.taken: set[str] = set()

    def add(self, number: int, label: str, image: str, avoided: frozenset[str]) -> None:
        if avoided:
            self._avoided[label] = avoided
        for queue in {None, image or None}:
            self._queues.setdefault(queue, deque()).append((number, label))

    def first(self, host: str, image: str | None = None) -> tuple[int, str, _Pool] | None:
        """Return (place in the file, label, this pool) of the next task for the host, None when there is none."""
        queue = self._queues.get(image)
        if host not in self._hosts or queue is None:
            return None
        while queue and queue[0][1] in self.taken:
            queue.popleft()
        found = next((one for one in queue if one[1] not in self.taken and host not in self._avoided.get(one[1], ())), None)
        return None if found is None else (*found, self)


def _to_avoid(state: BatchState, view: TaskView) -> frozenset[str]:
    """Return the hosts on which a task ended badly, as long as another one that may run it is fit and can be reached."""
    if not view.ordered_again:
        return frozenset()
    bad = frozenset(attempt.host for attempt in bad_ends(state, view))
    others = (state.hosts.get(name) for name in view.task.hosts if name not in bad)
    usable = any(host is not None and host.fit and host.link in (Link.OK, Link.UNTRIED) for host in others)
    return bad if usable else frozenset()


def _uncollected(view: TaskView, attempt: AttemptView) -> bool:
    """Tell whether the attempt's outputs are still to be had; those of a lost or held one are tried for once."""
    if view.state in (TaskState.LOST, TaskState.HELD):
        return attempt.path is None and attempt.collect_failures == 0
    return view.state in _UNCOLLECTED


def may_be_running(state: BatchState) -> tuple[AttemptView, ...]:
    """Return the attempts that are, or may be, on a host now."""
    found = (_open_attempt(state, host) for host in state.hosts.values())
    return tuple(attempt for attempt in found if attempt is not None)
