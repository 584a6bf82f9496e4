"""What goes wrong in a soak: chosen at random, always undone, counted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.soak.hosts import BATCH, SoakFleet
from tests.support.agent_host import kill
from tests.support.operator import finish

_SHORT_S, _LONG_S = 2.0, 8.0


class Faults:
    """Draws faults and takes each back after its time; `controller` returns the pid of the one that is at work."""

    def __init__(self, fleet: SoakFleet, random: Random, controller: Callable[[], int | None]) -> None:
        self.fleet, self.random, self.controller = fleet, random, controller
        self.counts: Counter[str] = Counter()
        self._repairs: list[tuple[float, Callable[[], None]]] = []
        self._away: set[str] = set()
        self._second: subprocess.Popen[str] | None = None
        self._rival: subprocess.Popen[str] | None = None
        self._choices: list[tuple[Callable[[float], str], float]] = [
            (self._cut_sessions, 4),
            (self._refuse, 3),
            (self._clog, 3),
            (self._kill_process, 4),
            (self._second_machine, 1),
            (self._second_here, 1),
        ]
        if fleet.disk_mb is not None:
            self._choices.append((self._fill_disk, 0.7))

    def inject(self, now: float, *, spare_controller: bool = False) -> None:
        """Let one thing go wrong; with `spare_controller` none that ends the one at work."""
        able = [(choice, weight) for choice, weight in self._choices if not spare_controller or choice != self._fill_disk]
        kind = self.random.choices([choice for choice, _ in able], [weight for _, weight in able])[0](now)
        if kind:
            self.counts[kind] += 1

    def repair(self, now: float) -> None:
        """Undo what has lasted long enough."""
        due = [undo for at, undo in self._repairs if at <= now]
        self._repairs = [one for one in self._repairs if one[0] > now]
        for undo in due:
            undo()

    def repair_all(self) -> None:
        """Undo everything."""
        self.repair(float("inf"))

    def kill_controller(self, now: float) -> None:
        """Kill the controller; whoever runs the soak starts it again."""
        del now
        pid = self.controller()
        if pid is not None:
            kill(pid)
            self.counts["controller killed"] += 1

    def _later(self, now: float, undo: Callable[[], None]) -> None:
        self._repairs.append((now + self.random.uniform(_SHORT_S, _LONG_S), undo))

    def _host(self) -> str | None:
        free = [name for name in self.fleet.farm.names if name not in self._away]
        return self.random.choice(free) if free else None

    def _cut_sessions(self, _now: float) -> str:
        name = self._host()
        pids = self.fleet.farm.sessions(name) if name else []
        for pid in pids:
            kill(pid)
        return "sessions of a host cut" if pids else ""

    def _refuse(self, now: float) -> str:
        name = self._host()
        if name is None:
            return ""
        self._away.add(name)
        self.fleet.farm.stop_host(name)

        def undo() -> None:
            self.fleet.farm.start_host(name)
            self._away.discard(name)

        self._later(now, undo)
        return "sshd of a host stopped"

    def _clog(self, now: float) -> str:
        """Stop a host's sshd and its sessions: connections are accepted by the kernel, and nothing answers."""
        name = self._host()
        if name is None:
            return ""
        self._away.add(name)
        pids = [self.fleet.farm.listeners[name].pid, *self.fleet.farm.sessions(name)]
        for pid in pids:
            kill(pid, signal.SIGSTOP)

        def undo() -> None:
            for pid in pids:
                kill(pid, signal.SIGCONT)
            self._away.discard(name)

        self._later(now, undo)
        return "link of a host clogged"

    def _kill_process(self, _now: float) -> str:
        """Kill supervisor, runner or eval of something that runs, or all of them."""
        name = self._host()
        if name is None:
            return ""
        for started in (self.fleet.farm.homes[name] / ".fleet" / "attempts").glob("*/started.json"):
            with contextlib.suppress(OSError, ValueError):
                if (started.parent / "rc.json").exists():
                    continue
                supervisor = int(json.loads(started.read_text()).get("pid", 0))
                runner = _child(supervisor)
                tree = {"supervisor": supervisor, "runner": runner, "eval": _child(runner)}
                who = self.random.choice([*tree, "all three"])
                victims = [pid for part, pid in tree.items() if pid and who in (part, "all three")]
                for pid in victims:
                    kill(pid)
                return f"{who} of an eval killed" if victims else ""
        return ""

    def _fill_disk(self, now: float) -> str:
        filler = self.fleet.disk / "filler"
        free = os.statvfs(self.fleet.disk)
        with contextlib.suppress(OSError), filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        self._later(now, lambda: filler.unlink(missing_ok=True))
        return "disk here full"

    def _second_machine(self, now: float) -> str:
        """Dispatch the pinned tasks from another machine, and kill that controller in the middle."""
        if self._second is not None:
            return ""
        self._second = process = self.fleet.person("second").start("dispatch", self.fleet.pinned, "--quarantine", "0", "-q")

        def undo() -> None:
            kill(process.pid)
            finish(process)
            self._second = None

        self._later(now, undo)
        return "second controller elsewhere"

    def _second_here(self, now: float) -> str:
        """Dispatch the same batch here once more; it is refused, or takes the place of one that was just killed."""
        if self._rival is not None:
            return ""
        self._rival = process = self.fleet.operator.start("dispatch", self.fleet.assignment, "--batch", BATCH, "-q")

        def undo() -> None:
            kill(process.pid)
            finish(process)
            self._rival = None

        self._later(now, undo)
        return "second controller here"


def _child(pid: int) -> int:
    """Return the first child of a process, 0 when it has none."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    found = path.read_text().split() if pid and path.exists() else []
    return int(found[0]) if found else 0
