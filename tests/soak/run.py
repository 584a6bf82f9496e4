"""One soak: dispatch, let things go wrong for a time, let it come to rest, and hold the account."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.soak.account import Account, account, leftovers, unended
from tests.soak.faults import Faults
from tests.soak.hosts import BATCH, SoakFleet, may_mount
from tests.soak.watch import Watch
from tests.support.operator import finish, kill

LOOK_EVERY_S = 0.5
MAX_ROUNDS = 40


@dataclass(frozen=True)
class Plan:
    """How large, how long, and which accidents."""

    hosts: int = 300
    evals: int = 10
    minutes: float = 15.0
    """At most; the last fifth is for coming to rest."""
    seconds: float = 2.0
    """Of one eval."""
    seed: int = 1
    every_s: float = 1.0
    """Between two faults."""
    lives: int = 4
    """Times that the controller is killed."""


@dataclass
class Outcome:
    """What a soak came to."""

    plan: Plan
    seconds: float
    account: Account
    watch: Watch
    faults: Faults
    codes: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def soak(plan: Plan, directory: Path | None = None) -> Outcome:
    """Run one soak in a fresh directory, and clean up whatever happens."""
    with tempfile.TemporaryDirectory(prefix="fleet-soak-", dir=directory) as name:
        disk_mb = max(64, plan.hosts * plan.evals // 2) if may_mount() else None
        with SoakFleet(Path(name), plan.hosts, plan.evals, plan.seconds, disk_mb) as fleet:
            return _Soak(plan, fleet).run()


class _Soak:
    def __init__(self, plan: Plan, fleet: SoakFleet) -> None:
        self.plan, self.fleet = plan, fleet
        self.random = Random(plan.seed)
        self.watch = Watch(hosts=plan.hosts)
        self.process: subprocess.Popen[str] | None = None
        self.faults = Faults(fleet, self.random, lambda: self.process.pid if self.process else None)
        self.codes: list[int] = []
        self.begun = time.monotonic()

    def run(self) -> Outcome:
        try:
            self._troubles()
            self.faults.repair_all()
            self._rest()
        finally:
            self.faults.repair_all()
            self._end_controller()
        found = account(self.fleet)
        left = leftovers(self.fleet)
        wrong = [*found.wrong, *(f"left running: {one}" for one in left)]
        return Outcome(self.plan, time.monotonic() - self.begun, found, self.watch, self.faults, self.codes, wrong)

    @property
    def now(self) -> float:
        return time.monotonic() - self.begun

    def _troubles(self) -> None:
        """Keep a controller at work while faults come and go; what ends it happens in the first half of the time only."""
        until = self.plan.minutes * 60 * 0.8
        kills = [until / 2 * (number + 1) / (self.plan.lives + 1) for number in range(self.plan.lives)]
        next_fault = 1.0
        while self.now < until:
            if self._controller_ended() and self._all_ended():
                return
            if self.process is None:
                self._start()
            if kills and self.now >= kills[0]:
                kills.pop(0)
                self.faults.kill_controller(self.now)
            if self.now >= next_fault:
                next_fault = self.now + self.random.expovariate(1 / self.plan.every_s)
                self.faults.inject(self.now, spare_controller=self.now > until / 2)
            self.faults.repair(self.now)
            if self.process is not None:
                self.watch.look(self.process.pid, self.now)
            time.sleep(LOOK_EVERY_S)

    def _rest(self) -> None:
        """Let everything end: first what there is time for, then only what runs; what has not begun is cancelled."""
        until = self.plan.minutes * 60
        for _ in range(MAX_ROUNDS):
            if self._controller_ended():
                self._start(*(("--only", "failed,lost,rejected,held") if self._all_ended() else ()))
            while self.process is not None and not self._controller_ended() and self.now < until:
                self.watch.look(self.process.pid, self.now)
                time.sleep(LOOK_EVERY_S)
            if self.now >= until:
                break
            if set(self.fleet.operator.states(BATCH).values()) <= {"accepted", "flagged"}:
                return
        self._end_controller()
        self.fleet.operator.run("cancel", "--all", "--batch", BATCH, "--grace", "1", "--yes", "-q")
        self._start()
        with contextlib.suppress(AssertionError):
            assert self.process is not None
            self.codes.append(finish(self.process, 180).code)
        self.process = None

    def _start(self, *more: str) -> None:
        words = ["--batch", BATCH, "--quarantine", "0", "--patience", "20", "-q", *more]
        self.process = self.fleet.operator.start("dispatch", self.fleet.assignment, *words)

    def _controller_ended(self) -> bool:
        """Tell whether no controller is at work, noting how the last one ended."""
        if self.process is not None and self.process.poll() is not None:
            self.codes.append(finish(self.process).code)
            self.process = None
        return self.process is None

    def _all_ended(self) -> bool:
        journal = self.fleet.disk / "first" / BATCH / "journal.jsonl"
        if not journal.exists():
            return False
        return not unended(self.fleet.operator.states(BATCH))

    def _end_controller(self) -> None:
        if self.process is not None:
            kill(self.process)
            self.process = None
