"""The journals of the collected batches as a collector reads and writes them, beside a controller that may be at work."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import fleet
from fleet.collect.below import make_private
from fleet.collect.result import AttemptRef
from fleet.collect.sweep import Known
from fleet.dispatch.files.batch import Batch, batches, controller_name
from fleet.dispatch.files.machines import machine_needed, machine_of
from fleet.dispatch.state.replay import apply
from fleet.dispatch.state.views import AttemptView, BatchState
from fleet.model.records import AnyRecord, AttemptIntended, BatchOpened, ControllerLeft, ResultJudged
from fleet.model.states import SUCCESS, TERMINAL, TaskState
from fleet.model.tasks import Task

_FREE = (TERMINAL - SUCCESS) | {TaskState.PENDING, TaskState.BLOCKED}
"""A task in one of these states has nothing under way and no result that counts."""


class _Open:
    """One journal with the state read so far."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.state = BatchState()
        self.judged: set[str] = set()
        self._offset = 0

    def refresh(self) -> BatchState:
        records, self._offset = self.batch.journal.read_from(self._offset)
        self.state = apply(self.state, *records)
        self.judged.update(record.attempt for record in records if isinstance(record, ResultJudged))
        return self.state


class Books:
    """Implements fleet.collect.sweep.Book over the directories below `collected`; `only` narrows it to one batch."""

    def __init__(self, collected: Path, only: str | None = None) -> None:
        self._collected = collected
        self._lock = threading.Lock()
        self._open: dict[str, _Open] = {}
        for name in [only] if only else batches(collected):
            self._of(name)

    def find(self, attempt: str) -> Known | None:
        """Return what the journals know of an attempt now."""
        with self._lock:
            for book in self._open.values():
                view = book.refresh().attempts.get(attempt)
                if view is not None:
                    return self._known(book, view)
        return None

    def on_host(self, host: str) -> Sequence[Known]:
        """Return the attempts that may exist on a host; refused ones never did, and another machine has none of this one's."""
        machine = self.machine(host)
        with self._lock:
            return [
                self._known(book, view)
                for book in self._open.values()
                for view in book.refresh().attempts.values()
                if view.host == host and not view.refused and (not machine or machine_of(book.state, host) in ("", machine))
            ]

    def machine(self, host: str) -> str:
        """Return the identity that a host is known by, empty when no batch has anything left there."""
        with self._lock:
            return machine_needed([book.refresh() for book in self._open.values()], host)

    def directory(self, batch: str) -> Path:
        """Return where the results of a batch go."""
        return self._collected / batch

    def floor(self, batch: str, label: str) -> int:
        """Return the first attempt number that the journal has not given for a task."""
        with self._lock:
            views = self._of(batch).refresh().attempts.values()
            return 1 + max((view.number for view in views if view.task == label), default=0)

    def introduce(self, batch: str, task: Task, ref: AttemptRef, records: Sequence[AnyRecord]) -> bool:
        """Note an attempt that no controller of this machine started, and `records` of its end, when its task waits for one.

        In one append: an attempt that is only announced is one that a controller launches.
        A task that runs, or has a result that counts, keeps it: the other result is here beside it and changes nothing. A
        host may only answer for tasks that were given to it.
        """
        with self._lock:
            view = self._of(batch).refresh().tasks.get(task.label)
            if view is None or view.state not in _FREE or ref.host not in view.task.hosts:
                return False
            self._append(batch, _intended(task, ref), *records)
            return True

    def begin(self, batch: str, task: Task, ref: AttemptRef, pipeline: str, records: Sequence[AnyRecord]) -> bool:
        """Note an adopted result like `introduce`, once; a batch that was never dispatched is begun with it.

        The operator names the host of an adopted result, so it need not be one that the assignment gave the task to.
        """
        with self._lock:
            state = self._of(batch).refresh()
            if task.label not in state.tasks and not state.assignment_sha256:
                opened = BatchOpened(
                    batch=batch,
                    assignment_sha256="",
                    controller=controller_name(),
                    tasks=(task,),
                    hosts={ref.host: pipeline},
                    fleet_version=fleet.__version__,
                )
                self._append(batch, opened, ControllerLeft(why="done"))
            state = self._of(batch).refresh()
            view = state.tasks.get(task.label)
            if view is None or view.state not in _FREE or ref.attempt_id in state.attempts:
                return False
            self._append(batch, _intended(task, ref), *records)
            return True

    def append(self, batch: str, *records: AnyRecord) -> None:
        """Write records durably."""
        with self._lock:
            self._append(batch, *records)

    def tasks(self, batch: str) -> dict[str, Task]:
        """Return a batch's tasks by label."""
        with self._lock:
            return {label: view.task for label, view in self._of(batch).refresh().tasks.items()}

    def task(self, batch: str, label: str) -> Task | None:
        """Return a batch's task of that label."""
        return self.tasks(batch).get(label)

    def hosts(self, batch: str) -> tuple[str, ...]:
        """Return the hosts of a batch, and those that hold attempts of it."""
        with self._lock:
            state = self._of(batch).refresh()
            return tuple(dict.fromkeys([*state.hosts, *(view.host for view in state.attempts.values())]))

    def nudge(self) -> None:
        """Have controllers that run on this machine read what was written."""
        for book in self._open.values():
            book.batch.nudge()

    def _append(self, batch: str, *records: AnyRecord) -> None:
        found = self._of(batch).batch
        # A journal that is gone must not be begun anew with this alone: what it knew would be started again.
        found.require_memory()
        make_private(found.directory)
        found.journal.append(*records)

    def _of(self, name: str) -> _Open:
        if name not in self._open:
            self._open[name] = _Open(Batch(self._collected, name))
        return self._open[name]

    def _known(self, book: _Open, view: AttemptView) -> Known:
        task = book.state.tasks[view.task].task
        host = book.state.hosts.get(view.host)
        return Known(
            batch=book.batch.name,
            task=task,
            attempt=view.attempt,
            number=view.number,
            host=view.host,
            pipeline=task.pipeline or (host.pipeline if host is not None else ""),
            state=view.state,
            epoch=view.epoch,
            path=view.path,
            judged=view.attempt in book.judged,
            acked=view.acked,
        )


def _intended(task: Task, ref: AttemptRef) -> AttemptIntended:
    return AttemptIntended(task=task.label, host=ref.host, attempt=ref.attempt_id, number=ref.number)


def batch_and_patterns(collected: Path, words: Sequence[str], named: str | None) -> tuple[str | None, tuple[str, ...]]:
    """Tell the batch from the host patterns: the first word is a batch when `collected/WORD/journal.jsonl` exists."""
    if named is not None:
        return Batch(collected, named).name, tuple(words)
    if words and words[0] in batches(collected):
        return words[0], tuple(words[1:])
    return None, tuple(words)
