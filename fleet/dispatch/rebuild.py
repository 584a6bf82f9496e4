"""A new journal from evidence, decided purely: (tasks, old records, hosts' claims, results here) → records.

What is known counts, from wherever it is known; what is not known is never taken for "nothing happened":

    an attempt that anybody says was started        is in the new journal, and its task with it
    an attempt that its host has not got            is sent again under the same id, unless the task went on since
    a task without either                           waits for its turn, or
    … and a host that may run it gave no answer     is held until that host has answered
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet.dispatch.evidence import Claim, Dossier, Here
from fleet.dispatch.orders import Orders
from fleet.dispatch.retries import allowance
from fleet.dispatch.state import apply, replay
from fleet.dispatch.views import BatchState, TaskView
from fleet.dispatch.waiting import WAITING
from fleet.model.failures import FailureClass
from fleet.model.records import (
    AnyRecord,
    AttemptAdopted,
    AttemptIntended,
    AttemptRefused,
    AttemptStarted,
    BatchHalted,
    BatchOpened,
    ControllerLeft,
    HostChecked,
    HostQuarantined,
    HostReleased,
    JournalRecovered,
    LinkChanged,
    QuarantineTold,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import RETRYABLE, TERMINAL, AttemptState, Link, TaskState
from fleet.model.tasks import Task, TaskKey
from fleet.model.verdict import Outcome

_WENT_ON = "the host never took it, and the task went on"


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


@dataclass(frozen=True)
class Rebuilt:
    """The new journal, and what must be said about it."""

    records: tuple[AnyRecord, ...]
    state: BatchState
    held: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Told:
    """An attempt with its records."""

    dossier: Dossier
    story: list[AnyRecord]


def rebuild(sources: Sources) -> Rebuilt:
    """Return the journal that all evidence adds up to."""
    return _Rebuild(sources).run()


class _Rebuild:
    """One rebuilding; the files of the case are its dossiers."""

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

    def run(self) -> Rebuilt:
        self._read_records()
        self._read_results()
        self._read_claims()
        self._number()
        records = self._head() + self._attempts() + self._of_hosts()
        state = replay(records)
        held = self._held(state)
        last = JournalRecovered(
            t=self.sources.now,
            damaged=self.sources.damaged,
            unanswered=tuple(self.sources.silent),
            host_uids=dict(self.sources.uids),
            held=held,
        )
        state = apply(state, last)
        left = ControllerLeft(t=self.sources.now, why="done" if state.complete and not held else "incomplete")
        return Rebuilt((*records, last, left), apply(state, left), held, tuple(self.notes))

    # --- evidence in ---

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
        del self.dossiers[record.intended]
        if known is None:
            known = Dossier(record.attempt, intended.task, intended.host, intended.number, intended.index)
            self.dossiers[record.attempt] = known
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
                self._give(self._open(claim.attempt, label, claim.host), claim)
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

    # --- records out ---

    def _head(self) -> list[AnyRecord]:
        opening, old = self.sources.opening, self.sources.records
        first = min((one.t for one in old if one.t), default=opening.t or self.sources.now)
        hosts = dict.fromkeys((one.host for one in self.dossiers.values()), "") | dict(opening.hosts)
        head: list[AnyRecord] = [opening.model_copy(update={"t": first, "hosts": hosts})]
        reports = {one.report.host: one for one in old if isinstance(one, HostChecked)}
        head += reports.values()
        for name in hosts:
            silent = self.sources.silent.get(name)
            link, error = (silent.link, silent.error) if silent else (Link.OK, "")
            if silent or name in self.sources.claims:
                head.append(LinkChanged(t=self.sources.now, host=name, link=link, error=error))
        latest = [one for one in old if isinstance(one, BatchOpened | BatchHalted)][-1:]
        return head + [one for one in latest if isinstance(one, BatchHalted)]

    def _of_hosts(self) -> list[AnyRecord]:
        """Return what was decided about hosts, without the attempts that nobody knows of any more."""
        kept: list[AnyRecord] = []
        for one in self.sources.records:
            if isinstance(one, HostQuarantined):
                known = tuple(attempt for attempt in one.attempts if attempt in self.dossiers)
                kept.append(one.model_copy(update={"attempts": known}))
            elif isinstance(one, QuarantineTold | HostReleased):
                kept.append(one)
        return kept

    def _attempts(self) -> list[AnyRecord]:
        """Return the attempts' records: first what has ended, then what a controller has to see to."""
        ended: list[AnyRecord] = []
        open_: list[Told] = []
        after: list[AnyRecord] = []
        by_task: dict[str, list[Dossier]] = defaultdict(list)
        for one in self.dossiers.values():
            by_task[one.task].append(one)
        for label in self.tasks:
            own = sorted(by_task[label], key=lambda one: (one.number or 0, one.place))
            ended += self.orders.before(label)
            told = [Told(dossier, self._story(dossier, own)) for dossier in own]
            passed = [each for each in told if self._passed_over(each.dossier, own)]
            for each in passed:
                ended += self._refused(each)
            still = []
            begun = [one.attempt for one in own if one.begun]
            for each in told:
                if each in passed:
                    continue
                view = self._alone(each)
                if each.dossier.refused or view.state in TERMINAL:
                    order = self.orders.following(label, each.dossier.attempt)
                    ended += [*each.story, *(order or self._lost_order(view, begun))]
                else:
                    still.append(each)
            open_ += sorted(still, key=self._precedence)
            after += self.orders.after(label)
        return ended + [record for each in self._one_per_host(open_) for record in each.story] + after

    def _lost_order(self, view: TaskView, begun: Sequence[str]) -> list[AnyRecord]:
        """Return the order of the attempt that followed; where nobody can say whose it was, the policy's count has it."""
        label, failure = view.task.label, view.failure
        if failure is None or view.attempt not in begun[:-1]:
            return []
        allowed, together = allowance(view.task, failure)
        if self.orders.by_policy(label, together) >= allowed:
            return []
        order = RetryOrdered(t=self.sources.now, task=label, after=view.attempt, by="policy", failure=failure)
        self.orders.add(order)
        return [order]

    def _story(self, dossier: Dossier, own: Sequence[Dossier]) -> list[AnyRecord]:
        story = dossier.story(self.sources.now)
        claim = dossier.claim
        void = claim is not None and claim.void and claim.state is AttemptState.FINISHED
        later = any(one.begun and (one.number or 0) > (dossier.number or 0) for one in own)
        if void and later and not any(isinstance(one, ResultJudged) for one in story):
            # It was judged, and the task has gone on: what the verdict said in full is lost with the journal.
            story.append(ResultJudged(t=self.sources.now, attempt=dossier.attempt, verdict=Outcome.REJECTED))
        return story

    def _alone(self, told: Told) -> TaskView:
        """Return what the attempt by itself makes of its task."""
        label = told.dossier.task
        opening = self.sources.opening.model_copy(update={"tasks": (self.tasks[label],), "hosts": {told.dossier.host: ""}})
        return replay([opening, *told.story]).tasks[label]

    def _passed_over(self, dossier: Dossier, own: Sequence[Dossier]) -> bool:
        """Tell whether an attempt that never began was refused, though nobody says so: its task has gone on since."""
        if dossier.begun or dossier.refused:
            return False
        if dossier.claim is not None and dossier.claim.withdrawn:
            return True
        if any(one.begun and (one.number or 0) >= (dossier.number or 0) for one in own):
            return True
        return any(not one.begun and one.place > dossier.place for one in own)

    def _precedence(self, told: Told) -> tuple[bool, bool, int]:
        """Of a task's open attempts the first is followed: one that began, on a host that says so, the latest."""
        dossier = told.dossier
        return not dossier.begun, dossier.host not in self.sources.claims, -(dossier.number or 0)

    def _refused(self, told: Told) -> list[AnyRecord]:
        failure = FailureClass.HOST_NOT_READY
        attempt = told.dossier.attempt
        refusal = AttemptRefused(t=self.sources.now, attempt=attempt, code="recovered", reason=_WENT_ON, failure=failure)
        return [*told.story, refusal]

    def _one_per_host(self, open_: Sequence[Told]) -> list[Told]:
        """Put in order what hosts are busy with: what runs is announced last, and what never began gives way to it."""
        running: set[str] = set()
        newest: dict[str, int] = defaultdict(lambda: -1)
        ranks: dict[str, int] = {}
        for one in open_:
            host = one.dossier.host
            busy = one.dossier.begun and self._alone(one).state in (TaskState.RUNNING, TaskState.LAUNCHING)
            if busy:
                running.add(host)
            elif not one.dossier.begun:
                newest[host] = max(newest[host], one.dossier.place)
            # Of one task the order stays: the first that is open is the one that a controller follows.
            ranks.setdefault(one.dossier.task, 2 if busy else 0 if one.dossier.begun else 1)
        done = []
        for one in open_:
            host = one.dossier.host
            gives_way = not one.dossier.begun and (host in running or one.dossier.place < newest[host])
            done.append(Told(one.dossier, self._refused(one)) if gives_way else one)
        return sorted(done, key=lambda one: ranks[one.dossier.task])

    # --- what is not known ---

    def _held(self, state: BatchState) -> dict[str, str]:
        held = {}
        for label, view in state.tasks.items():
            reason = self._doubt(state, view)
            if reason:
                held[label] = reason
        return held

    def _doubt(self, state: BatchState, view: TaskView) -> str:
        """Return why the task must not be started by anybody now, or nothing."""
        attempt = state.attempts.get(view.attempt or "")
        again = view.state is TaskState.LOST or (view.state in RETRYABLE and bool(view.task.retry))
        waits = view.state in WAITING or (again and view.state is not TaskState.CANCELLED)
        dossier = self.dossiers.get(view.attempt or "")
        unsent = view.state is TaskState.LAUNCHING and dossier is not None and not dossier.begun
        if waits or unsent:
            own = {attempt.host} if unsent and attempt is not None else set()
            silent = [name for name in view.task.hosts if name in self.sources.silent and name not in own]
            if silent:
                names = ", ".join(silent[:3]) + (f" and {len(silent) - 3} more" if len(silent) > 3 else "")
                return f"may be on {names}, which gave no answer"
            if view.task.label in self.strays:
                return f"{self.strays[view.task.label]} has an attempt of it, and the assignment does not give it that host"
        followed = attempt is not None and (host := state.hosts.get(attempt.host)) is not None and host.attempt == view.attempt
        if view.state in (TaskState.LAUNCHING, TaskState.RUNNING) and attempt is not None and not followed:
            return f"{attempt.host} has gone on to another task since, and gave no answer"
        return ""
