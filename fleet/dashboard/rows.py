"""The lines of results.csv: one per attempt, and one for each task that has none, in the order of the assignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.dashboard.figures import ResultRow
from fleet.dashboard.funnel import state_of
from fleet.dashboard.hosts import host_of
from fleet.dashboard.measures import measured
from fleet.dispatch.state.replay import AttemptView, BatchState, TaskView
from fleet.model.names import plain
from fleet.model.records import ResultJudged
from fleet.model.states import AttemptState, TaskState
from fleet.model.verdict import Facts, Outcome

MAX_TEXT = 500


def rows_of(batch: BatchState, judged: Mapping[str, ResultJudged]) -> tuple[ResultRow, ...]:
    """Return the rows; `judged` (attempt → its verdict) fills in the attempts that a later one follows."""
    by_task: dict[str, list[AttemptView]] = {label: [] for label in batch.tasks}
    for attempt in batch.attempts.values():
        by_task.setdefault(attempt.task, []).append(attempt)
    return tuple(row for label, view in batch.tasks.items() for row in _rows_of_task(batch, view, by_task[label], judged))


def _rows_of_task(
    batch: BatchState, view: TaskView, attempts: list[AttemptView], judged: Mapping[str, ResultJudged]
) -> Iterator[ResultRow]:
    current = None
    for attempt in sorted(attempts, key=lambda one: (one.number, one.intended_at, one.attempt)):
        if attempt.attempt == view.attempt:
            current = attempt
        else:
            yield _earlier(view, attempt, judged.get(attempt.attempt))
    yield _row(
        view,
        current,
        current=True,
        host=host_of(batch, view.task.label),
        state=str(state_of(batch, view)),
        failure=str(view.failure) if view.failure is not None else "",
        reason=plain(view.reason, MAX_TEXT),
        verdict=view.verdict,
        cause=None if view.state is TaskState.CANCELLED else view.cause,
        codes=tuple(plain(reason.code, 60) for reason in view.reasons),
        facts=_facts(view.facts),
    )


def _earlier(view: TaskView, attempt: AttemptView, judged: ResultJudged | None) -> ResultRow:
    return _row(
        view,
        attempt,
        current=False,
        host=attempt.host,
        state=_ended_as(attempt, judged.verdict if judged is not None else None),
        reason=plain(attempt.refused, MAX_TEXT),
        verdict=judged.verdict if judged is not None else None,
        cause=judged.cause if judged is not None and not attempt.cancelled else None,
        codes=tuple(plain(reason.code, 60) for reason in judged.reasons) if judged is not None else (),
        facts=_facts(judged.facts if judged is not None else None),
    )


def _ended_as(attempt: AttemptView, verdict: Outcome | None) -> str:
    if attempt.refused:
        return "refused"
    if attempt.state in (AttemptState.LOST, AttemptState.HELD):
        return str(attempt.state)
    if attempt.cancelled:
        return "cancelled"
    return str(verdict if verdict is not None else attempt.state)


def _row(view: TaskView, attempt: AttemptView | None, **fields: object) -> ResultRow:
    key = view.task.key
    of_task: dict[str, object] = {
        "task": key.label,
        "instance_id": key.instance_id,
        "model": key.model,
        "run": key.run,
        "task_name": view.task.task_name,
    }
    of_attempt: dict[str, object] = {}
    if attempt is not None:
        of_attempt = {
            "attempt": attempt.attempt,
            "number": attempt.number,
            "intended_at": attempt.intended_at,
            "started_at": plain(attempt.started_at, 40),
            "finished_at": attempt.finished_at,
            "elapsed_s": measured(attempt.elapsed_s),
            "rc": attempt.rc,
            "timed_out": attempt.timed_out,
            "cancelled": attempt.cancelled,
            "path": attempt.path or view.path or "" if attempt.attempt == view.attempt else attempt.path or "",
        }
    return ResultRow.model_validate({**of_task, **of_attempt, **fields})


def _facts(facts: Facts | None) -> Facts:
    """Return the facts with what cannot be true left out and the error safe to show."""
    if facts is None:
        return Facts()
    clean = {
        name: measured(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        for name, value in facts
    }
    clean["error"] = plain(facts.error, MAX_TEXT) if facts.error is not None else None
    return Facts.model_validate(clean)
