"""Which batch is meant, and how it is read back: its journal is all that is needed, no host is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from fleet.dispatch.files.batch import Batch, batches
from fleet.dispatch.state.replay import BatchState, apply
from fleet.errors import InputError
from fleet.model.base import nearest
from fleet.model.names import is_name, visible
from fleet.model.records import AnyRecord, ResultJudged


def find_batch(collected: Path, name: str | None) -> Batch:
    """Return batch `name` (default: the most recently changed), or raise InputError that says what there is."""
    names = batches(collected)
    if not names:
        raise InputError(f"no batch below {collected}/", hint="fleet dispatch ASSIGNMENT.json, or --collected DIR")
    if name is None or (is_name(name) and Batch(collected, name).exists):
        return Batch(collected, name or names[0])
    near = nearest(name, names)
    also = f", did you mean {near!r}?" if near else f"; there is {', '.join(names[:5])}" + (" …" if len(names) > 5 else "")
    raise InputError(f"no batch {visible(name, 80)!r} below {collected}/{also}", hint=f"fleet dashboard {near or names[0]}")


def read_batch(batch: Batch) -> tuple[BatchState, dict[str, ResultJudged]]:
    """Return the state of `batch` now and the verdict of every attempt, earlier ones included."""
    follower = Follower(batch)
    follower.look()
    return follower.state, follower.judged


class Follower:
    """A batch whose journal another process appends to, read from where the last look ended."""

    def __init__(self, batch: Batch) -> None:
        self.judged: dict[str, ResultJudged] = {}
        self._batch = batch
        self._offset = 0
        self._state = BatchState()

    @property
    def state(self) -> BatchState:
        """What the journal says, without a controller that died before it could write that it left."""
        if self._state.controller is not None and self._batch.held_by() is None:
            return replace(self._state, controller=None)
        return self._state

    def look(self) -> bool:
        """Take in what was appended; tell whether there was anything."""
        records, self._offset = self._batch.journal.read_from(self._offset)
        self._state = apply(self._state, *records)
        self.judged.update(verdicts_of(records))
        return bool(records)


def verdicts_of(records: Iterable[AnyRecord]) -> dict[str, ResultJudged]:
    """Return attempt → its last verdict."""
    return {record.attempt: record for record in records if isinstance(record, ResultJudged)}
