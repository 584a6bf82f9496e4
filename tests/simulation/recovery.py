"""A laptop whose journal is damaged at any moment, and what `fleet recover` makes of it: from the machines and the files."""

from __future__ import annotations

from collections.abc import Collection

from fleet.dispatch.files.journal_line import encode
from fleet.dispatch.recovery.casebook import Silent, Sources
from fleet.dispatch.recovery.evidence import claims_of
from fleet.dispatch.recovery.rebuild import Rebuilt, rebuild
from fleet.dispatch.recovery.salvage import records_in
from fleet.model.records import BatchOpened
from fleet.model.states import Link
from tests.simulation.history import History
from tests.simulation.laptop import Laptop, SimulatedJournal
from tests.simulation.machine import Machine


def damage(history: History, laptop: Laptop) -> bytes:
    """Return what is left of the laptop's journal: nothing, a part, lines missing, or bytes changed anywhere."""
    random = history.random
    data = b"".join(map(encode, laptop.journal.read()))
    kind = random.choice(["gone", "cut", "headless", "holes", "garbled", "whole"])
    if kind == "gone" or not data:
        return b""
    if kind == "cut":
        return data[: random.randrange(len(data))]
    if kind == "headless":
        return data[random.randrange(len(data)) :]
    if kind == "holes":
        share = random.choice([0.05, 0.3, 0.7])
        return b"".join(line + b"\n" for line in data.splitlines() if random.random() > share)
    if kind == "garbled":
        changed = bytearray(data)
        for _ in range(random.choice([1, 5, 40])):
            changed[random.randrange(len(changed))] = random.randrange(256)
        return bytes(changed)
    return data


def recover(history: History, laptop: Laptop, data: bytes, silent: Collection[str] = ()) -> Rebuilt:
    """Give the laptop the journal that is rebuilt from `data`, its files and the machines that answer."""
    records, _ = records_in(data)
    claims, refused = {}, {}
    for machine in history.machines:
        if machine.name in silent:
            refused[machine.name] = Silent(Link.UNREACHABLE, "no answer")
            continue
        found, unclear = claims_of(machine.name, _answer(machine))
        if unclear:
            refused[machine.name] = Silent(Link.OK, unclear)
        claims[machine.name] = found
    opening = BatchOpened(
        batch=laptop.name,
        assignment_sha256="0",
        controller=laptop.name,
        tasks=laptop.tasks,
        hosts={machine.name: "p" for machine in history.machines},
    )
    rebuilt = rebuild(
        Sources(opening, records, claims, refused, list(laptop.results.values()), now=history._now(), damaged="old")
    )
    journal = SimulatedJournal(history._now)
    journal.append(*rebuilt.records)
    laptop.journal, laptop.controller, laptop.unread = journal, None, False
    history.told.append(f"{laptop.name}: recovered; held: {sorted(rebuilt.held)}")
    history.told += [f"{laptop.name}: journal {line}" for line in journal.lines]
    return rebuilt


def _answer(machine: Machine) -> dict[str, object]:
    frames = machine.call({"verb": "status", "every": True, "nonce": "0"})
    assert frames is not None
    return dict(frames[-1])
