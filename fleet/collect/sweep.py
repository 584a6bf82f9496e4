"""Bring back everything that has ended on one host and is not here yet, whoever started it.

No lock of the batch is needed: results are published by an exclusive rename, journal records are facts that may be
written twice, and an acknowledgement only says that a verified copy exists. So a sweep may run beside a controller, and
the same sweep again finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fleet.agent.status import state_of
from fleet.collect.judged import ack_word, collected_row, dataset_of, judge_here, key_of, news_records, result_records
from fleet.collect.outcome import Got, Result, failed
from fleet.collect.places import ADOPTED, UNKNOWN_BATCH, find_result, free_number
from fleet.collect.provenance import code_facts, task_facts
from fleet.collect.pull import collect_attempt
from fleet.collect.result import AttemptRef, NumberTaken, existing_result
from fleet.errors import AgentError, FleetError, InputError, StorageError, TransportError
from fleet.model.exitcodes import Exit
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline
from fleet.model.records import AnyRecord, AttemptAcked
from fleet.model.states import AttemptState
from fleet.model.tasks import Task

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.model.hosts import Host
    from fleet.model.verdict import Verdict
    from fleet.transport import Transport

Code = Callable[[str], dict[str, Any]]
"""Pipeline → the host's code fingerprint."""
_ENDED = frozenset({AttemptState.FINISHED, AttemptState.HELD, AttemptState.LOST})


@dataclass(frozen=True)
class Known:
    """What a journal of this machine knows about an attempt."""

    batch: str
    task: Task
    attempt: str
    number: int
    host: str
    pipeline: str
    state: AttemptState = AttemptState.UNKNOWN
    epoch: int | None = None
    path: str | None = None
    judged: bool = False
    acked: bool = False


class Book(Protocol):
    """The journals of the collected batches; safe to use from many threads and beside other processes."""

    def find(self, attempt: str) -> Known | None:
        """Return what is known of an attempt now, other processes' records included."""

    def on_host(self, host: str) -> Sequence[Known]:
        """Return the attempts that may exist on a host."""

    def directory(self, batch: str) -> Path:
        """Return where the results of a batch go."""

    def task(self, batch: str, label: str) -> Task | None:
        """Return a batch's task of that label."""

    def floor(self, batch: str, label: str) -> int:
        """Return the first attempt number that no journal has given for the task."""

    def introduce(self, batch: str, task: Task, ref: AttemptRef, records: Sequence[AnyRecord]) -> bool:
        """Note an attempt that another controller started, and what became of it; False when the batch has no place for it."""

    def append(self, batch: str, *records: AnyRecord) -> None:
        """Write records durably."""


@dataclass(frozen=True)
class Sweep:
    """What to look for, and how."""

    book: Book
    pipeline: Callable[[str], Pipeline]
    batch: str | None = None
    """Only attempts of this batch."""
    instances: frozenset[str] = frozenset()
    """Only these instances; all when empty."""
    again: bool = False
    """Also what was collected before and has been removed here since."""

    def run(self, host: Host, client: AgentClient, transport: Transport, on_result: Callable[[Result], None]) -> list[Result]:
        """Collect, judge, journal and acknowledge everything on one host; one attempt's failure does not stop the next."""
        with client.conversation():
            return self._run(host, client, transport, on_result)

    def _run(self, host: Host, client: AgentClient, transport: Transport, on_result: Callable[[Result], None]) -> list[Result]:
        results = []
        # Asked once per pipeline, not per attempt: the files are the host's, whatever ran.
        code = cache(lambda name: code_facts(client, self.pipeline(name), host.workdir))
        for status in self._statuses(host, client):
            result = self._one(host, client, transport, status, code)
            if result is None:
                continue
            on_result(result)
            results.append(result)
            if result.code == "lost-link":
                break
        return results

    def _statuses(self, host: Host, client: AgentClient) -> list[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]]
        if self.again:
            # Those too that were acknowledged: their results, and the journal that knew of them, may be gone from here.
            listed = [one for one in client.every_attempt()["attempts"] if not self._done(one)]
        else:
            listed = client.status()["attempts"]
        seen = {str(one.get("attempt")) for one in listed}
        known = [one for one in self.book.on_host(host.name) if self.batch in (None, one.batch)]
        asked = [one.attempt for one in known if one.attempt not in seen and self._open(one)]
        for start in range(0, len(asked), 200):
            listed += client.status(asked[start : start + 200])["attempts"]
        return listed

    def _done(self, status: Mapping[str, Any]) -> bool:
        known = self.book.find(str(status.get("attempt")))
        return known is not None and not self._open(known)

    def _open(self, known: Known) -> bool:
        """Tell whether something of a known attempt is still to be done; what was adopted, no host can be asked for."""
        if known.attempt.startswith(ADOPTED):
            return False
        done = known.path and known.judged and known.acked and known.state is not AttemptState.HELD
        return not done or not self._here(known)

    def _here(self, known: Known) -> bool:
        return known.path is not None and (self.book.directory(known.batch) / known.path / "fleet.json").is_file()

    def _one(
        self, host: Host, client: AgentClient, transport: Transport, status: Mapping[str, Any], code: Code
    ) -> Result | None:
        attempt = status.get("attempt")
        if not is_name(attempt):
            return Result(Got.FAILED, host.name, error=f"an attempt is named {visible(str(attempt), 80)!r}", code="protocol")
        assert isinstance(attempt, str)
        known = self.book.find(attempt)
        if known is not None and known.host != host.name:
            said = f"{host.name} claims attempt {attempt}, which was given to {known.host}"
            return Result(Got.FAILED, host.name, known.batch, known.task.label, attempt, error=said, bit=Exit.SAFETY)
        try:
            item = self._item(host, attempt, status, known)
        except InputError as error:
            return replace(failed(Got.FAILED, error, host=host.name, attempt=attempt), bit=Exit.INCOMPLETE)
        if item is None:
            return None
        where: dict[str, Any] = {"host": host.name, "batch": item.batch, "task": item.task.label, "attempt": attempt}
        state = state_of(status)
        if known is not None and known.path and not self._here(known) and not self.again:
            hint = f"to bring it again: fleet collect {item.batch} --again"
            return Result(Got.GONE, path=f"{item.batch}/{known.path}", hint=hint, **where)
        if state not in _ENDED:
            return self._not_ended(state, status, known, where)
        try:
            row = self._bring(item, client, transport, status, known, code, where)
            return _still_held(row, status) if state is AttemptState.HELD else row
        except StorageError:
            raise
        except AgentError as error:
            return failed(Got.LATER if error.code == "busy" else Got.FAILED, error, **where)
        except InputError as error:
            return replace(failed(Got.FAILED, error, **where), bit=Exit.INCOMPLETE)
        except FleetError as error:
            # Not journaled: the next try, by this command or a controller, starts with a clean count of failures.
            result = failed(Got.FAILED, error, **where)
            if isinstance(error, TransportError) and not transport.alive(10.0):
                return replace(result, code="lost-link")
            return result

    def _item(self, host: Host, attempt: str, status: Mapping[str, Any], known: Known | None) -> Item | None:
        """Return which task the attempt is of, or None when it was not asked for."""
        if known is not None:
            item = Item(known.batch, known.task, known.number, known.pipeline or host.pipeline)
        elif state_of(status) is AttemptState.UNKNOWN:
            return None
        else:
            item = self._foreign(host, attempt, status)
        if self.batch not in (None, item.batch) or (self.instances and item.task.key.instance_id not in self.instances):
            return None
        return item

    def _foreign(self, host: Host, attempt: str, status: Mapping[str, Any]) -> Item:
        """Return the task of an attempt that no journal here knows; every name is checked, it becomes a path."""
        named = status.get("batch")
        batch = named if isinstance(named, str) and is_name(named) else UNKNOWN_BATCH
        key = key_of(status.get("key"))
        if key is None:
            raise InputError(f"{host.name}: attempt {attempt} names no valid task")
        task = self.book.task(batch, key.label)
        if task is None or task.key != key:
            task = Task(key=key, dataset_file=Path(), place=host.name, hosts=(host.name,))
        pipeline = status.get("pipeline")
        name = pipeline if isinstance(pipeline, str) and is_name(pipeline) else host.pipeline
        return Item(batch, task, self._number(batch, task, attempt), name)

    def _number(self, batch: str, task: Task, attempt: str) -> int:
        task_dir = self.book.directory(batch) / task.label
        return find_result(task_dir, attempt) or free_number(task_dir, self.book.floor(batch, task.label))

    def _not_ended(self, state: AttemptState, status: Mapping[str, Any], known: Known | None, where: dict[str, Any]) -> Result:
        reason = visible(str(status.get("reason") or ""), 300)
        if state is AttemptState.UNKNOWN:
            if known is not None and known.state is AttemptState.UNKNOWN and known.epoch is None:
                return Result(Got.NOT_STARTED, error="the launch never reached the host", **where)
            return Result(Got.UNKNOWN, error=reason, hint=f"fleet why {where['task']} --batch {where['batch']}", **where)
        return Result(Got.NOT_STARTED if state is AttemptState.ACCEPTED else Got.RUNNING, error=reason, **where)

    def _bring(
        self,
        item: Item,
        client: AgentClient,
        transport: Transport,
        status: Mapping[str, Any],
        known: Known | None,
        code: Code,
        where: dict[str, Any],
    ) -> Result:
        pipeline = self.pipeline(item.pipeline)
        dataset = dataset_of(item.task)
        facts = task_facts(item.task, dataset, batch=item.batch)
        batch_dir = self.book.directory(item.batch)
        while True:
            ref = item.ref(where["attempt"], where["host"])
            try:
                if existing_result(ref, batch_dir) is None:
                    facts = facts | code(item.pipeline)
                got = collect_attempt(client, transport, attempt=ref, batch_dir=batch_dir, pipeline=pipeline, provenance=facts)
                break
            except NumberTaken:
                if known is not None:
                    raise
                # Another collector gave the number to another attempt since we looked.
                item = replace(item, number=self._number(item.batch, item.task, ref.attempt_id))
        verdict = judge_here(got, item.task, dataset, pipeline)
        records = (*news_records(ref.attempt_id, status, known), *result_records(ref.attempt_id, got, verdict))
        noted = known is not None or self.book.introduce(item.batch, item.task, ref, records)
        if known is not None:
            self.book.append(item.batch, *records)
        row = collected_row(Got.ALREADY if got.already else Got.COLLECTED, got, verdict, **where)
        try:
            self._ack(client, item.batch, status, known, verdict, noted=noted)
        except (AgentError, TransportError) as error:
            note = f"the result is here, but the host could not be told: {error.message}"
            return replace(row, error=note, hint="again: fleet collect", bit=row.exit | Exit.INCOMPLETE)
        return row

    def _ack(
        self,
        client: AgentClient,
        batch: str,
        status: Mapping[str, Any],
        known: Known | None,
        verdict: Verdict,
        *,
        noted: bool,
    ) -> None:
        attempt, epoch = str(status["attempt"]), status.get("epoch")
        if not status.get("acked"):
            client.ack(attempt, epoch if isinstance(epoch, int) else None, ack_word(status, verdict))
        if noted and not (known and known.acked):
            self.book.append(batch, AttemptAcked(attempt=attempt))


def _still_held(row: Result, status: Mapping[str, Any]) -> Result:
    """Return the row of a result that is here while something of its attempt lives on."""
    reason = visible(str(status.get("reason") or ""), 300)
    return replace(row, error=reason, hint=f"fleet cancel {row.task} --batch {row.batch}", bit=row.exit | Exit.INCOMPLETE)


@dataclass(frozen=True)
class Item:
    """One attempt to be collected."""

    batch: str
    task: Task
    number: int
    pipeline: str

    def ref(self, attempt: str, host: str) -> AttemptRef:
        """Return where its result belongs."""
        key = self.task.key
        return AttemptRef(attempt, key.instance_id, key.model, key.run, self.number, host)
