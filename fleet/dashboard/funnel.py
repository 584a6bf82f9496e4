"""How far each task came: exactly one state, one fate and one last stage per assigned task.

assigned ─► started ─► finished ─► collected ─► valid ─► resolved
   │           │           │           │          └ unresolved, not known
   │           │           │           └ rejected, cancelled, lost (salvaged), waiting for the verdict
   │           │           └ collecting, failed to collect
   │           └ running, lost, held
   └ pending, blocked, launching, refused, cancelled before the start
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fleet.dashboard.figures import Fate, Stage, StageName
from fleet.dispatch.state.replay import BatchState, TaskView
from fleet.model.states import ON_HOST, SUCCESS, TERMINAL, AttemptState, TaskState
from fleet.model.verdict import Cause

STAGES: tuple[StageName, ...] = ("assigned", "started", "finished", "collected", "valid", "resolved")
OPEN = frozenset(TaskState) - TERMINAL
_INFRASTRUCTURE = frozenset({TaskState.FAILED, TaskState.LOST, TaskState.HELD})
_STARTED = frozenset({AttemptState.STARTING, AttemptState.RUNNING, AttemptState.HELD, AttemptState.LOST})


def state_of(batch: BatchState, view: TaskView) -> TaskState:
    """Return the state to count a task under; one that claims to be on a host without any attempt is lost."""
    if view.state in ON_HOST and (view.attempt is None or view.attempt not in batch.attempts):
        return TaskState.LOST
    return view.state


def states_of(batch: BatchState, views: Iterable[TaskView]) -> dict[TaskState, int]:
    """Return how many tasks are in each state, zeros included."""
    counts = Counter(state_of(batch, view) for view in views)
    return {state: counts[state] for state in TaskState}


def funnel_of(batch: BatchState, views: Iterable[TaskView]) -> tuple[Stage, ...]:
    """Return the stages from assigned to resolved, each with the tasks that went no further."""
    reached: Counter[int] = Counter()
    out: list[Counter[str]] = [Counter() for _ in STAGES]
    for view in views:
        stage = _last_stage(batch, view)
        reached[stage] += 1
        if stage < len(STAGES) - 1:
            out[stage][_why_no_further(batch, view, stage)] += 1
    return tuple(
        Stage(name=name, count=sum(reached[later] for later in range(index, len(STAGES))), out=_ordered(out[index]))
        for index, name in enumerate(STAGES)
    )


def _last_stage(batch: BatchState, view: TaskView) -> int:
    state = state_of(batch, view)
    if state in SUCCESS:
        return STAGES.index("resolved" if view.facts is not None and view.facts.resolved is True else "valid")
    attempt = batch.attempts.get(view.attempt) if view.attempt is not None else None
    collected = attempt is not None and attempt.path is not None
    if view.verdict is not None or view.path is not None or collected or state is TaskState.COLLECTED:
        return STAGES.index("collected")
    if attempt is None:
        return STAGES.index("assigned")
    if attempt.state is AttemptState.FINISHED or state in (TaskState.FINISHED, TaskState.COLLECTING):
        return STAGES.index("finished")
    started = attempt.state in _STARTED or bool(attempt.started_at) or state is TaskState.RUNNING
    return STAGES.index("started" if started else "assigned")


def _why_no_further(batch: BatchState, view: TaskView, stage: int) -> str:
    if STAGES[stage] == "valid":
        return "unresolved" if view.facts is not None and view.facts.resolved is False else "not-known"
    return str(state_of(batch, view))


def _ordered(counts: Counter[str]) -> dict[str, int]:
    order = [*map(str, TaskState), "unresolved", "not-known"]
    return {name: counts[name] for name in order if counts[name]}


def fate_of(batch: BatchState, views: Iterable[TaskView]) -> Fate:
    """Return what became of the tasks, with the model's failures apart from those of the machinery."""
    return Fate(**Counter(_fate(state_of(batch, view), view) for view in views))


def _fate(state: TaskState, view: TaskView) -> str:
    if state in SUCCESS:
        resolved = view.facts.resolved if view.facts is not None else None
        return "resolved_unknown" if resolved is None else "resolved" if resolved else "unresolved"
    if state is TaskState.CANCELLED:
        return "cancelled"
    if state in OPEN:
        return "open"
    if state in _INFRASTRUCTURE:
        return "infrastructure"
    if view.cause is None:
        return "unclear"
    return "model_rejected" if view.cause is Cause.MODEL else "infrastructure"
