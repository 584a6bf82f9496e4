"""Bring back everything that has ended on one host and is not here yet, whoever started it.

No lock of the batch is needed: results are published by an exclusive rename, journal records are facts that may be
written twice, and an acknowledgement only says that a verified copy exists. So a sweep may run beside a controller, and
the same sweep again finds nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from fleet.collect.outcome import Got, Result, failed
from fleet.collect.places import find_result, free_number
from fleet.collect.provenance import task_facts
from fleet.collect.pull import AttemptRef, Collected, collect_attempt
from fleet.errors import AgentError, FleetError, InputError, StorageError, TransportError
from fleet.model.dataset import Dataset, read_dataset
from fleet.model.exitcodes import Exit
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline
from fleet.model.records import (
    AnyRecord,
    AttemptAcked,
    AttemptObserved,
    AttemptStarted,
    CollectFailed,
    ResultCollected,
    ResultJudged,
)
from fleet.model.states import AttemptState
from fleet.model.tasks import Task, TaskKey
from fleet.model.verdict import Verdict
from fleet.quality import Expected, judge, write_verdict

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.model.hosts import Host
    from fleet.transport import Transport

UNKNOWN_BATCH = "unknown"
"""Where results go whose host names no valid batch."""
_ENDED = frozenset({AttemptState.FINISHED, AttemptState.LOST})


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

    def floor(self, batch: str, label: str) -> int:
        """Return the first attempt number that no journal has given for the task."""

    def introduce(self, batch: str, task: Task, ref: AttemptRef, pipeline: str) -> bool:
        """Note an attempt that another controller started; False when the batch has no place for it."""

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
        results = []
        for status in self._statuses(host, client):
            result = self._one(host, client, transport, status)
            if result is None:
                continue
            on_result(result)
            results.append(result)
            if result.code == "lost-link":
                break
        return results

    def _statuses(self, host: Host, client: AgentClient) -> list[Mapping[str, Any]]:
        listed = [one for one in client.status().get("attempts") or [] if isinstance(one, dict)]
        seen = {one.get("attempt") for one in listed}
        known = [one for one in self.book.on_host(host.name) if self.batch in (None, one.batch)]
        asked = [one.attempt for one in known if one.attempt not in seen and self._open(one)]
        for start in range(0, len(asked), 200):
            answer = client.status(asked[start : start + 200])
            listed += [one for one in answer.get("attempts") or [] if isinstance(one, dict)]
        return listed

    def _open(self, known: Known) -> bool:
        """Tell whether something of a known attempt is still to be done."""
        return not (known.path and known.judged and known.acked) or not self._here(known)

    def _here(self, known: Known) -> bool:
        return known.path is not None and (self.book.directory(known.batch) / known.path / "fleet.json").is_file()

    def _one(self, host: Host, client: AgentClient, transport: Transport, status: Mapping[str, Any]) -> Result | None:
        attempt = status.get("attempt")
        if not is_name(attempt):
            return Result(Got.FAILED, host.name, error=f"an attempt is named {visible(str(attempt), 80)!r}", code="protocol")
        assert isinstance(attempt, str)
        known = self.book.find(attempt)
        try:
            item = self._item(host, attempt, status, known)
        except InputError as error:
            return failed(Got.FAILED, error, host=host.name, attempt=attempt)
        if item is None:
            return None
        where: dict[str, Any] = {"host": host.name, "batch": item.batch, "task": item.task.label, "attempt": attempt}
        state = _state(status)
        if known is not None and known.path and not self._here(known) and not self.again:
            hint = f"to bring it again: fleet collect {item.batch} --again"
            return Result(Got.GONE, path=f"{item.batch}/{known.path}", hint=hint, **where)
        if state not in _ENDED:
            return self._not_ended(state, status, known, where)
        try:
            return self._bring(item, client, transport, status, known, where)
        except StorageError:
            raise
        except AgentError as error:
            return failed(Got.LATER if error.code == "busy" else Got.FAILED, error, **where)
        except FleetError as error:
            if known is not None:
                self.book.append(item.batch, CollectFailed(attempt=attempt, reason=error.message))
            result = failed(Got.FAILED, error, **where)
            if isinstance(error, TransportError) and not transport.alive(10.0):
                return replace(result, code="lost-link")
            return result

    def _item(self, host: Host, attempt: str, status: Mapping[str, Any], known: Known | None) -> Item | None:
        """Return which task the attempt is of, or None when it was not asked for."""
        if known is not None:
            item = Item(known.batch, known.task, known.number, known.pipeline)
        elif _state(status) is AttemptState.UNKNOWN:
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
        key = _key(status.get("key"))
        if key is None:
            raise InputError(f"{host.name}: attempt {attempt} names no valid task")
        task = Task(key=key, dataset_file=Path(), place=host.name, hosts=(host.name,))
        pipeline = status.get("pipeline")
        name = pipeline if isinstance(pipeline, str) and is_name(pipeline) else host.pipeline
        task_dir = self.book.directory(batch) / key.label
        number = find_result(task_dir, attempt) or free_number(task_dir, self.book.floor(batch, key.label))
        return Item(batch, task, number, name)

    def _not_ended(self, state: AttemptState, status: Mapping[str, Any], known: Known | None, where: dict[str, Any]) -> Result:
        reason = visible(str(status.get("reason") or ""), 300)
        if state is AttemptState.UNKNOWN:
            if known is not None and known.state is AttemptState.UNKNOWN and known.epoch is None:
                return Result(Got.NOT_STARTED, error="the launch never reached the host", **where)
            return Result(Got.UNKNOWN, error=reason, hint=f"fleet why {where['task']}", **where)
        if state is AttemptState.HELD:
            return Result(Got.HELD, error=reason, hint=f"fleet cancel {where['task']}", **where)
        return Result(Got.NOT_STARTED if state is AttemptState.ACCEPTED else Got.RUNNING, error=reason, **where)

    def _bring(
        self,
        item: Item,
        client: AgentClient,
        transport: Transport,
        status: Mapping[str, Any],
        known: Known | None,
        where: dict[str, Any],
    ) -> Result:
        batch_dir = self.book.directory(item.batch)
        ref = item.ref(where["attempt"], where["host"])
        pipeline = self.pipeline(item.pipeline)
        dataset = dataset_of(item.task)
        facts = task_facts(item.task, dataset, batch=item.batch)
        got = collect_attempt(client, transport, attempt=ref, batch_dir=batch_dir, pipeline=pipeline, provenance=facts)
        verdict = judge_here(got, item.task, dataset, pipeline)
        noted = known is not None or self.book.introduce(item.batch, item.task, ref, item.pipeline)
        if noted:
            self.book.append(
                item.batch, *_observed(ref.attempt_id, status, known), *result_records(ref.attempt_id, got, verdict)
            )
        row = collected_row(Got.ALREADY if got.already else Got.COLLECTED, item.batch, got, verdict, **where)
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
            client.ack(attempt, epoch if isinstance(epoch, int) else None, _ack_word(status, verdict))
        if noted and not (known and known.acked):
            self.book.append(batch, AttemptAcked(attempt=attempt))


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


def dataset_of(task: Task) -> Dataset | None:
    """Return the task's dataset when the file is here and still the one that was run."""
    try:
        dataset = read_dataset(task.dataset_file.read_bytes(), str(task.dataset_file))
    except (OSError, InputError):
        return None
    return dataset if task.key.dataset_sha256 in ("", dataset.sha256) else None


def judge_here(got: Collected, task: Task, dataset: Dataset | None, pipeline: Pipeline) -> Verdict:
    """Return the verdict on a collected result and write it beside the result."""
    expected = Expected(
        instance_id=task.key.instance_id,
        model=task.key.model,
        fail_to_pass=dataset.fail_to_pass if dataset else (),
        pass_to_pass=dataset.pass_to_pass if dataset else (),
    )
    verdict = judge(got.path, expected, pipeline.quality)
    if not (got.path / "verdict.json").exists():
        write_verdict(got.path, verdict)
    return verdict


def result_records(attempt: str, got: Collected, verdict: Verdict) -> tuple[AnyRecord, ...]:
    """Return what the journal keeps of a collected and judged result."""
    return (
        ResultCollected(attempt=attempt, path=got.relative, files=got.files, bytes=got.bytes),
        ResultJudged(
            attempt=attempt, verdict=verdict.verdict, cause=verdict.cause, reasons=verdict.reasons, facts=verdict.facts
        ),
    )


def collected_row(kind: Got, batch: str, got: Collected, verdict: Verdict, **where: Any) -> Result:
    """Return the row of a result that is here."""
    where["batch"] = batch
    return Result(
        kind,
        path=f"{batch}/{got.relative}",
        files=got.files,
        bytes=got.bytes,
        seconds=round(got.seconds, 3),
        verdict=verdict.verdict,
        cause=verdict.cause,
        reasons=tuple(reason.code for reason in verdict.reasons if reason.severity != "info"),
        findings=got.findings,
        **where,
    )


def _observed(attempt: str, status: Mapping[str, Any], known: Known | None) -> tuple[AnyRecord, ...]:
    """Return the host's news of an attempt that the journal has not got yet."""
    records: list[AnyRecord] = []
    state, epoch = _state(status), status.get("epoch")
    if (known is None or known.epoch is None) and isinstance(epoch, int) and status.get("started_at"):
        records.append(
            AttemptStarted(
                attempt=attempt,
                epoch=epoch,
                boot_id=visible(str(status.get("boot_id") or ""), 64),
                started_at=visible(str(status.get("started_at") or ""), 64),
            )
        )
    if known is None or known.state is not state:
        rc, elapsed = status.get("rc"), status.get("elapsed_s")
        records.append(
            AttemptObserved(
                attempt=attempt,
                state=state,
                reason=visible(str(status.get("reason") or ""), 500),
                rc=rc if isinstance(rc, int) else None,
                timed_out=status.get("timed_out") is True,
                cancelled=status.get("cancelled") is True,
                elapsed_s=float(elapsed) if isinstance(elapsed, int | float) else None,
            )
        )
    return tuple(records)


def _ack_word(status: Mapping[str, Any], verdict: Verdict) -> str:
    if _state(status) is AttemptState.LOST:
        return "lost"
    return "cancelled" if status.get("cancelled") is True else str(verdict.verdict)


def _state(status: Mapping[str, Any]) -> AttemptState:
    try:
        return AttemptState(status.get("state"))
    except ValueError:
        return AttemptState.UNKNOWN


def _key(value: object) -> TaskKey | None:
    if not isinstance(value, dict):
        return None
    run, sha = value.get("run", 1), value.get("dataset_sha256", "")
    names = is_name(value.get("instance_id")) and is_name(value.get("model"))
    if not names or type(run) is not int or not 1 <= run <= 10_000 or not isinstance(sha, str) or len(sha) > 64:
        return None
    return TaskKey(instance_id=value["instance_id"], model=value["model"], run=run, dataset_sha256=visible(sha))
