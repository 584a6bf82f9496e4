"""What a history takes place in: machines, laptops and a network, all drawn from one seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

from fleet.model.records import AnyRecord, record_from
from fleet.model.tasks import Task, TaskKey
from tests.simulation.bugs import Bug
from tests.simulation.laptop import Laptop
from tests.simulation.link import Network
from tests.simulation.machine import Machine
from tests.simulation.tree import Phase, Tree


class World:
    """Machines and laptops; every choice comes from the seed."""

    def __init__(self, seed: int, bug: Bug = Bug.NONE) -> None:
        self.seed, self.bug = seed, bug
        self.random = Random(seed)
        self.told: list[str] = []
        self.steps = 0
        self.states: set[int] = set()
        self.clock = 0.0
        self._wall = 0
        self._ids = 0
        self.broken: list[str] = []
        self.network = Network(self.random, self.told.append)
        self.crowded = self.random.random() < 0.15
        """Two laptops, one machine, the same tasks, slow units: chance alone seldom brings these together."""
        count = 1 if self.crowded else self.random.choice([1, 2, 2, 3])
        self.machines = [Machine(f"h{number}", bug, self.violate) for number in range(1, count + 1)]
        self.laptops = [Laptop("first", self._tasks(), self._now, bug)]
        if self.crowded or self.random.random() < 0.4:
            self.laptops.append(Laptop("second", self._assignment_of_second(), self._now, bug))

    def _tasks(self) -> tuple[Task, ...]:
        names = [machine.name for machine in self.machines]
        made = []
        for number in range(1, self.random.choice([1, 2] if self.crowded else [1, 2, 2, 3, 5]) + 1):
            hosts = names if self.random.random() < 0.5 else [self.random.choice(names)]
            key = TaskKey(instance_id=f"t{number}", model="m", dataset_sha256="0")
            retry = self.random.choice([{}, {}, {"lost": 1}, {"lost-killed": 2, "output-rejected": 1}, {"lost": 0}])
            made.append(Task(key=key, dataset_file=Path("/dev/null"), place=hosts[0], hosts=tuple(hosts), retry=retry))
        return tuple(made)

    def _assignment_of_second(self) -> tuple[Task, ...]:
        """The same assignment, or one that says something else of the same tasks."""
        first = self.laptops[0].tasks
        if self.crowded or self.random.random() < 0.5:
            return first
        return tuple(task.model_copy(update={"max_iterations": 7}) for task in reversed(first))

    def _now(self) -> str:
        self._wall += 1
        return f"2026-01-01T00:00:00.{self._wall:06d}Z"

    def violate(self, what: str) -> None:
        self.broken.append(what)

    @staticmethod
    def decoded(lines: Iterable[str]) -> list[AnyRecord]:
        found = (record_from(json.loads(line)) for line in lines)
        return [record for record in found if record is not None]

    def new_id(self) -> str:
        self._ids += 1
        return f"a{self._ids}"

    def wait(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.clock += seconds
        for machine in self.machines:
            machine.sleep(seconds)

    def living(self) -> list[Laptop]:
        """Return the laptops with a controller."""
        return [laptop for laptop in self.laptops if laptop.controller is not None]

    def tree(self, wanted: Callable[[Tree], bool]) -> tuple[Machine, Tree] | None:
        """Return one of the process trees that are wanted, and its machine."""
        found = [(machine, tree) for machine in self.machines for tree in machine.trees if wanted(tree)]
        return self.random.choice(found) if found else None


def runs(tree: Tree) -> bool:
    """Tell whether the tree's eval is running."""
    return tree.phase is Phase.RUNNING and tree.eval


def can_step(tree: Tree) -> bool:
    """Tell whether the tree has something to do by itself."""
    return tree.lives and (not runs(tree) or tree.stop)
