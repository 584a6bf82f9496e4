"""What is known of an attempt without a journal: what hosts claim, what is collected here, what an old journal still says.

Everything from a host is checked before it is believed: names become paths, times are shown, states move tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.agent.status import observed_record, started_record, state_of
from fleet.collect.judged import key_of
from fleet.collect.provenance import Provenance
from fleet.model.names import is_name
from fleet.model.records import (
    AnyRecord,
    AttemptAcked,
    AttemptAdopted,
    AttemptIntended,
    AttemptMoving,
    AttemptObserved,
    AttemptRefused,
    AttemptStalled,
    AttemptStarted,
    CancelOrdered,
    CollectFailed,
    ResultCollected,
    ResultJudged,
)
from fleet.model.states import AttemptState
from fleet.model.tasks import TaskKey
from fleet.model.verdict import Verdict

_BEGUN = frozenset({AttemptState.STARTING, AttemptState.RUNNING, AttemptState.FINISHED, AttemptState.LOST, AttemptState.HELD})
_OVER = frozenset({AttemptState.FINISHED, AttemptState.LOST})
_VOID = frozenset({"rejected", "lost", "cancelled"})
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z\Z")
# A record's place in the life of an attempt; the order within a place is that of the journal.
_PHASES: dict[type[Any], int] = {
    AttemptIntended: 0,
    CancelOrdered: 1,
    AttemptRefused: 2,
    AttemptStarted: 3,
    AttemptAdopted: 3,
    AttemptObserved: 4,
    AttemptStalled: 4,
    AttemptMoving: 4,
    CollectFailed: 5,
    ResultCollected: 6,
    ResultJudged: 7,
    AttemptAcked: 8,
}


@dataclass(frozen=True)
class Claim:
    """What a host says of one attempt that it has taken."""

    host: str
    attempt: str
    key: TaskKey
    batch: str
    state: AttemptState
    acked: bool
    verdict: str
    """What a controller said of the attempt when it acknowledged it; empty when none has."""
    accepted_at: str
    status: Mapping[str, Any]

    @property
    def begun(self) -> bool:
        """Whether the host has started it, or is about to."""
        return self.state in _BEGUN

    @property
    def withdrawn(self) -> bool:
        """Whether the host has promised never to start it."""
        return self.status.get("state") == "refused"

    @property
    def void(self) -> bool:
        """Whether a controller said that the attempt does not count."""
        return self.verdict in _VOID


@dataclass(frozen=True)
class Here:
    """A collected result; `damage` says how its files differ from the host's manifest, empty when they are the same."""

    attempt: str
    key: TaskKey
    host: str
    number: int
    path: str
    """Relative to the batch directory."""
    provenance: Provenance
    files: int = 0
    bytes: int = 0
    verdict: Verdict | None = None
    damage: str = ""


def claims_of(host: str, answer: Mapping[str, Any]) -> tuple[list[Claim], str]:
    """Return what a host claims, and why its answer leaves something open, if it does."""
    listed = answer.get("attempts")
    if not isinstance(listed, list):
        return [], "its answer has no list of attempts"
    found, unclear = [], 0
    for status in listed:
        claim = _claim(host, status) if isinstance(status, dict) else None
        if claim is not None:
            found.append(claim)
        elif isinstance(status, dict) and state_of(status) in _BEGUN:
            unclear += 1
    return found, f"it cannot say of {unclear} attempts which task they are of" if unclear else ""


def _claim(host: str, status: dict[str, Any]) -> Claim | None:
    attempt, key, batch, verdict = status.get("attempt"), key_of(status.get("key")), status.get("batch"), status.get("verdict")
    if not isinstance(attempt, str) or not is_name(attempt) or key is None:
        return None
    return Claim(
        host=host,
        attempt=attempt,
        key=key,
        batch=batch if isinstance(batch, str) else "",
        state=state_of(status),
        acked=status.get("acked") is True,
        verdict=verdict if isinstance(verdict, str) else "",
        accepted_at=moment(status.get("accepted_at")),
        status=status,
    )


def moment(value: object, otherwise: str = "") -> str:
    """Return a foreign time when it looks like one of ours."""
    return value if isinstance(value, str) and _MOMENT.match(value) else otherwise


@dataclass
class Dossier:
    """Everything known of one attempt, from all sources."""

    attempt: str
    task: str
    host: str
    number: int | None = None
    index: int | None = None
    """Where the old journal announces it; None when it does not."""
    records: list[AnyRecord] = field(default_factory=list)
    """What the old journal says of it, in order."""
    claim: Claim | None = None
    here: Here | None = None
    followed: bool = False
    """Whether another controller started it, and this batch only follows it."""
    followed_by_another: bool = False
    """Whether another eval runs on its host now."""

    @property
    def begun(self) -> bool:
        """Whether anybody says that its eval was started."""
        if self.here is not None or (self.claim is not None and self.claim.begun):
            return True
        return any(isinstance(one, AttemptStarted | ResultCollected | ResultJudged) for one in self.records) or any(
            isinstance(one, AttemptObserved) and one.state in _BEGUN for one in self.records
        )

    @property
    def place(self) -> int:
        """Its place in the old journal, -1 when that does not announce it."""
        return -1 if self.index is None else self.index

    @property
    def refused(self) -> bool:
        """Whether its host is known to have refused it."""
        return not self.begun and self._has(AttemptRefused)

    @property
    def when(self) -> str:
        """When it was taken, as far as that is known."""
        return next((one.t for one in self.records if one.t), "") or (self.claim.accepted_at if self.claim else "")

    def story(self, now: str) -> list[AnyRecord]:
        """Return the records of the attempt: those that were kept, and between them those that the evidence stands for."""
        told = [one for one in self.records if not (self.begun and isinstance(one, AttemptRefused))]
        if not any(isinstance(one, AttemptIntended) for one in told):
            at = self.when or now
            told.append(AttemptIntended(t=at, task=self.task, host=self.host, attempt=self.attempt, number=self.number or 1))
        else:
            told = [self._announced(one) if isinstance(one, AttemptIntended) else one for one in told]
        if self.begun:
            told += [one if one.t else one.model_copy(update={"t": now}) for one in self._news(now)]
        if self.followed:
            told = [_adopted(one) if isinstance(one, AttemptStarted) else one for one in told]
        return sorted(told, key=lambda one: _PHASES[type(one)])

    def _announced(self, record: AttemptIntended) -> AttemptIntended:
        return record.model_copy(update={"host": self.host, "number": self.number or record.number})

    def _news(self, now: str) -> list[AnyRecord]:
        """Return what hosts and files say and the old journal does not."""
        news: list[AnyRecord] = []
        status = self._status()
        if not self._has(AttemptStarted):
            started = started_record(self.attempt, status)
            news.append(started.model_copy(update={"t": moment(status.get("started_at"), self.when or now)}))
        seen = [one.state for one in self.records if isinstance(one, AttemptObserved)]
        state = self._state(status)
        if state in _BEGUN and state not in seen and not set(seen) & _OVER and state is not AttemptState.STARTING:
            observed = observed_record(self.attempt, status, state)
            news.append(observed.model_copy(update={"t": moment(status.get("finished_at"), now)}))
        here = self.here
        if here is not None and not here.damage:
            at = moment(here.provenance.collected_at, now)
            if not any(isinstance(one, ResultCollected) and one.path == here.path for one in self.records):
                news.append(ResultCollected(t=at, attempt=self.attempt, path=here.path, files=here.files, bytes=here.bytes))
            if here.verdict is not None and not self._has(ResultJudged):
                news.append(_judged(self.attempt, here.verdict, at))
        if self.claim is not None and self.claim.acked and not self._has(AttemptAcked) and self._judged_here:
            news.append(AttemptAcked(attempt=self.attempt))
        return news

    @property
    def _judged_here(self) -> bool:
        return self._has(ResultJudged) or (self.here is not None and not self.here.damage and self.here.verdict is not None)

    def _status(self) -> Mapping[str, Any]:
        if self.claim is not None:
            return self.claim.status
        return {} if self.here is None else self.here.provenance.model_dump()

    def _state(self, status: Mapping[str, Any]) -> AttemptState:
        """Return the state in the evidence; while its outputs are being sealed, an attempt still runs, for a controller."""
        if self.claim is None:
            if self.here is None:
                return AttemptState.UNKNOWN
            return AttemptState.LOST if self.here.provenance.state == "lost" else AttemptState.FINISHED
        sealed = status.get("sealed") is True or self.claim.acked or self.followed_by_another
        if self.claim.state is AttemptState.FINISHED and not sealed:
            return AttemptState.RUNNING
        return self.claim.state

    def _has(self, kind: type[Any]) -> bool:
        return any(isinstance(one, kind) for one in self.records)


def _adopted(record: AttemptStarted) -> AttemptAdopted:
    """Return the start of an attempt as that of another controller's, which is not this batch's to end."""
    return AttemptAdopted(
        t=record.t, intended=record.attempt, attempt=record.attempt, epoch=record.epoch, boot_id=record.boot_id
    )


def _judged(attempt: str, verdict: Verdict, at: str) -> ResultJudged:
    return ResultJudged(
        t=at, attempt=attempt, verdict=verdict.verdict, cause=verdict.cause, reasons=verdict.reasons, facts=verdict.facts
    )
