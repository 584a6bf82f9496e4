"""One seeded history: rules picked at random, promises held after each, then quiet, and an end that must come."""

from __future__ import annotations

from collections.abc import Callable

from fleet.dispatch.rules.care import Rules
from fleet.dispatch.rules.halt import HaltRule
from fleet.dispatch.rules.stalls import StallRule
from fleet.model.records import RetryOrdered
from fleet.model.states import RETRYABLE
from tests.simulation.bugs import Bug
from tests.simulation.laptop import Laptop
from tests.simulation.link import Fate
from tests.simulation.promises import Promises
from tests.simulation.rules_laptops import NOTE, LaptopRules
from tests.simulation.rules_machines import MachineRules
from tests.simulation.world import can_step, runs

Rule = Callable[[], object]


class Broken(AssertionError):
    """A promise was broken."""


class History(LaptopRules, MachineRules):
    """A world and what happens in it."""

    def __init__(self, seed: int, bug: Bug = Bug.NONE) -> None:
        super().__init__(seed, bug)
        self._promises = Promises(self)
        self._choose_troubles()

    def _choose_troubles(self) -> None:
        """Give this history its own mixture: many troubles at once hide what two of them do."""
        random = self.random
        self.network.trouble = random.choice([0.0, 0.2, 0.5])
        self.network.fates = tuple(random.sample(tuple(Fate)[1:], random.randint(1, 6)))
        self.usual: list[tuple[Callable[[], object], float, Callable[[], object]]] = [
            (self._start_controller, 4.0, lambda: any(laptop.controller is None for laptop in self.laptops)),
            (self._decide, 5.0, self.living),
            (self._perform, 8.0, lambda: any(one.controller and one.controller.pending for one in self.laptops)),
            (self._take, 10.0, lambda: any(one.controller and one.controller.messages for one in self.laptops)),
            (self._advance, 8.0, lambda: self.tree(can_step)),
            (self._end_eval, 4.0, lambda: self.tree(runs)),
            (self._deliver_late, 1.0, lambda: any(machine.late for machine in self.machines)),
            (self._print, 1.0, lambda: self.tree(runs)),
            (self._go_on, 0.5, lambda: any(machine.stalled for machine in self.machines)),
            (self._pass_time, 2.0, lambda: True),
        ]
        self.all_troubles: list[tuple[Callable[[], object], float]] = [
            (self._crash, 2.0),
            (self._reboot, 1.0),
            (self._kill_process, 3.0),
            (self._change_disk, 1.5),
            (self._change_link, 2.0),
            (self._clog_all, 0.5),
            (self._jump_clock, 0.3),
            (self._cancel, 1.0),
            (self._retry, 2.0),
            (self._slow_start, 3.0),
            (self._journal_full, 0.5),
            (self._release, 1.0),
            (self._forestall, 0.5),
            (self._doomed_start, 1.0),
        ]
        self.crowding = (self._slow_start, self._cancel, self._crash)
        self._troubles = [
            (rule, weight, lambda: True) for rule, weight in random.sample(self.all_troubles, random.randint(1, 7))
        ]
        self._of_trouble = {rule for rule, _ in self.all_troubles}
        for machine in self.machines:
            machine.enclosure = random.choice(["session", "unit"])
        for laptop in self.laptops:
            halt = random.choice([None, None, None, HaltRule(random.randint(1, 3), False, now=random.random() < 0.7)])
            laptop.rules = Rules(quarantine=random.choice([0, 1, 1, 2, 3]), halt=halt)
            laptop.stall_rule = StallRule(random.choice([0.0, 5.0, 30.0]), cancel=random.random() < 0.5)
        if self.crowded:
            self.machines[0].enclosure = "unit"
            self._troubles = [(rule, 2 * weight, lambda: True) for rule, weight in self.all_troubles if rule in self.crowding]

    def run(self, length: int | None = None) -> None:
        """Let `length` things happen, then take all troubles away and require an end; raises Broken."""
        self.go(length or self.random.randint(30, 120))
        self.end()

    def go(self, length: int) -> None:
        """Let `length` things happen."""
        for _ in range(length):
            able = [(rule, weight) for rule, weight, enabled in self.usual + self._troubles if enabled()]
            self._one(self.random.choices([rule for rule, _ in able], [weight for _, weight in able])[0])

    def end(self) -> None:
        """Take all troubles away and require that everything ends; then order what failed again, and require it again."""
        self.calm()
        self.converge()
        self._order_retries()
        self.converge()

    def close(self) -> None:
        """End what still stands in the middle of a request."""
        for machine in self.machines:
            machine.end_stalled()

    def _one(self, rule: Callable[[], object]) -> None:
        self.steps += 1
        self.network.met[rule.__name__.strip("_").replace("_", " ")] += rule in self._of_trouble
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
        if self.broken:
            raise Broken(f"seed {self.seed}: " + "; ".join(self.broken))

    def calm(self) -> None:
        """Take every trouble away; what is still on its way arrives first."""
        self.told.append("--- no more troubles ---")
        self.network.trouble = 0.0
        for machine in self.machines:
            machine.up, machine.disk.room, machine.slow, machine.power, machine.doomed = True, None, 0, False, False
        self.deliver_all()
        for laptop in self.laptops:
            laptop.journal.full, laptop.journal.fuse, laptop.journal.forestall = False, None, False
            # From here on nobody halts anything, and what moves is seen to move.
            laptop.rules, laptop.stall_rule = Rules(quarantine=laptop.rules.quarantine), StallRule(0.0)

    def deliver_all(self) -> None:
        """Let everything arrive that is on its way, and everything go on that stands in the middle."""
        for machine in self.machines:
            while machine.stalled:
                machine.go_on(0)
                self.hold()
            while machine.late:
                machine.call(machine.late.pop(0))
                self.hold()

    def forget(self, laptop: Laptop) -> None:
        """Take the laptop's journal for a new one; what was accepted and started stays remembered."""
        self._promises.forget(laptop)

    def converge(self, rounds: int = 300) -> None:
        """Run everything in turn until every batch has ended; a controller that gives up is started again."""
        for _ in range(rounds):
            self.steps += 1
            for machine in self.machines:
                held = machine.disk.exists(NOTE) or any(_held_back(laptop, machine.name) for laptop in self.laptops)
                if held and self.random.random() < 0.3:
                    # A person repairs it, sooner or later, as often as it takes.
                    self._release_host(machine)
            for laptop in self.laptops:
                if laptop.controller is None and not laptop.journal.shadow.complete:
                    self._start(laptop)
                self._turn(laptop)
            for machine in self.machines:
                for tree in list(machine.trees):
                    if runs(tree) and not tree.stop:
                        machine.end_eval(tree, 0, "good")
                    machine.settle(tree)
            self.wait(30.0)
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
                    laptop.journal.order(RetryOrdered(task=label, after=view.attempt))
        self.told.append("--- every task without a result is ordered again ---")


def _held_back(laptop: Laptop, name: str) -> bool:
    host = laptop.journal.shadow.hosts.get(name)
    return host is not None and host.quarantine is not None and host.quarantine.told
