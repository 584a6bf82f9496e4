"""How long a command takes that talks to no host: help, version, and the dashboard of a large batch."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

from fleet.model.verdict import Outcome
from tests.bench.measure import Row, execute, fleet, in_turn
from tests.support.batches import Batch, reject, task

TASKS, HOSTS = 500, 50


def start_up(directory: Path, runs: int) -> list[Row]:
    """Compare with the start of the bare interpreter."""
    _large_batch().write(directory / "collected")
    env = {**os.environ, "FLEET_COLLECTED": str(directory / "collected")}
    found = in_turn(
        3 * runs,
        {
            "python": functools.partial(execute, [sys.executable, "-I", "-S", "-c", "pass"]),
            "help": functools.partial(execute, fleet("--help")),
            "version": functools.partial(execute, fleet("--version")),
            "dashboard": functools.partial(execute, fleet("dashboard"), env=env),
            "json": functools.partial(execute, fleet("dashboard", "--json"), env=env),
        },
    )
    bare = found["python"].wall_s
    note = f"python -I -S -c pass: {1000 * bare:.0f} ms"
    return [
        Row("fleet --help over a bare interpreter", found["help"].wall_s / bare, "×", 12.0, note),
        Row("fleet --version over a bare interpreter", found["version"].wall_s / bare, "×", 12.0),
        Row(f"fleet dashboard, {TASKS} tasks", found["dashboard"].wall_s, "s", 1.0),
        Row(f"fleet dashboard --json, {TASKS} tasks", found["json"].wall_s, "s", 1.0),
    ]


def _large_batch() -> Batch:
    hosts = tuple(f"eval{number}" for number in range(1, HOSTS + 1))
    tasks = [task(f"1319{number:04d}", ("gpt", "claude")[number % 2], hosts[number % HOSTS]) for number in range(TASKS)]
    batch = Batch(tasks, hosts).ready()
    broken = reject("no-tests-executed", "zero tests; the log says: pytest: command not found")
    for number, one in enumerate(tasks):
        if number % 20 == 0:
            batch.run(one, one.hosts[0], Outcome.REJECTED, broken, elapsed_s=1.0)
        else:
            batch.run(one, one.hosts[0], elapsed_s=1.0)
    return batch
