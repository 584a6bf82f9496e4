"""What the live displays show, without a terminal: one lane per host, the changes between two states, the line of totals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from fleet.dashboard.figures import HostStatus
from fleet.dashboard.formats import counted, duration, roughly
from fleet.dashboard.funnel import state_of, states_of
from fleet.dashboard.hosts import elapsed_s, fix_of, host_of, pace_of, phase_of, status_of
from fleet.dashboard.measures import measured, moment
from fleet.dispatch.answers.resume import typed
from fleet.dispatch.state.replay import AttemptView, BatchState, HostView, TaskView
from fleet.model.names import plain
from fleet.model.states import TERMINAL, Link, TaskState
from fleet.model.verdict import Severity

_RANK: dict[HostStatus, int] = {
    "busy": 0,
    "unreachable": 1,
    "changed": 1,
    "orphan": 2,
    "quarantined": 2,
    "blocked": 2,
    "occupied": 3,
    "unchecked": 4,
    "idle": 5,
}
_TROUBLE = frozenset({"unreachable", "changed", "orphan", "quarantined", "blocked", "occupied"})
_FAILED = (TaskState.REJECTED, TaskState.FAILED, TaskState.LOST, TaskState.HELD)
_DONE_AND_QUIET = (TaskState.PENDING, TaskState.COLLECTING, TaskState.COLLECTED)


@dataclass(frozen=True)
class LaneLive:
    """What only the running controller knows of a host: what it does there now, and the eval's last log line."""

    phase: str = ""
    """E.g. `checking`, `staging`, `collecting`; empty = as the journal says."""
    last_line: str = ""
    since: str = ""
    """When the phase began, UTC ISO-8601; empty = when the attempt began."""


@dataclass(frozen=True)
class Lane:
    """One row of the live display."""

    host: str
    status: HostStatus
    phase: str
    task: str
    elapsed_s: float | None
    note: str
    """The last log line, or why the host does nothing."""
    queue: int
    """Tasks that wait for this host alone."""
    stalled: bool = False


def lanes_of(batch: BatchState, live: Mapping[str, LaneLive], now: datetime) -> list[Lane]:
    """Return all lanes: hosts at work first, then those in trouble, then the idle; in inventory order within each."""
    queues: dict[str, int] = {}
    for label, view in batch.tasks.items():
        if view.state in (TaskState.PENDING, TaskState.BLOCKED):
            name = host_of(batch, label)
            queues[name] = queues.get(name, 0) + 1
    lanes = [_lane(batch, host, live.get(host.name), now, queues.get(host.name, 0)) for host in batch.hosts.values()]
    return sorted(lanes, key=lambda lane: 0 if lane.task else _RANK[lane.status])


def _lane(batch: BatchState, host: HostView, live: LaneLive | None, now: datetime, queue: int) -> Lane:
    status = status_of(host)
    attempt = batch.attempts.get(host.attempt) if host.attempt is not None else None
    phase = plain(live.phase, 20) if live is not None and live.phase else ""
    elapsed = elapsed_s(attempt, now) if attempt is not None else None
    since = moment(live.since) if live is not None and phase else None
    if attempt is None and since is not None:
        elapsed = max(0.0, (now - since).total_seconds())
    note = plain(live.last_line, 400) if live is not None else ""
    stalled = attempt is not None and attempt.stalled_since != ""
    if status in ("blocked", "occupied", "quarantined", "orphan"):
        note = plain(host.why_unfit, 400)
    elif status == "changed":
        note = plain(host.trouble or host.reason or "another machine answers under this name", 400)
    elif status == "unreachable":
        note = "no link; the eval goes on" if attempt is not None else plain(host.reason or str(host.link), 400)
    return Lane(
        host=host.name,
        status=status,
        phase="STALLED"
        if stalled and status == "busy"
        else phase or (phase_of(batch, attempt) if attempt is not None else str(status)),
        task=attempt.task if attempt is not None else "",
        elapsed_s=elapsed,
        note=note,
        queue=queue,
        stalled=stalled,
    )


def fit(lanes: list[Lane], room: int) -> tuple[list[Lane], list[Lane]]:
    """Return the lanes to show in `room` rows and the hidden ones.

    Hosts at work come first, but up to a third of the rows is for hosts in trouble: on a large fleet nobody would see them.
    """
    if len(lanes) <= room:
        return lanes, []
    room = max(1, room - 1)
    trouble = [lane for lane in lanes if not lane.task and lane.status in _TROUBLE][: room // 3]
    others = [lane for lane in lanes if lane not in trouble]
    return others[: room - len(trouble)] + trouble, others[room - len(trouble) :]


def rest_line(lanes: list[Lane]) -> str:
    """Return what is said of the lanes that do not fit: `+37 more: 30 idle, 7 unreachable`."""
    counts: dict[str, int] = {}
    for lane in lanes:
        counts[lane.status] = counts.get(lane.status, 0) + 1
    return f"+{len(lanes)} more: " + ", ".join(f"{count} {status}" for status, count in counts.items())


def totals_line(batch: BatchState, now: datetime) -> str:
    """Return the totals as one plain line: `5 of 12 done: 3 accepted, 1 rejected; 2 running, ...; about 14m left`."""
    states = states_of(batch, batch.tasks.values())
    ended = sum(states[state] for state in TERMINAL)
    going = [f"{count} {_SAID.get(state, state)}" for state, count in states.items() if count and state not in TERMINAL]
    done = [f"{count} {state}" for state, count in states.items() if count and state in TERMINAL]
    parts = [f"{ended} of {counted(len(batch.tasks), 'task')} done" + (": " + ", ".join(done) if done else "")]
    if going:
        parts.append(", ".join(going))
    eta = pace_of(batch, now).eta_s
    if eta is not None:
        parts.append(f"{roughly(eta)} left")
    return "; ".join(parts)


_SAID: dict[TaskState, str] = {TaskState.PENDING: "waiting"}


def changes(before: BatchState, after: BatchState) -> Iterator[str]:
    """Yield one plain line for each change that a person wants to read."""
    for name, host in after.hosts.items():
        yield from _host_changes(after, before.hosts.get(name), host)
    for name, attempt in after.attempts.items():
        yield from _stall_changes(after, before.attempts.get(name), attempt)
    for label, view in after.tasks.items():
        old = before.tasks.get(label)
        if old is view:
            continue
        if old is None or (old.state, old.attempt) != (view.state, view.attempt):
            line = _task_line(after, view)
            if line and _followed(old, after, view):
                line += ": an attempt that the host already has, followed and not started again"
            if line:
                yield line
    if after.halted is not None and after.halted != before.halted:
        yield f"halted: {plain(after.halted, 300)}; nothing more is launched"


def _followed(old: TaskView | None, after: BatchState, view: TaskView) -> bool:
    """Tell whether the attempt that was to be launched gave way to one that was on the host."""
    intended = old.attempt if old is not None else None
    return view.state is TaskState.RUNNING and intended not in (None, view.attempt) and intended not in after.attempts


def _stall_changes(batch: BatchState, old: AttemptView | None, attempt: AttemptView) -> Iterator[str]:
    if old is None or old.stalled_since == attempt.stalled_since:
        return
    if attempt.stalled_since:
        look = _next(typed("fleet why TASK", batch, task=attempt.task))
        yield f"{attempt.task} STALLED on {attempt.host}: nothing of it moved since {plain(attempt.stalled_since, 40)}{look}"
    elif batch.tasks[attempt.task].state is TaskState.RUNNING:
        yield f"{attempt.task} moves again on {attempt.host}"


def _host_changes(batch: BatchState, old: HostView | None, host: HostView) -> Iterator[str]:
    status, before = status_of(host), status_of(old) if old is not None else "unchecked"
    if host.link is not Link.OK and (old is None or old.link is not host.link) and host.link is not Link.UNTRIED:
        goes_on = "; its eval goes on" if host.attempt is not None else ""
        yield f"{host.name} {host.link}{goes_on}{_next(fix_of(batch, host))}"
    elif old is not None and host.link is Link.OK and old.link not in (Link.OK, Link.UNTRIED):
        yield f"{host.name} is reachable again"
    if host.quarantine is not None and (old is None or old.quarantine is None):
        yield f"{host.name} {plain(host.why_unfit, 600)}  → fleet release {host.name}"
    elif old is not None and old.quarantine is not None and host.quarantine is None:
        yield f"{host.name} released from quarantine; it is checked before it gets a task"
    if status in ("blocked", "occupied") and status != before:
        yield f"{host.name} {status}: {plain(host.reason, 300)}{_next(fix_of(batch, host))}"


def _task_line(batch: BatchState, view: TaskView) -> str:
    state, label = state_of(batch, view), view.task.label
    where = f" on {view.host}" if view.host is not None else ""
    attempt = batch.attempts.get(view.attempt) if view.attempt is not None else None
    if state in _DONE_AND_QUIET:
        return ""
    if state in (TaskState.ACCEPTED, TaskState.FLAGGED):
        took = measured(attempt.elapsed_s) if attempt is not None else None
        facts = [f"in {duration(took)}"] if took is not None else []
        if view.facts is not None and view.facts.resolved is not None:
            facts.append("resolved" if view.facts.resolved else "not resolved")
        facts.extend(plain(reason.code, 60) for reason in view.reasons if reason.severity is Severity.WARN)
        return f"{label} {state}{where}" + "".join(f", {fact}" for fact in facts)
    if state is TaskState.BLOCKED:
        return f"{label} blocked: {plain(view.reason, 300)}"
    if state in _FAILED:
        why = _next(typed("fleet why TASK", batch, task=label))
        return f"{label} {state}{where}: {plain(view.reason, 300) or 'no reason known'}{why}"
    if state is TaskState.FINISHED and attempt is not None and attempt.rc is not None:
        return f"{label} finished{where}, exit code {attempt.rc}"
    return f"{label} {state}{where}"


def _next(command: str) -> str:
    return f"  → {command}" if command else ""
