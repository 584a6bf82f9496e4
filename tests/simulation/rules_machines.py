"""Rules: what happens on machines and on the way to them."""

from __future__ import annotations

from tests.simulation.world import World, can_step, runs

_ENDS = ((0, "good"), (0, "good"), (0, "odd"), (1, "bad"), (3, "good"), (-9, "partial"))


class MachineRules(World):
    """Processes end, are killed or come up late; machines reboot, fill up, are cut off; clocks jump."""

    def _advance(self) -> None:
        found = self.tree(can_step)
        if found:
            machine, tree = found
            if self.random.random() < self.network.trouble / 4:
                machine.disk.fuse, machine.power = self.random.randrange(6), self.crowded or self.random.random() < 0.5
            machine.settle(tree)
            machine.disk.fuse, machine.power = None, False

    def _end_eval(self) -> None:
        found = self.tree(runs)
        if found:
            machine, tree = found
            status, product = self.random.choice(
                [(0, "good"), (0, "good"), (0, "odd"), (1, "bad"), (3, "good"), (-9, "partial")]
            )
            machine.end_eval(tree, status, product)
            self.told.append(f"{machine.name}: the eval of {tree.attempt} ends with {status}")

    def _kill_process(self) -> None:
        found = self.tree(lambda tree: tree.supervisor or tree.runner)
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

    def _print(self) -> None:
        found = self.tree(runs)
        if found:
            self.network.moved[found[1].attempt] += 1

    def _slow_start(self) -> None:
        machine = self.random.choice(self.machines)
        machine.slow, machine.patient = self.random.choice([1, 3, 10]), self.crowded or self.random.random() < 0.5
        self.told.append(f"{machine.name}: the next supervisor comes up late")

    def _doomed_start(self) -> None:
        machine = self.random.choice(self.machines)
        machine.slow, machine.doomed = self.random.randrange(1, 4), True
        self.told.append(f"{machine.name}: the next supervisor comes up late and dies at once")

    def _go_on(self) -> None:
        machine = self.random.choice([machine for machine in self.machines if machine.stalled])
        machine.go_on(self.random.randrange(len(machine.stalled)))
        self.told.append(f"{machine.name}: an agent that had stopped goes on")

    def _deliver_late(self) -> None:
        waiting = [machine for machine in self.machines if machine.late]
        if waiting:
            machine = self.random.choice(waiting)
            request = machine.late.pop(self.random.randrange(len(machine.late)))
            frames = machine.call(request)
            outcome = frames[-1].get("outcome") or frames[-1].get("error") if frames else None
            self.told.append(f"{machine.name}: a late {request['verb']} {request.get('attempt')} arrives → {outcome}")

    def _pass_time(self) -> None:
        self.wait(self.random.choice([1.0, 10.0, 100.0]))
