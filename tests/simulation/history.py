"""One seeded history: machines, laptops, a network, and the rules by which things happen and go wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from fleet.dispatch.scheduler import Action
from fleet.errors import FleetError, StorageError
from fleet.model.records import AnyRecord, BatchOpened, CancelOrdered, ControllerLeft, RetryOrdered, record_from
from fleet.model.states import ON_HOST, RETRYABLE, TERMINAL, TaskState
from fleet.model.tasks import Task, TaskKey
from tests.simulation.bugs import Bug
from tests.simulation.laptop import Laptop, SimulatedController, SimulatedExecutor
from tests.simulation.link import Fate, Network, SimulatedClient
from tests.simulation.machine import Machine
from tests.simulation.promises import Promises
from tests.simulation.tree import Phase, Tree


class Broken(AssertionError):
    """A promise was broken; the history up to there is attached."""


class History:
    """A world and what happened in it; every choice comes from the seed."""

    def __init__(self, seed: int, bug: Bug = Bug.NONE) -> None:
        self.seed, self.bug = seed, bug
        self.random = Random(seed)
        self.told: list[str] = []
        self.steps = 0
        self.states: set[int] = set()
        self.clock = 0.0
        self._wall = 0
        self._ids = 0
        self._broken: list[str] = []
        self.network = Network(self.random, self.told.append)
        self.machines = [Machine(f"h{n}", bug, self.violate) for n in range(1, self.random.randint(1, 3) + 1)]
        self.laptops = [Laptop("first", self._tasks(), self._now, bug)]
        if self.random.random() < 0.4:
            self.laptops.append(Laptop("second", self._assignment_of_second(), self._now, bug))
        self._promises = Promises(self)
        self._choose_troubles()

    # --- the set-up ---

    def _tasks(self) -> tuple[Task, ...]:
        names = [machine.name for machine in self.machines]
        made = []
        for number in range(1, self.random.randint(2, 5) + 1):
            hosts = names if self.random.random() < 0.5 else [self.random.choice(names)]
            key = TaskKey(instance_id=f"t{number}", model="m", dataset_sha256="0")
            made.append(Task(key=key, dataset_file=Path("/nowhere/d.json"), place=hosts[0], hosts=tuple(hosts)))
        return tuple(made)

    def _assignment_of_second(self) -> tuple[Task, ...]:
        """The same assignment, or one that says something else of the same tasks."""
        first = self.laptops[0].tasks
        if self.random.random() < 0.5:
            return first
        return tuple(task.model_copy(update={"max_iterations": 7}) for task in reversed(first))

    def _choose_troubles(self) -> None:
        """Give this history its own mixture: many troubles at once hide what two of them do."""
        random = self.random
        self.network.trouble = random.choice([0.0, 0.1, 0.3, 0.5])
        self.network.fates = tuple(random.sample(tuple(Fate)[1:], random.randint(1, 6)))
        rare: list[tuple[Callable[[], None], float]] = [
            (self._crash, 2.0),
            (self._second_controller, 0.5),
            (self._reboot, 1.0),
            (self._kill_process, 2.0),
            (self._change_disk, 1.5),
            (self._change_link, 2.0),
            (self._clog_all, 0.5),
            (self._jump_clock, 0.5),
            (self._cancel, 1.0),
            (self._retry, 1.5),
            (self._slow_start, 1.0),
            (self._change_enclosure, 0.3),
            (self._journal_full, 0.5),
        ]
        chosen = random.sample(rare, random.randint(2, len(rare)))
        often: list[tuple[Callable[[], None], float]] = [
            (self._start_controller, 3.0),
            (self._decide, 8.0),
            (self._perform, 8.0),
            (self._take, 10.0),
            (self._advance, 8.0),
            (self._end_eval, 3.0),
            (self._deliver_late, 2.0),
            (self._pass_time, 2.0),
        ]
        self._rules = [rule for rule, _ in often + chosen]
        self._weights = [weight for _, weight in often + chosen]

    # --- what the rest of the simulation asks ---

    def _now(self) -> str:
        self._wall += 1
        return f"2026-01-01T00:00:00.{self._wall:06d}Z"

    def violate(self, what: str) -> None:
        self._broken.append(what)

    @staticmethod
    def decoded(lines: Iterable[str]) -> list[AnyRecord]:
        found = (record_from(json.loads(line)) for line in lines)
        return [record for record in found if record is not None]

    def _new_id(self) -> str:
        self._ids += 1
        return f"a{self._ids}"

    # --- running ---

    def run(self, length: int | None = None) -> None:
        """Let `length` things happen, then take all troubles away and require an end; raises Broken."""
        for _ in range(length or self.random.randint(30, 120)):
            self._one(self.random.choices(self._rules, self._weights)[0])
        self.calm()
        self.converge()
        self._order_retries()
        self.converge()

    def _one(self, rule: Callable[[], None]) -> None:
        self.steps += 1
        rule()
        self.hold()

    def hold(self) -> None:
        """Check every promise; raises Broken with the history."""
        self._promises.check()
        journals = tuple(
            tuple((view.state, view.failure) for view in laptop.journal.shadow.tasks.values()) for laptop in self.laptops
        )
        self.states.add(hash((journals, tuple(machine.truth() for machine in self.machines))))
        self.raise_broken()

    def raise_broken(self) -> None:
        if self._broken:
            raise Broken(f"seed {self.seed}: " + "; ".join(self._broken))

    def calm(self) -> None:
        """Take every trouble away; what is still on its way arrives first."""
        self.told.append("--- no more troubles ---")
        self.network.trouble = 0.0
        for machine in self.machines:
            machine.up, machine.disk.room, machine.slow, machine.power = True, None, False, False
            while machine.late:
                machine.call(machine.late.pop(0))
                self.hold()
        for laptop in self.laptops:
            laptop.journal.full = False

    def converge(self, rounds: int = 300) -> None:
        """Run everything in turn until every batch has ended; a controller that gives up is started again."""
        for _ in range(rounds):
            self.steps += 1
            for laptop in self.laptops:
                if laptop.controller is None and not laptop.journal.shadow.complete:
                    self._start(laptop)
                self._turn(laptop)
            for machine in self.machines:
                for tree in list(machine.trees):
                    if tree.phase is Phase.RUNNING and tree.eval and not tree.stop:
                        machine.end_eval(tree, 0, "good")
                    machine.settle(tree)
            self._wait(30.0)
            self.hold()
            if all(laptop.controller is None and laptop.journal.shadow.complete for laptop in self.laptops):
                break
        self._promises.at_rest()
        self.raise_broken()

    def _turn(self, laptop: Laptop) -> None:
        if laptop.controller is not None:
            self._decide_at(laptop)
        while laptop.controller is not None and laptop.controller.pending:
            laptop.controller.perform(0)
        while laptop.controller is not None and laptop.controller.messages:
            self._take_at(laptop)

    def _order_retries(self) -> None:
        for laptop in self.laptops:
            for label, view in laptop.journal.shadow.tasks.items():
                if view.state in RETRYABLE:
                    laptop.journal.append(RetryOrdered(task=label, after=view.attempt))
        self.told.append("--- every task without a result is ordered again ---")

    # --- rules: controllers ---

    def _living(self) -> list[Laptop]:
        return [laptop for laptop in self.laptops if laptop.controller is not None]

    def _start_controller(self) -> None:
        idle = [laptop for laptop in self.laptops if laptop.controller is None]
        if idle:
            self._start(self.random.choice(idle))

    def _start(self, laptop: Laptop) -> None:
        hosts = {machine.name: "p" for machine in self.machines}
        opening = BatchOpened(batch="b", assignment_sha256="0", controller=laptop.name, tasks=laptop.tasks, hosts=hosts)
        try:
            laptop.journal.append(opening)
        except StorageError:
            return
        executors = {machine.name: SimulatedExecutor(machine, self.network, laptop) for machine in self.machines}
        laptop.controller = SimulatedController(
            laptop.journal, executors, self.bug, new_id=self._new_id, clock=lambda: self.clock
        )
        laptop.unread = False
        self.told.append(f"{laptop.name}: a controller starts")

    def _second_controller(self) -> None:
        """In the same directory the lock refuses it, and nothing of the first changes."""
        self.told.append("a second controller of the same directory is refused by its lock")

    def _decide(self) -> None:
        if self._living():
            self._decide_at(self.random.choice(self._living()))

    def _decide_at(self, laptop: Laptop) -> None:
        assert laptop.controller is not None
        before = len(laptop.controller.pending)
        try:
            over = laptop.controller.decide()
            self.told += [f"{laptop.name}: {_said(action)}" for action in laptop.controller.pending[before:]]
            if over:
                laptop.journal.append(ControllerLeft(why="done"))
                laptop.controller = None
                self.told.append(f"{laptop.name}: the controller ends")
        except StorageError:
            self._die(laptop, "of a full disk")

    def _perform(self) -> None:
        able = [laptop.controller for laptop in self._living() if laptop.controller and laptop.controller.pending]
        if able:
            controller = self.random.choice(able)
            controller.perform(self.random.randrange(len(controller.pending)))

    def _take(self) -> None:
        able = [laptop for laptop in self._living() if laptop.controller and laptop.controller.messages]
        if able:
            self._take_at(self.random.choice(able))

    def _take_at(self, laptop: Laptop) -> None:
        assert laptop.controller is not None
        before = len(laptop.journal.lines)
        try:
            laptop.controller.take()
        except StorageError:
            self._die(laptop, "of a full disk")
        except Exception as error:
            self.violate(f"{laptop.name}: the controller dies of {type(error).__name__}: {error}")
            raise
        self.told += [f"{laptop.name}: journal {line}" for line in laptop.journal.lines[before:]]
        if laptop.controller is not None and not laptop.controller.messages:
            laptop.unread = False

    def _crash(self) -> None:
        if self._living():
            self._die(self.random.choice(self._living()), "by kill -9")

    def _die(self, laptop: Laptop, how: str) -> None:
        laptop.controller = None
        self.told.append(f"{laptop.name}: the controller dies {how}")

    def _journal_full(self) -> None:
        laptop = self.random.choice(self.laptops)
        laptop.journal.full = not laptop.journal.full
        self.told.append(f"{laptop.name}: its disk is {'full' if laptop.journal.full else 'free again'}")

    # --- rules: the operator ---

    def _cancel(self) -> None:
        laptop = self.random.choice(self.laptops)
        views = [view for view in laptop.journal.shadow.tasks.values() if view.state not in TERMINAL]
        if not views or laptop.journal.full:
            return
        view = self.random.choice(views)
        laptop.journal.append(CancelOrdered(task=view.task.label, attempt=view.attempt))
        self._nudge(laptop, f"cancel {view.task.label}")
        attempt = laptop.journal.shadow.attempts.get(view.attempt or "")
        if attempt is not None and view.state in (*ON_HOST, TaskState.HELD, TaskState.LOST):
            machine = next(one for one in self.machines if one.name == attempt.host)
            try:
                SimulatedClient(machine, self.network).cancel(attempt.attempt, attempt.epoch, 5.0)
            except FleetError as error:
                self.told.append(f"{laptop.name}: cancel: {error.message}")

    def _retry(self) -> None:
        laptop = self.random.choice(self.laptops)
        views = [view for view in laptop.journal.shadow.tasks.values() if view.state in RETRYABLE]
        if views and not laptop.journal.full:
            view = self.random.choice(views)
            laptop.journal.append(RetryOrdered(task=view.task.label, after=view.attempt))
            self._nudge(laptop, f"retry {view.task.label}")

    def _nudge(self, laptop: Laptop, order: str) -> None:
        self.told.append(f"{laptop.name}: the operator orders: {order}")
        if laptop.controller is not None:
            laptop.unread = True
            laptop.controller.nudge()

    # --- rules: machines ---

    def _tree(self, wanted: Callable[[Tree], bool]) -> tuple[Machine, Tree] | None:
        found = [(machine, tree) for machine in self.machines for tree in machine.trees if wanted(tree)]
        return self.random.choice(found) if found else None

    def _advance(self) -> None:
        found = self._tree(lambda tree: tree.lives)
        if found:
            machine, tree = found
            if self.random.random() < self.network.trouble / 4:
                machine.disk.fuse, machine.power = self.random.randrange(6), self.random.random() < 0.5
            machine.settle(tree)
            machine.disk.fuse, machine.power = None, False

    def _end_eval(self) -> None:
        found = self._tree(lambda tree: tree.phase is Phase.RUNNING and tree.eval)
        if found:
            machine, tree = found
            status, product = self.random.choice([(0, "good"), (0, "good"), (0, "odd"), (1, "bad"), (3, "good"), (-9, "partial")])
            machine.end_eval(tree, status, product)
            self.told.append(f"{machine.name}: the eval of {tree.attempt} ends with {status}")

    def _kill_process(self) -> None:
        found = self._tree(lambda tree: tree.supervisor or tree.runner)
        if found:
            machine, tree = found
            victims = self.random.choice([("supervisor",), ("runner",), ("supervisor", "runner")])
            for who in victims:
                tree.kill(who)
            self.told.append(f"{machine.name}: {' and '.join(victims)} of {tree.attempt} are killed")

    def _reboot(self) -> None:
        machine = self.random.choice(self.machines)
        machine.reboot()
        self.told.append(f"{machine.name}: reboots")

    def _change_disk(self) -> None:
        machine = self.random.choice(self.machines)
        machine.disk.room = self.random.randrange(3) if machine.disk.room is None else None
        self.told.append(f"{machine.name}: disk room is {machine.disk.room}")

    def _change_link(self) -> None:
        machine = self.random.choice(self.machines)
        machine.up = not machine.up
        self.told.append(f"{machine.name}: link {'up' if machine.up else 'down'}")

    def _clog_all(self) -> None:
        """Swizzle-clog: all links go down; they come up one by one, in whatever order the next rules say."""
        for machine in self.machines:
            machine.up = False
        self.told.append("all links down")

    def _jump_clock(self) -> None:
        machine = self.random.choice(self.machines)
        machine.wall += self.random.choice([-86400.0, 86400.0, 1e7])
        self._wall += self.random.choice([0, 5000])
        self.told.append("the clocks jump")

    def _slow_start(self) -> None:
        machine = self.random.choice(self.machines)
        machine.slow = True
        self.told.append(f"{machine.name}: the next supervisor comes up late")

    def _change_enclosure(self) -> None:
        machine = self.random.choice(self.machines)
        machine.enclosure = "unit" if machine.enclosure == "session" else "session"

    def _deliver_late(self) -> None:
        waiting = [machine for machine in self.machines if machine.late]
        if waiting:
            machine = self.random.choice(waiting)
            request = machine.late.pop(self.random.randrange(len(machine.late)))
            frames = machine.call(request)
            outcome = frames[-1].get("outcome") or frames[-1].get("error") if frames else None
            self.told.append(f"{machine.name}: a late {request['verb']} {request.get('attempt')} arrives → {outcome}")

    def _pass_time(self) -> None:
        self._wait(self.random.choice([1.0, 10.0, 100.0]))

    def _wait(self, seconds: float) -> None:
        self.clock += seconds
        for machine in self.machines:
            machine.sleep(seconds)


def _said(action: Action) -> str:
    return " ".join([type(action).__name__.lower(), *(str(value) for value in vars(action).values())])
