"""Rules: what controllers do, step by step, and what operators do to them."""

from __future__ import annotations

from fleet.dispatch.rules.scheduler import Action
from fleet.errors import FleetError, StorageError
from fleet.model.records import BatchOpened, CancelOrdered, ControllerLeft, HostReleased, RetryOrdered
from fleet.model.states import ON_HOST, RETRYABLE, TERMINAL, TaskState
from tests.simulation.disk import Killed
from tests.simulation.laptop import Laptop, SimulatedController, SimulatedExecutor
from tests.simulation.link import SimulatedClient
from tests.simulation.machine import FLEET, Machine
from tests.simulation.world import World

NOTE = FLEET + "/quarantine.json"


class LaptopRules(World):
    """Controllers start, decide, act, take messages in, die; operators cancel and order again."""

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
        except Killed:
            self.told.append(f"{laptop.name}: a controller is killed while it opens the batch")
            return
        executors = {machine.name: SimulatedExecutor(machine, self.network, laptop) for machine in self.machines}
        laptop.controller = SimulatedController(
            laptop.journal,
            executors,
            self.bug,
            new_id=self.new_id,
            clock=lambda: self.clock,
            rules=laptop.rules,
            stall_rule=lambda _: laptop.stall_rule,
        )
        laptop.unread = False
        self.told.append(f"{laptop.name}: a controller starts")

    def _decide(self) -> None:
        if self.living():
            self._decide_at(self.random.choice(self.living()))

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
        except Killed:
            self._die(laptop, "by kill -9 between two records")

    def _perform(self) -> None:
        able = [laptop.controller for laptop in self.living() if laptop.controller and laptop.controller.pending]
        if able:
            controller = self.random.choice(able)
            controller.perform(self.random.randrange(len(controller.pending)))

    def _take(self) -> None:
        able = [laptop for laptop in self.living() if laptop.controller and laptop.controller.messages]
        if able:
            self._take_at(self.random.choice(able))

    def _take_at(self, laptop: Laptop) -> None:
        assert laptop.controller is not None
        before = len(laptop.journal.lines)
        try:
            laptop.controller.take()
        except StorageError:
            self._die(laptop, "of a full disk")
        except Killed:
            self._die(laptop, "by kill -9 between two records")
        except Exception as error:
            self.violate(f"{laptop.name}: the controller dies of {type(error).__name__}: {error}")
            raise
        self.told += [f"{laptop.name}: journal {line}" for line in laptop.journal.lines[before:]]
        if laptop.controller is not None and not laptop.controller.messages:
            laptop.unread = False

    def _crash(self) -> None:
        if self.living():
            laptop = self.random.choice(self.living())
            if self.random.random() < 0.5:
                laptop.journal.fuse = self.random.randrange(3)
            else:
                self._die(laptop, "by kill -9")

    def _forestall(self) -> None:
        laptop = self.random.choice(self.laptops)
        laptop.journal.forestall = True
        # Half of the controllers die right after that record.
        laptop.journal.fuse_after_forestall = self.random.choice([None, 0])
        self.told.append(f"{laptop.name}: another command will cancel the next task right before its intent is written")

    def _die(self, laptop: Laptop, how: str) -> None:
        laptop.controller = None
        self.told.append(f"{laptop.name}: the controller dies {how}")

    def _journal_full(self) -> None:
        laptop = self.random.choice(self.laptops)
        laptop.journal.full = not laptop.journal.full
        self.told.append(f"{laptop.name}: its disk is {'full' if laptop.journal.full else 'free again'}")

    def _cancel(self) -> None:
        laptop = self.random.choice(self.laptops)
        views = [view for view in laptop.journal.shadow.tasks.values() if view.state not in TERMINAL]
        if not views or laptop.journal.full:
            return
        view = self.random.choice(views)
        laptop.journal.order(CancelOrdered(task=view.task.label, attempt=view.attempt))
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
            laptop.journal.order(RetryOrdered(task=view.task.label, after=view.attempt))
            self._nudge(laptop, f"retry {view.task.label}")

    def _release(self) -> None:
        held = [machine for machine in self.machines if machine.disk.exists(NOTE)]
        if held:
            self._release_host(self.random.choice(held))

    def _release_host(self, machine: Machine) -> None:
        """What `fleet release` does: the host first, then every journal that holds it back, and a nudge for all."""
        try:
            SimulatedClient(machine, self.network).release()
        except FleetError as error:
            self.told.append(f"release of {machine.name}: {error.message}")
            return
        for laptop in self.laptops:
            if laptop.journal.full:
                continue
            host = laptop.journal.shadow.hosts.get(machine.name)
            if host is not None and host.quarantine is not None:
                laptop.journal.order(HostReleased(host=machine.name))
            self._nudge(laptop, f"release {machine.name}")

    def _nudge(self, laptop: Laptop, order: str) -> None:
        self.told.append(f"{laptop.name}: the operator orders: {order}")
        if laptop.controller is not None:
            laptop.unread = True
            laptop.controller.nudge()


def _said(action: Action) -> str:
    return " ".join([type(action).__name__.lower(), *(str(value) for value in vars(action).values())])
