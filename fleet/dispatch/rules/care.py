"""What follows from a state without anybody's word: quarantine, retries by policy, a halt and its cancels. Pure.

    records = due(state, rules)      in one append with the record that caused them, before any host is free for another task

Each is there at most once, because it changes the state that it follows from. A controller that died before it could
write one finds it due again.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from fleet.dispatch.rules.faults import row_of, said_of
from fleet.dispatch.rules.halt import HaltRule
from fleet.dispatch.rules.retries import policy_retries
from fleet.dispatch.state.replay import apply
from fleet.dispatch.state.views import AttemptView, BatchState
from fleet.model.names import plain
from fleet.model.records import AnyRecord, BatchHalted, CancelOrdered, HostQuarantined
from fleet.model.states import UNDER_WAY

QUARANTINE_AFTER = 3
"""Different tasks in a row."""


@dataclass(frozen=True)
class Rules:
    """The operator's limits for one run of a controller."""

    quarantine: int = QUARANTINE_AFTER
    """Tasks in a row that put a host in quarantine; 0 = never."""
    halt: HaltRule | None = None
    only: Container[str] | None = None
    """The tasks that this controller may begin, so also retry; None = all."""


def due(state: BatchState, rules: Rules) -> list[AnyRecord]:
    """Return the records that follow from `state` and are not in it yet, in the order in which they are to be written."""
    found: list[AnyRecord] = [*_quarantines(state, rules.quarantine)]
    if state.halted is None:
        found += policy_retries(state, rules.only)
    if rules.halt is not None and state.halted is None:
        reason = rules.halt.verdict(state)
        if reason is not None:
            found.append(BatchHalted(reason=reason, cancel=rules.halt.now))
    after = apply(state, *found) if found else state
    return found + (_cancels(after) if after.halted_now else [])


def _quarantines(state: BatchState, limit: int) -> list[AnyRecord]:
    found: list[AnyRecord] = []
    for host in state.hosts.values():
        if not limit or host.quarantine is not None or len(host.row) < limit:
            continue
        row = row_of(state, host)
        if len(row) >= limit:
            chain = "; ".join(said_of(attempt) for attempt in row)
            reason = plain(f"{len(row)} tasks in a row ended badly here ({chain})", 1500)
            found.append(HostQuarantined(host=host.name, reason=reason, attempts=tuple(one.attempt for one in row)))
    return found


def _cancels(state: BatchState) -> list[AnyRecord]:
    return [
        CancelOrdered(task=label, attempt=view.attempt, by="halt")
        for label, view in state.tasks.items()
        if view.state in UNDER_WAY and view.attempt is not None and is_ours_to_end(state.attempts[view.attempt])
    ]


def is_ours_to_end(attempt: AttemptView) -> bool:
    """Tell whether a rule may order the attempt's end: another controller's eval is not this operator's to end."""
    return not attempt.cancel_ordered and not attempt.followed
