"""What the hosts do now, how fast the batch goes on and when it will be done."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping
from datetime import datetime, timedelta

from fleet.dashboard.figures import HostNow, HostStatus, Pace
from fleet.dashboard.funnel import state_of
from fleet.dashboard.measures import iso, measured, moment
from fleet.dispatch.answers.resume import typed
from fleet.dispatch.state.replay import AttemptView, BatchState, HostView
from fleet.model.findings import Mark
from fleet.model.names import plain
from fleet.model.states import TERMINAL, AttemptState, HostState, Link, TaskState

MAX_REASON = 300
_FIX_OF_LINK = {Link.KEY_CHANGED: "fleet trust {}", Link.KEY_UNKNOWN: "fleet trust {}"}


def status_of(host: HostView) -> HostStatus:
    """Return what a host is doing; being out of reach hides everything else, because nothing else is known."""
    if host.orphan:
        return "orphan"
    if host.link is Link.CHANGED:
        return "changed"
    if host.link not in (Link.OK, Link.UNTRIED):
        return "unreachable"
    if host.attempt is not None:
        return "busy"
    if host.quarantine is not None:
        return "quarantined"
    by_state: dict[HostState, HostStatus] = {
        HostState.BLOCKED: "blocked",
        HostState.BUSY: "occupied",
        HostState.HELD: "blocked",
        HostState.READY: "idle",
        HostState.UNCHECKED: "unchecked",
    }
    return by_state[host.state]


def host_of(batch: BatchState, label: str) -> str:
    """Return the host that a task belongs to: the one that took it, or its only candidate; else empty."""
    view = batch.tasks[label]
    if view.host is not None:
        return view.host
    return view.task.hosts[0] if len(view.task.hosts) == 1 else ""


def hosts_now(batch: BatchState, now: datetime | None) -> tuple[HostNow, ...]:
    """Return every host of the batch, in inventory order."""
    assigned: dict[str, int] = {}
    done: dict[str, int] = {}
    for label, view in batch.tasks.items():
        name = host_of(batch, label)
        assigned[name] = assigned.get(name, 0) + 1
        if state_of(batch, view) in TERMINAL:
            done[name] = done.get(name, 0) + 1
    return tuple(_host_now(batch, host, now, done, assigned) for host in batch.hosts.values())


def _host_now(
    batch: BatchState, host: HostView, now: datetime | None, done: Mapping[str, int], assigned: Mapping[str, int]
) -> HostNow:
    attempt = batch.attempts.get(host.attempt) if host.attempt is not None else None
    return HostNow(
        name=host.name,
        pipeline=host.pipeline,
        status=status_of(host),
        link=host.link,
        since=iso(moment(host.link_since)),
        reason=_reason(host),
        fix=fix_of(batch, host),
        task=attempt.task if attempt is not None else None,
        phase=phase_of(batch, attempt) if attempt is not None else "",
        stalled_since=iso(moment(attempt.stalled_since)) if attempt is not None else "",
        elapsed_s=elapsed_s(attempt, now) if attempt is not None else None,
        done=done.get(host.name, 0),
        assigned=assigned.get(host.name, 0),
    )


def _reason(host: HostView) -> str:
    status = status_of(host)
    if status == "unreachable":
        error = host.report.error if host.report is not None and host.report.link is host.link else None
        return plain(error or str(host.link), MAX_REASON)
    if status == "changed":
        return plain(host.trouble or host.reason or "another machine answers under this name", MAX_REASON)
    return plain(host.why_unfit, MAX_REASON) if status in ("blocked", "occupied", "quarantined", "orphan") else ""


def fix_of(batch: BatchState, host: HostView) -> str:
    """Return the command that repairs the host or shows more; empty when nothing is wrong with it."""
    status = status_of(host)
    if status == "unreachable":
        return _FIX_OF_LINK.get(host.link, "fleet check {}").format(host.name)
    if status == "occupied":
        return typed("fleet status", batch)
    if status in ("quarantined", "orphan", "changed"):
        return typed("fleet why HOST", batch, host=host.name)
    return f"fleet check {host.name}" if status == "blocked" else ""


def first_problem(host: HostView) -> tuple[str, str]:
    """Return the check that failed first on a host and what the check recommends."""
    if host.report is None:
        return "", ""
    for finding in host.report.findings:
        if finding.mark is Mark.FAIL:
            return plain(finding.check, 60), plain(finding.fix, MAX_REASON)
    return "", plain(host.report.fix, MAX_REASON)


def phase_of(batch: BatchState, attempt: AttemptView) -> str:
    """Return the pipeline's own phase while an eval runs, else the state of its task."""
    state = batch.tasks[attempt.task].state
    return plain(attempt.phase, 40) if attempt.phase and state is TaskState.RUNNING else str(state)


def elapsed_s(attempt: AttemptView, now: datetime | None) -> float | None:
    """Return how long an attempt ran, or has been running at `now`.

    The host's clock may be off, so its start time only counts between our own order and `now`.
    """
    if attempt.state is AttemptState.FINISHED or now is None:
        return measured(attempt.elapsed_s)
    intended, started = moment(attempt.intended_at), moment(attempt.started_at)
    if started is not None and (intended is None or intended <= started) and started <= now:
        return (now - started).total_seconds()
    return max(0.0, (now - intended).total_seconds()) if intended is not None else None


def pace_of(batch: BatchState, now: datetime | None) -> Pace:
    """Return the speed of the batch and when its last queue will be empty."""
    finishes = sorted(when for attempt in batch.attempts.values() if (when := moment(attempt.finished_at)) is not None)
    last = iso(finishes[-1]) if finishes else None
    if now is None or all(state_of(batch, view) in TERMINAL for view in batch.tasks.values()):
        return Pace(last_finish_at=last)
    opened = moment(batch.opened_at)
    hour_ago = now - timedelta(hours=1)
    begin = max(hour_ago, opened) if opened is not None else hour_ago
    hours = (now - begin).total_seconds() / 3600
    recent = sum(begin <= when <= now for when in finishes)
    eta = _eta_s(batch, now)
    return Pace(
        evals_per_hour=round(recent / hours, 2) if recent and hours > 0 else None,
        last_finish_at=last,
        eta_s=round(eta, 1) if eta is not None else None,
        eta_at=iso(now + timedelta(seconds=eta)) if eta is not None else None,
    )


def _eta_s(batch: BatchState, now: datetime) -> float | None:
    """Simulate the queues with every eval taking the median; the longest queue decides."""
    durations = [
        value
        for attempt in batch.attempts.values()
        if attempt.state is AttemptState.FINISHED
        and not attempt.cancelled
        and (value := measured(attempt.elapsed_s)) is not None
    ]
    lanes = {name: 0.0 for name, host in batch.hosts.items() if status_of(host) in ("busy", "idle", "unchecked")}
    if not durations or not lanes:
        return None
    typical = float(statistics.median(durations))
    shared: list[tuple[str, ...]] = []
    counted = 0
    for label, view in batch.tasks.items():
        state = state_of(batch, view)
        if state is TaskState.PENDING:
            name = host_of(batch, label)
            if name in lanes:
                lanes[name] += typical
                counted += 1
            elif not name:
                shared.append(view.task.hosts)
        elif state in (TaskState.LAUNCHING, TaskState.RUNNING) and view.host in lanes and view.attempt is not None:
            ran = elapsed_s(batch.attempts[view.attempt], now) or 0.0
            lanes[view.host] += max(0.0, typical - ran)
            counted += 1
    if not counted and not shared:
        return None
    _share_out(shared, lanes, typical)
    return max(lanes.values())


def _share_out(shared: list[tuple[str, ...]], lanes: dict[str, float], typical: float) -> None:
    """Give each task of a pool to the lane that will be free first, as the scheduler does."""
    pools: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    for hosts in shared:
        heap = pools.get(hosts)
        if heap is None:
            heap = pools[hosts] = [(lanes[name], name) for name in hosts if name in lanes]
            heapq.heapify(heap)
        while heap:
            load, name = heap[0]
            if load == lanes[name]:
                lanes[name] = load + typical
                heapq.heapreplace(heap, (lanes[name], name))
                break
            # Another pool used this lane in the meantime.
            heapq.heapreplace(heap, (lanes[name], name))
