"""Histories in which a laptop loses its journal at any moment, and is given a new one from the machines and its files."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.dispatch.files.journal_line import encode
from fleet.dispatch.state.replay import replay
from fleet.dispatch.state.views import BatchState
from fleet.model.states import SUCCESS
from tests.simulation.history import Broken, History
from tests.simulation.laptop import Laptop, simulated_files
from tests.simulation.recovery import damage, recover


@dataclass
class Losses:
    """What a number of such histories came to."""

    histories: int = 0
    held: int = 0
    accepted: int = 0
    running: int = 0
    broken: list[str] = field(default_factory=list)


def losses(seeds: range, enough: int = 3) -> Losses:
    """Run the histories of `seeds` until `enough` of them have broken a promise."""
    figures = Losses()
    for seed in seeds:
        with simulated_files():
            history = History(seed)
            try:
                _one(history, figures)
            except Broken as broken:
                figures.broken.append(str(broken))
        figures.histories += 1
        if len(figures.broken) >= enough:
            break
    return figures


def _one(history: History, figures: Losses) -> None:
    history.go(history.random.randint(5, 300))
    laptop = history.laptops[0]
    # What the dead controller had sent is on its hosts by now; what is still on the way nobody could know of.
    history.deliver_all()
    before = laptop.journal.shadow
    names = [machine.name for machine in history.machines]
    silent = [name for name in names if history.random.random() < 0.4]
    history.told.append(f"--- {laptop.name} loses its journal; silent: {silent} ---")
    data = damage(history, laptop)
    first = recover(history, laptop, data, silent)
    figures.held += len(first.held)
    figures.running += sum(view.state == "running" for view in first.state.tasks.values())
    figures.accepted += _keep(history, before, first.state)
    history.forget(laptop)
    if silent:
        # The others go on meanwhile, as far as they get; what is held stays where it is.
        if history.random.random() < 0.5:
            history.go(40)
        else:
            history.calm()
            history.converge()
        history.deliver_all()
        laptop.controller = None
        middle = laptop.journal.shadow
        again = recover(history, laptop, _encoded(laptop))
        _keep(history, middle, again.state)
        history.forget(laptop)
        if again.held:
            history.violate(f"{laptop.name}: every machine has answered, and {sorted(again.held)} are held")
    once_more = recover(history, laptop, _encoded(laptop))
    if _shape(once_more.state) != _shape(replay(laptop.journal.read())):
        history.violate("a recovery of a recovered journal says something else")
    history.forget(laptop)
    history.raise_broken()
    history.end()


def _keep(history: History, before: BatchState, after: BatchState) -> int:
    """Hold a new journal against the old one: what counted counts, by the same attempt."""
    counted = {label: view.attempt for label, view in before.tasks.items() if view.state in SUCCESS}
    for label, attempt in counted.items():
        view = after.tasks[label]
        if view.state not in SUCCESS or view.attempt != attempt:
            history.violate(f"{label} was accepted with {attempt} and is {view.state} with {view.attempt}")
    return len(counted)


def _encoded(laptop: Laptop) -> bytes:
    return b"".join(map(encode, laptop.journal.read()))


def _shape(state: BatchState) -> object:
    return {label: (view.state, view.attempt, view.attempts) for label, view in state.tasks.items()}
