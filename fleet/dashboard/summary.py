"""The numbers an operator asks for, from the state of a batch alone.

Pure: the same state and the same `now` give the same summary, whether a controller runs, has crashed, or ended a year ago.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from fleet.dashboard.advice import next_step
from fleet.dashboard.failures import failures_of, flags_of
from fleet.dashboard.figures import Figures, HostStatus, Progress, Slice, Summary
from fleet.dashboard.funnel import fate_of, funnel_of, states_of
from fleet.dashboard.hosts import host_of, hosts_now, pace_of
from fleet.dashboard.measures import iso, known_sum, moment, spread, tests_of, wilson
from fleet.dashboard.rows import rows_of
from fleet.dispatch.state.replay import BatchState, TaskView
from fleet.model.names import plain
from fleet.model.records import ResultJudged
from fleet.model.states import SUCCESS, TERMINAL, AttemptState, TaskState

__all__ = ["Summary", "summarize"]

_STATUSES: tuple[HostStatus, ...] = (
    "busy",
    "idle",
    "blocked",
    "occupied",
    "quarantined",
    "orphan",
    "changed",
    "unreachable",
    "unchecked",
)


def summarize(batch: BatchState, now: datetime | None = None, judged: Mapping[str, ResultJudged] | None = None) -> Summary:
    """Return the summary of `batch` at `now` (default: the time of its last record).

    `judged` (attempt → its verdict, from the journal) adds what the state forgets when a task is tried again: the verdicts
    and the costs of its earlier attempts.
    """
    verdicts = {} if judged is None else judged
    progress = _progress(batch)
    last = moment(batch.last_record_at)
    when = last if progress == "done" or now is None else now
    until = when if progress == "running" else last
    opened = moment(batch.opened_at)
    hosts = hosts_now(batch, when)
    failures, flags = failures_of(batch), flags_of(batch)
    return Summary(
        batch=plain(batch.batch, 200),
        progress=progress,
        controller=plain(batch.controller, 200) if batch.controller is not None else None,
        halted=plain(batch.halted, 300) if batch.halted is not None else None,
        clock_set=batch.clock_set,
        opened_at=iso(opened),
        as_of=iso(when),
        wall_s=round((until - opened).total_seconds(), 1) if until is not None and opened is not None else None,
        total=_figures(batch, tuple(batch.tasks.values()), verdicts),
        by_model=_by_model(batch, verdicts),
        by_host=_by_host(batch, verdicts),
        hosts=hosts,
        host_counts={status: sum(host.status == status for host in hosts) for status in _STATUSES},
        failures=failures,
        flags=flags,
        pace=pace_of(batch, when),
        next=next_step(batch, progress, failures, flags, only_blocked=_only_blocked(batch)),
        results=rows_of(batch, verdicts),
    )


def _progress(batch: BatchState) -> Progress:
    if not batch.tasks:
        return "empty"
    if batch.complete:
        return "done"
    return "running" if batch.controller is not None else "stopped"


def _only_blocked(batch: BatchState) -> bool:
    return all(view.state in TERMINAL or view.state is TaskState.BLOCKED for view in batch.tasks.values())


def _by_model(batch: BatchState, judged: Mapping[str, ResultJudged]) -> tuple[Slice, ...]:
    groups: dict[str, list[TaskView]] = {}
    for view in batch.tasks.values():
        groups.setdefault(view.task.key.model, []).append(view)
    return tuple(Slice(name=name, figures=_figures(batch, groups[name], judged)) for name in sorted(groups))


def _by_host(batch: BatchState, judged: Mapping[str, ResultJudged]) -> tuple[Slice, ...]:
    """Return a slice per host in inventory order; tasks that no host has taken are the last one, without a name."""
    groups: dict[str, list[TaskView]] = {name: [] for name in batch.hosts}
    for label, view in batch.tasks.items():
        groups.setdefault(host_of(batch, label), []).append(view)
    shared = groups.pop("", [])
    named = [*groups.items(), *([("", shared)] if shared else [])]
    return tuple(Slice(name=name, figures=_figures(batch, views, judged)) for name, views in named)


def _figures(batch: BatchState, views: Sequence[TaskView], judged: Mapping[str, ResultJudged]) -> Figures:
    fate = fate_of(batch, views)
    answered = fate.resolved + fate.unresolved
    interval = wilson(fate.resolved, answered)
    attempts = [batch.attempts[one] for view in views for one in view.attempts if one in batch.attempts]
    results = [view.facts for view in views if view.facts is not None]
    valid = [view.facts for view in views if view.facts is not None and view.state in SUCCESS]
    paid = [*results, *(judged[one.attempt].facts for one in attempts if _is_earlier(batch, one.task, one.attempt, judged))]
    return Figures(
        assigned=len(views),
        states=states_of(batch, views),
        funnel=funnel_of(batch, views),
        fate=fate,
        resolved_rate=round(fate.resolved / answered, 4) if answered else None,
        resolved_low=round(interval[0], 4) if interval else None,
        resolved_high=round(interval[1], 4) if interval else None,
        duration_s=spread(one.elapsed_s for one in attempts if one.state is AttemptState.FINISHED and not one.cancelled),
        patch_bytes=spread(facts.patch_bytes for facts in results),
        tests=tests_of(valid),
        cost_usd=known_sum([facts.cost_usd for facts in paid]),
        tokens=known_sum([facts.tokens for facts in paid]),
    )


def _is_earlier(batch: BatchState, task: str, attempt: str, judged: Mapping[str, ResultJudged]) -> bool:
    view = batch.tasks[task]
    return attempt in judged and not (view.attempt == attempt and view.facts is not None)
