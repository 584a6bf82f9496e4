"""All that is known of a batch, sorted by attempt: old records, results and hosts' claims become dossiers.

Where sources contradict each other, the host that an attempt was given to is believed before any other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.dispatch.recovery.evidence import Claim, Dossier, Here
from fleet.dispatch.recovery.orders import Orders
from fleet.model.records import AnyRecord, AttemptAdopted, AttemptIntended, AttemptStarted, BatchOpened
from fleet.model.states import AttemptState, Link
from fleet.model.tasks import Task, TaskKey


@dataclass(frozen=True)
class Silent:
    """Why a host could not be asked."""

    link: Link
    error: str


@dataclass(frozen=True)
class Sources:
    """Everything a journal is rebuilt from."""

    opening: BatchOpened
    """The batch as its assignment says it is now."""
    records: Sequence[AnyRecord] = ()
    """What the old journal still says."""
    claims: Mapping[str, Sequence[Claim]] = field(default_factory=dict)
    """Host → the attempts that it has taken; of every host that answered."""
    silent: Mapping[str, Silent] = field(default_factory=dict)
    """Hosts that gave no answer, or none that can be relied on."""
    results: Sequence[Here] = ()
    uids: Mapping[str, str] = field(default_factory=dict)
    """Host → its identity, of hosts that answered."""
    damaged: str = ""
    """The name under which the old journal is kept."""
    now: str = ""


class Casebook:
    """The dossiers of one batch."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.tasks: dict[str, Task] = {task.label: task for task in sources.opening.tasks}
        self.dossiers: dict[str, Dossier] = {}
        self.loose: dict[str, list[AnyRecord]] = defaultdict(list)
        """Records of attempts that the old journal does not announce any more."""
        self.strays: dict[str, str] = {}
        """Task → a host that claims it and was not given it."""
        self.notes: list[str] = []
        self.orders = Orders(sources.records)

    def read(self) -> None:
        """Take in everything, and give every attempt its number."""
        self._read_records()
        self._read_results()
        self._read_claims()
        self._number()

    def _read_records(self) -> None:
        for index, record in enumerate(self.sources.records):
            if isinstance(record, AttemptIntended):
                if record.task in self.tasks:
                    known = self.dossiers.setdefault(
                        record.attempt, Dossier(record.attempt, record.task, record.host, record.number, index)
                    )
                    known.records.append(record)
            elif isinstance(record, AttemptAdopted):
                self._adopt(record)
            else:
                attempt = getattr(record, "attempt", None)
                if isinstance(attempt, str) and attempt:
                    home = self.dossiers.get(attempt)
                    (self.loose[attempt] if home is None else home.records).append(record)

    def _adopt(self, record: AttemptAdopted) -> None:
        """Let the attempt that the host had take the place of the intended one."""
        intended = self.dossiers.get(record.intended)
        known = self.dossiers.get(record.attempt)
        started = AttemptStarted(
            t=record.t, attempt=record.attempt, epoch=record.epoch, boot_id=record.boot_id, started_at=record.t
        )
        if intended is None or (known is not None and (known.task, known.host) != (intended.task, intended.host)):
            self.loose[record.attempt].append(started)
            return
        if known is None:
            known = Dossier(record.attempt, intended.task, intended.host, intended.number, intended.index)
            self.dossiers[record.attempt] = known
        if known is not intended:
            del self.dossiers[record.intended]
        known.followed = True
        known.records.append(started)

    def _read_results(self) -> None:
        for here in self.sources.results:
            known = self.dossiers.get(here.attempt)
            if known is None:
                if not self._is_task(here.key):
                    self.notes.append(f"{here.path}: is of a task that the assignment does not name; left out")
                    continue
                known = self._open(here.attempt, here.key.label, here.host)
            if known.task == here.key.label:
                known.here, known.number = here, here.number

    def _read_claims(self) -> None:
        claims = [claim for found in self.sources.claims.values() for claim in found]
        # The host that an attempt was given to is believed first: another one may not take it over by naming it.
        claims.sort(key=lambda claim: claim.attempt not in self.dossiers or self.dossiers[claim.attempt].host != claim.host)
        elsewhere: list[Claim] = []
        for claim in claims:
            known = self.dossiers.get(claim.attempt)
            if known is not None:
                self._match(known, claim)
            elif claim.withdrawn:
                continue
            elif not self._is_task(claim.key):
                if claim.batch == self.sources.opening.batch and claim.key.label not in self.tasks:
                    self.notes.append(
                        f"{claim.host}: {claim.attempt} is of {claim.key.label}, which the assignment does not name"
                    )
            elif claim.batch != self.sources.opening.batch and claim.attempt not in self.loose:
                elsewhere.append(claim)
            elif claim.host in self.tasks[claim.key.label].hosts:
                self._give(self._open(claim.attempt, claim.key.label, claim.host), claim)
            else:
                self.strays[claim.key.label] = claim.host
        begun = {one.task for one in self.dossiers.values() if one.begun}
        for claim in elsewhere:
            # What the host would hand over at a launch is taken now: on a shared queue the launch may go to another host.
            label = claim.key.label
            if claim.begun and not claim.void and label not in begun and claim.host in self.tasks[label].hosts:
                theirs = self._open(claim.attempt, label, claim.host)
                theirs.followed = True
                self._give(theirs, claim)
                self.notes.append(
                    f"{label}: followed is attempt {claim.attempt} on {claim.host}, of batch {claim.batch or '?'}"
                )
                begun.add(label)

    def _match(self, known: Dossier, claim: Claim) -> None:
        taken = known.claim is not None or (known.host != claim.host and known.host in self.sources.silent and known.begun)
        if known.task != claim.key.label or taken:
            said = f"{claim.host} claims attempt {claim.attempt}, which is {known.task} on {known.host}; not believed"
            self.notes.append(said)
            return
        self._give(known, claim)

    def _give(self, dossier: Dossier, claim: Claim) -> None:
        running = (AttemptState.STARTING, AttemptState.RUNNING)
        others = self.sources.claims[claim.host]
        dossier.claim, dossier.host = claim, claim.host
        dossier.followed_by_another = any(one.state in running and one is not claim for one in others)

    def _is_task(self, key: TaskKey) -> bool:
        task = self.tasks.get(key.label)
        return task is not None and (task.key == key or "" in (task.key.dataset_sha256, key.dataset_sha256))

    def _open(self, attempt: str, label: str, host: str) -> Dossier:
        dossier = Dossier(attempt, label, host, records=self.loose.pop(attempt, []))
        self.dossiers[attempt] = dossier
        return dossier

    def _number(self) -> None:
        """Give the attempts without a number the free ones, in the order in which they were taken."""
        for label in self.tasks:
            own = [one for one in self.dossiers.values() if one.task == label]
            taken = {one.number for one in own if one.begun}
            for one in sorted((one for one in own if one.number is None), key=lambda one: (not one.begun, one.when)):
                one.number = next(number for number in range(1, len(taken) + 2) if number not in taken)
                taken.add(one.number)
