"""A new journal from evidence, decided purely: (tasks, old records, hosts' claims, results here) → records.

What is known counts, from wherever it is known; what is not known is never taken for "nothing happened":

    an attempt that anybody says was started        is in the new journal, and its task with it
    an attempt that its host has not got            is sent again under the same id, unless the task went on since
    a task without either                           waits for its turn, or
    … and a host that may run it gave no answer     is held until that host has answered
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fleet.dispatch.recovery.casebook import Casebook, Sources
from fleet.dispatch.recovery.evidence import Dossier
from fleet.dispatch.rules.retries import allowance
from fleet.dispatch.state.replay import apply, replay
from fleet.dispatch.state.views import BatchState, TaskView
from fleet.dispatch.state.waiting import WAITING
from fleet.model.failures import FailureClass
from fleet.model.records import (
    AnyRecord,
    AttemptRefused,
    BatchHalted,
    BatchOpened,
    ControllerLeft,
    HostChecked,
    HostQuarantined,
    HostReleased,
    ImagesChecked,
    JournalRecovered,
    LinkChanged,
    QuarantineTold,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import RETRYABLE, TERMINAL, AttemptState, Link, TaskState
from fleet.model.verdict import Outcome

_WENT_ON = "the host never took it, and the task went on"


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


class _Rebuild(Casebook):
    """One rebuilding: from the casebook to records, in an order in which they can be replayed."""

    def run(self) -> Rebuilt:
        self.read()
        head, *rest = self._head() + self._attempts() + self._of_hosts()
        # Without the old journal nothing says when the batch was opened, but not after its first attempt.
        records = [head.model_copy(update={"t": min(one.t for one in (head, *rest) if one.t)}), *rest]
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

    # --- records out ---

    def _head(self) -> list[AnyRecord]:
        opening, old = self.sources.opening, self.sources.records
        first = min((one.t for one in old if one.t), default=opening.t or self.sources.now)
        hosts = dict.fromkeys((one.host for one in self.dossiers.values()), "") | dict(opening.hosts)
        head: list[AnyRecord] = [opening.model_copy(update={"t": first, "hosts": hosts})]
        head += [one for one in old if isinstance(one, ImagesChecked)]
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
