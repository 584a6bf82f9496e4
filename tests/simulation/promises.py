"""What must hold after every step, from the machines' own record and from every journal."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from fleet.dispatch.state.replay import replay
from fleet.model.records import (
    AnyRecord,
    AttemptAdopted,
    AttemptIntended,
    AttemptRefused,
    CancelOrdered,
    HostQuarantined,
    HostReleased,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import SUCCESS, TERMINAL, TaskState
from tests.simulation.agent import AGENT, SEAT
from tests.simulation.bugs import Bug
from tests.simulation.machine import FLEET
from tests.simulation.rules_laptops import NOTE

if TYPE_CHECKING:
    from tests.simulation.history import History
    from tests.simulation.laptop import Laptop
    from tests.simulation.machine import Machine


ATTEMPTS = FLEET + "/attempts"


class Promises:
    """Remembers what it needs of the past to hold the present against it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._ended: dict[tuple[str, str], tuple[TaskState, str | None]] = {}
        self._accepted: dict[tuple[str, str], str] = {}
        self._read: Counter[str] = Counter()
        self._intended: dict[str, tuple[str, str]] = {}
        """Attempt → (laptop, task), from the journals."""
        self._allowed: Counter[tuple[str, str]] = Counter()
        self._begun: Counter[str] = Counter()
        self._started: Counter[tuple[str, str]] = Counter()
        self._by_policy: Counter[tuple[str, str, str]] = Counter()
        self._held: set[tuple[str, str]] = set()
        """(laptop, host) in quarantine, as the journals say it one record after the other."""
        self._taken: dict[str, set[str]] = {}
        """Machine → the attempts that it had at the last look."""
        self._noted: set[str] = set()
        """Machines that knew of their quarantine at the last look."""
        self._refused: set[str] = set()
        """Attempts that a journal says will not run."""

    def check(self) -> None:
        """Hold every promise against the present."""
        for laptop in self._history.laptops:
            self._journal(laptop)
        for machine in self._history.machines:
            self._machine(machine)

    def forget(self, laptop: Laptop) -> None:
        """Read the laptop's journal as a new one: an end that was known to the old one alone is no longer a promise."""
        self._read[laptop.name] = len(laptop.journal.lines)
        self._ended = {place: end for place, end in self._ended.items() if place[0] != laptop.name}
        self._held = {place for place in self._held if place[0] != laptop.name}
        # An order that nothing had come of, lost with the journal, is given again.
        self._by_policy = Counter({key: count for key, count in self._by_policy.items() if key[0] != laptop.name})
        for record in laptop.journal.read():
            if isinstance(record, RetryOrdered):
                self._no_more_than_allowed(laptop, record)
        # A refusal that is lost with the journal is asked for again, under the same id.
        own = {attempt for attempt, (name, _) in self._intended.items() if name == laptop.name}
        self._refused -= own - {one.attempt for one in laptop.journal.shadow.attempts.values() if one.refused}

    def _journal(self, laptop: Laptop) -> None:
        violate = self._history.violate
        state = laptop.journal.shadow
        controller = laptop.controller
        settled = controller is not None and not laptop.unread and self._history.bug is not Bug.JOURNAL_AFTER_LAUNCH
        if settled and controller.state != state:
            violate(f"{laptop.name}: what the controller knows is not what its journal says")
        fresh = laptop.journal.lines[self._read[laptop.name] :]
        self._read[laptop.name] = len(laptop.journal.lines)
        if not fresh:
            return
        retried = set()
        for record in self._history.decoded(fresh):
            if isinstance(record, RetryOrdered):
                retried.add(record.task)
                self._allowed[laptop.name, record.task] += 1
                self._no_more_than_allowed(laptop, record)
                laptop.journal.forestalled.discard(record.task)
            self._note(laptop, record)
        for label, view in state.tasks.items():
            place = (laptop.name, label)
            before = self._ended.get(place)
            if before is not None and before != (view.state, view.attempt) and label not in retried:
                violate(f"{laptop.name}: {label} was {before[0]} and is {view.state}, without an order")
            if view.state in TERMINAL:
                self._ended[place] = (view.state, view.attempt)
            else:
                self._ended.pop(place, None)
            if view.state in SUCCESS and view.attempt is not None:
                first = self._accepted.setdefault(place, view.attempt)
                if first != view.attempt:
                    violate(f"{laptop.name}: {label} has two accepted results, {first} and {view.attempt}")
            elif place in self._accepted:
                violate(f"{laptop.name}: the accepted result of {label} was lost")
        for place, attempt in self._accepted.items():
            if place[0] == laptop.name and attempt not in laptop.files:
                violate(f"{laptop.name}: {attempt} counts as accepted and its files are not here")

    def _note(self, laptop: Laptop, record: AnyRecord) -> None:
        if isinstance(record, AttemptIntended):
            self._intended[record.attempt] = (laptop.name, record.task)
            if (laptop.name, record.host) in self._held:
                self._history.violate(f"{laptop.name}: {record.task} is begun on {record.host}, which is in quarantine")
        elif isinstance(record, HostQuarantined):
            self._held.add((laptop.name, record.host))
        elif isinstance(record, HostReleased):
            self._held.discard((laptop.name, record.host))
        elif isinstance(record, CancelOrdered) and record.by == "stall" and not laptop.stall_rule.cancel:
            self._history.violate(f"{laptop.name}: {record.task} is ended because it stands still, and nobody allowed that")
        elif isinstance(record, AttemptRefused | AttemptAdopted):
            given_up = record.attempt if isinstance(record, AttemptRefused) else record.intended
            if isinstance(record, AttemptAdopted) and record.attempt == given_up:
                self._history.violate(f"{laptop.name}: {record.attempt} adopts itself")
            self._refused.add(given_up)
            if any(given_up in machine.starts for machine in self._history.machines):
                self._history.violate(f"{laptop.name}: {given_up} is given up, and was started")
        elif isinstance(record, ResultJudged) and record.attempt not in laptop.files:
            self._history.violate(f"{laptop.name}: {record.attempt} is judged and its files are not here")

    def _no_more_than_allowed(self, laptop: Laptop, record: RetryOrdered) -> None:
        """A policy orders what the assignment allows for a class, over the whole history of the task, and no more."""
        if record.by != "policy":
            return
        retry = next(task.retry for task in laptop.tasks if task.label == record.task)
        word = str(record.failure) if str(record.failure) in retry else "lost"
        key = (laptop.name, record.task, word)
        self._by_policy[key] += 1
        if self._by_policy[key] > retry.get(word, 0):
            self._history.violate(
                f"{laptop.name}: {record.task} is retried {self._by_policy[key]} times by policy after {word}"
            )

    def _quarantine(self, machine: Machine) -> None:
        """A host that knows of its quarantine takes no attempt that it has not got already."""
        note = machine.disk.exists(NOTE)
        # A withdrawn attempt has a marker there, and nothing to start.
        taken = {name for name in machine.disk.listdir(ATTEMPTS) if machine.disk.exists(f"{ATTEMPTS}/{name}/spec.json")}
        fresh = taken - self._taken.get(machine.name, set())
        if note and machine.name in self._noted and fresh:
            self._history.violate(f"{machine.name}: takes {', '.join(sorted(fresh))} although it is in quarantine")
        self._taken[machine.name] = taken
        (self._noted.add if note else self._noted.discard)(machine.name)

    def _machine(self, machine: Machine) -> None:
        self._quarantine(machine)
        violate = self._history.violate
        alive = [tree.attempt for tree in machine.trees if tree.eval]
        if len(alive) > 1:
            violate(f"{machine.name}: {len(alive)} evals run at once")
        for attempt in alive:
            SEAT.machine = machine
            state, _ = AGENT.derive(attempt)
            if state != "running":
                violate(f"{machine.name}: the eval of {attempt} runs, and the host says {state}")
        for attempt, _ in machine.begun[self._begun[machine.name] :]:
            self._begun[machine.name] += 1
            known = self._intended.get(attempt)
            if known is None:
                violate(f"{machine.name}: {attempt} was started and is in no journal")
                continue
            if any(known == (laptop.name, label) for laptop in self._history.laptops for label in laptop.journal.forestalled):
                violate(f"{machine.name}: {attempt} is started, and its task was cancelled before it began")
            if attempt in self._refused:
                violate(f"{machine.name}: {attempt} is started, and {known[0]} was told that it would not be")
            self._started[known] += 1
            if self._started[known] > 1 + self._allowed[known]:
                violate(
                    f"{known[0]}: {known[1]} was started {self._started[known]} times, {self._allowed[known]} retries ordered"
                )
            self._no_duplicate(machine, attempt)

    def _no_duplicate(self, machine: Machine, attempt: str) -> None:
        """A host starts the same task again only when the earlier attempt is void, or an order names it."""
        key = next(one for name, one in machine.begun if name == attempt)
        after = machine.after.get(attempt, ())
        for other, other_key in machine.begun:
            if other == attempt:
                return
            void = machine.voided(other)
            if other_key == key and other not in after and not void:
                self._history.violate(f"{machine.name}: {attempt} repeats the task of {other}, which is not void")

    def at_rest(self) -> None:
        """Hold what must be true once nothing is left to do."""
        for laptop in self._history.laptops:
            state = replay(laptop.journal.read())
            if state != laptop.journal.shadow:
                self._history.violate(f"{laptop.name}: the journal read as a whole says something else")
            for label, view in state.tasks.items():
                if view.state not in TERMINAL:
                    self._history.violate(f"{laptop.name}: {label} does not come to an end: {view.state} {view.reason}")
                elif view.state not in SUCCESS and not (view.reason or view.failure):
                    self._history.violate(f"{laptop.name}: {label} is {view.state}, and nothing says why")
