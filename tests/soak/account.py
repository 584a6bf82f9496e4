"""What really happened, from the hosts' own record, held against the journal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.hosts import BATCH, SoakFleet
from tests.support.small_job import lines_of

_OPEN = {"pending", "blocked", "launching", "running", "finished", "collecting", "collected"}


@dataclass
class Account:
    """The figures at the end, and what is wrong with them."""

    states: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    orders: int = 0
    wrong: list[str] = field(default_factory=list)


def account(fleet: SoakFleet) -> Account:
    """Return what became of every task and every attempt."""
    found = Account()
    journal = fleet.operator.journal(BATCH)
    ordered = Counter(record["task"] for record in journal if record["type"] == "retry")
    found.orders = sum(ordered.values())
    found.states = Counter(fleet.operator.states(BATCH).values())
    if sum(found.states.values()) != fleet.tasks:
        found.wrong.append(f"{sum(found.states.values())} of {fleet.tasks} tasks are in the journal")
    open_ = set(found.states) & _OPEN
    if open_:
        found.wrong.append(f"tasks have not ended: {', '.join(f'{found.states[one]} {one}' for one in sorted(open_))}")
    starts = [line.split() for name in fleet.farm.names for line in lines_of(fleet.farm.homes[name] / "starts")]
    found.starts = len(starts)
    for attempt, times in Counter(attempt for attempt, _ in starts).items():
        if times > 1:
            found.wrong.append(f"attempt {attempt} was started {times} times")
    for label, times in Counter(label for _, label in starts).items():
        if times > 1 + ordered[label]:
            found.wrong.append(f"{label} was started {times} times, {ordered[label]} new attempts were ordered")
    for name in fleet.farm.names:
        found.wrong += [f"{name}: {line} ran beside another eval" for line in lines_of(fleet.farm.homes[name] / "overlaps")]
    accepted = {record["attempt"] for record in journal if record["type"] == "judged" and record["verdict"] == "accepted"}
    kept = {
        json.loads(path.read_text())["attempt"] for path in (fleet.disk / "first" / BATCH).glob("*/m/run*/attempt*/fleet.json")
    }
    if accepted - kept:
        found.wrong.append(f"{len(accepted - kept)} accepted results are not here")
    return found


def unended(states: Mapping[str, str]) -> list[str]:
    """Return the tasks that have not ended."""
    return [label for label, state in states.items() if state in _OPEN]


def leftovers(fleet: SoakFleet) -> list[str]:
    """Return the processes that still live on the hosts, their sshd apart."""
    found = []
    homes = str(fleet.farm.directory / "homes").encode()
    for entry in Path("/proc").iterdir():
        try:
            environ, command = (entry / "environ").read_bytes(), (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, ValueError):
            continue
        if b"HOME=" + homes in environ and not command.startswith("sshd"):
            found.append(f"{entry.name} {command[:100]}")
    return found
