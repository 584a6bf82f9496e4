"""The state of a batch, rebuilt from its journal by a pure reduction.

    state = apply(state, record)        one fact at a time, while a controller runs
    state = replay(records)             all of them, when one starts or a dashboard looks

Both go through the same reducers, so what an operator sees after a crash is what the controller saw before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from fleet.dispatch.state import reduce_attempts, reduce_batch, reduce_hosts
from fleet.dispatch.state.draft import Draft
from fleet.dispatch.state.views import AttemptView, BatchState, HostView, TaskView
from fleet.model import records
from fleet.model.records import AnyRecord

__all__ = ["AttemptView", "BatchState", "HostView", "TaskView", "apply", "replay"]

BACK_S = 60.0
"""Writers beside each other stamp their records before they wait for the journal; that is not a clock that was set."""


def apply(state: BatchState, *facts: AnyRecord) -> BatchState:
    """Return the state after the records `facts`."""
    draft = Draft(state)
    for record in facts:
        if record.t:
            draft.fields["clock_set"] |= is_back(draft.fields["last_record_at"], record.t)
            draft.fields["last_record_at"] = record.t
        _REDUCERS[type(record)](draft, record)
    return draft.freeze()


def replay(facts: Iterable[AnyRecord]) -> BatchState:
    """Return the state that the records `facts` add up to."""
    return apply(BatchState(), *facts)


def is_back(before: str, after: str) -> bool:
    """Tell whether a record's time lies well before that of the record ahead of it."""
    if not before or after >= before:
        return False
    try:
        return (datetime.fromisoformat(before) - datetime.fromisoformat(after)).total_seconds() > BACK_S
    except (ValueError, TypeError):
        return False


_REDUCERS: dict[type[Any], Callable[[Draft, Any], None]] = {
    records.BatchOpened: reduce_batch.batch_opened,
    records.ImagesChecked: reduce_batch.images_checked,
    records.BatchHalted: reduce_batch.halted,
    records.JournalRecovered: reduce_batch.recovered,
    records.ClockSet: reduce_batch.clock_set,
    records.ControllerLeft: reduce_batch.left,
    records.CancelOrdered: reduce_batch.cancel_ordered,
    records.RetryOrdered: reduce_batch.retry_ordered,
    records.HostChecked: reduce_hosts.host_checked,
    records.LinkChanged: reduce_hosts.link_changed,
    records.HostQuarantined: reduce_hosts.quarantined,
    records.QuarantineTold: reduce_hosts.quarantine_told,
    records.HostReleased: reduce_hosts.released,
    records.AttemptIntended: reduce_attempts.intended,
    records.AttemptStarted: reduce_attempts.started,
    records.AttemptRefused: reduce_attempts.refused,
    records.AttemptAdopted: reduce_attempts.adopted,
    records.AttemptObserved: reduce_attempts.observed,
    records.AttemptStalled: reduce_attempts.stalled,
    records.AttemptMoving: reduce_attempts.moving,
    records.ResultCollected: reduce_attempts.collected,
    records.CollectFailed: reduce_attempts.collect_failed,
    records.ResultJudged: reduce_attempts.judged,
    records.AttemptAcked: reduce_attempts.acked,
}
