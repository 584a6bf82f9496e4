"""Which ended tasks get another attempt without being asked for: only what the operator's `retry:` allows. Pure.

The count is over the whole history of a task, as the journal has it: neither a restart nor another controller begins anew.
"""

from __future__ import annotations

import math
from collections.abc import Container

from fleet.dispatch.rules.faults import is_tasks_fault
from fleet.dispatch.state.views import AttemptView, BatchState, TaskView
from fleet.model.failures import LOST, SHORT_LOST, FailureClass
from fleet.model.records import RetryOrdered
from fleet.model.states import RETRYABLE, TaskState
from fleet.model.tasks import Task

BACKOFF_S = 30.0
MAX_BACKOFF_S = 1800.0


def allowance(task: Task, failure: FailureClass) -> tuple[int, frozenset[FailureClass]]:
    """Return how many new attempts the policy allows after `failure`, and the classes that are counted together for it."""
    if str(failure) in task.retry:
        return task.retry[str(failure)], frozenset({failure})
    if failure in LOST and SHORT_LOST in task.retry:
        return task.retry[SHORT_LOST], frozenset(one for one in LOST if str(one) not in task.retry)
    return 0, frozenset({failure})


def will_retry(state: BatchState, view: TaskView) -> bool:
    """Tell whether the policy has an attempt left for a task that ended."""
    if view.state not in RETRYABLE or view.failure is None or not view.task.retry:
        return False
    attempt = state.attempts.get(view.attempt or "")
    if attempt is not None and attempt.cancel_ordered:
        # Its end was ordered and came otherwise, e.g. by a reboot: whoever ordered it did not want another one.
        return False
    allowed, together = allowance(view.task, view.failure)
    return sum(one in together for one in view.by_policy) < allowed and not is_tasks_fault(state, view)


def policy_retries(state: BatchState, only: Container[str] | None) -> list[RetryOrdered]:
    """Return the orders that follow from the state; none before the attempt's outputs are here, or were tried for."""
    return [
        RetryOrdered(task=label, after=view.attempt, by="policy", failure=view.failure)
        for label, view in state.tasks.items()
        if will_retry(state, view)
        and (only is None or label in only)
        and _salvaged(view, state.attempts.get(view.attempt or ""))
    ]


def backoff_s(view: TaskView) -> float:
    """Return how long a waiting task is left alone: a provider that refuses is asked again after 30 s, 60 s, 120 s, …"""
    if not (view.ordered_again and view.by_policy and view.by_policy[-1] is FailureClass.PROVIDER):
        return 0.0
    return min(MAX_BACKOFF_S, math.ldexp(BACKOFF_S, view.by_policy.count(FailureClass.PROVIDER) - 1))


def _salvaged(view: TaskView, attempt: AttemptView | None) -> bool:
    if attempt is None:
        return False
    if view.state is TaskState.LOST:
        return attempt.path is not None or attempt.collect_failures > 0
    return attempt.path is not None
