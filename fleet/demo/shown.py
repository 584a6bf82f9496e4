"""Whether the demo showed what it is meant to show, and at which rates; read back from the batch's own journal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fleet.demo.scenario import NOT_READY, STORY, Told
from fleet.dispatch.files.journal import Journal
from fleet.dispatch.state.replay import replay
from fleet.dispatch.state.views import BatchState, TaskView
from fleet.model.names import visible
from fleet.model.records import AnyRecord, AttemptAcked, AttemptIntended, AttemptStarted, ResultCollected
from fleet.model.states import TaskState
from fleet.model.verdict import Severity

MAX_REASON = 80


@dataclass(frozen=True)
class Point:
    """One thing the demo is meant to show."""

    what: str
    subject: str
    ok: bool
    found: str


@dataclass(frozen=True)
class Played:
    """What the journal of the batch tells."""

    state: BatchState
    records: tuple[AnyRecord, ...]


def read_batch(collected: Path, batch: str) -> Played:
    """Read the journal of a batch."""
    records = tuple(Journal(collected / batch / "journal.jsonl").read())
    return Played(replay(records), records)


def story_points(played: Played) -> list[Point]:
    """Compare every task with what the story tells of it, and the host that is not ready with its fix."""
    points = [_task_point(told, played) for told in STORY]
    host = played.state.hosts.get(NOT_READY)
    fixes = [finding.fix for finding in host.report.findings if finding.fix] if host and host.report else []
    named = any("fleet sync" in fix for fix in fixes)
    points.append(Point("a host that is not ready, with its fix", NOT_READY, named, "; ".join(fixes) or "no fix"))
    return points


def _task_point(told: Told, played: Played) -> Point:
    view = played.state.tasks.get(told.label)
    if view is None:
        return Point(told.shows, told.label, False, "not in the batch")
    resolved = view.facts.resolved if view.facts is not None else None
    codes = {reason.code for reason in view.reasons if reason.severity is not Severity.INFO}
    ok = view.state is told.state and resolved is told.resolved and (not told.code or told.code in codes)
    if told.state is TaskState.BLOCKED:
        ok = ok and bool(view.reason)
    return Point(told.shows, told.label, ok, _found(view, resolved, codes))


def _found(view: TaskView, resolved: bool | None, codes: set[str]) -> str:
    parts = [str(view.state)]
    if resolved is not None:
        parts.append("resolved" if resolved else "not resolved")
    parts.extend(sorted(codes))
    if view.reason and view.state in (TaskState.BLOCKED, TaskState.FAILED, TaskState.LOST, TaskState.HELD):
        parts.append(visible(view.reason, MAX_REASON))
    return ", ".join(parts)


def rehearsal_points(played: Played, hosts: int) -> list[Point]:
    """Every host ran its task, and every result was accepted."""
    states = [view.state for view in played.state.tasks.values()]
    accepted = states.count(TaskState.ACCEPTED)
    others = sorted({f"{states.count(state)} {state}" for state in states if state is not TaskState.ACCEPTED})
    found = ", ".join([f"{accepted} accepted", *others])
    used = {view.host for view in played.state.attempts.values()}
    return [
        Point(f"{hosts} results accepted", "tasks", accepted == hosts, found),
        Point(f"{hosts} hosts used", "hosts", len(used) == hosts, f"{len(used)} hosts"),
    ]


def rates(played: Played, check_seconds: float, hosts: int) -> dict[str, float]:
    """Return hosts checked per second, and launches, collected results and finished tasks per second of their own span."""
    launched = _span(played.records, AttemptIntended, AttemptStarted)
    collected = _span(played.records, ResultCollected, ResultCollected)
    whole = _span(played.records, AttemptIntended, AttemptAcked)
    measured = {"hosts_checked_per_s": hosts / check_seconds if check_seconds > 0 else 0.0}
    for name, seconds in (("launches_per_s", launched), ("results_collected_per_s", collected), ("tasks_per_s", whole)):
        if seconds > 0:
            measured[name] = hosts / seconds
    return {name: round(rate, 2) for name, rate in measured.items()}


def _span(records: Iterable[AnyRecord], first: type, last: type) -> float:
    """Return the seconds from the first record of one type to the last of another."""
    begun = [record.t for record in records if isinstance(record, first) and record.t]
    ended = [record.t for record in records if isinstance(record, last) and record.t]
    if not begun or not ended:
        return 0.0
    return (datetime.fromisoformat(max(ended)) - datetime.fromisoformat(min(begun))).total_seconds()
