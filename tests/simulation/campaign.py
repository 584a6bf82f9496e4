"""Many histories, one after the other: counted, and the first broken promise shown with what led to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.bugs import Bug
from tests.simulation.disk import Killed
from tests.simulation.history import Broken, History
from tests.simulation.laptop import simulated_files


@dataclass
class Figures:
    """What a campaign came to."""

    histories: int = 0
    steps: int = 0
    evals: int = 0
    states: set[int] = field(default_factory=set)
    met: Counter[str] = field(default_factory=Counter)
    """Troubles by kind."""
    broken: list[History] = field(default_factory=list)
    seconds: float = 0.0


def simulate(seed: int, bug: Bug = Bug.NONE) -> History:
    """Return the history of a seed, with what was broken in `broken`; the same seed gives the same history."""
    with simulated_files(bug):
        history = History(seed, bug)
        try:
            history.run()
        except Broken:
            pass
        except (Exception, Killed) as error:  # noqa: BLE001 - whatever ends a controller is a finding, with its history
            history.broken.append(f"{type(error).__name__}: {error}")
        finally:
            history.close()
        return history


def campaign(seeds: Iterable[int], bug: Bug = Bug.NONE, *, enough: int = 3) -> Figures:
    """Run the histories of `seeds` until `enough` of them have broken a promise."""
    figures, begun = Figures(), time.monotonic()
    for seed in seeds:
        history = simulate(seed, bug)
        figures.histories += 1
        figures.steps += history.steps
        figures.evals += sum(sum(machine.starts.values()) for machine in history.machines)
        figures.states |= history.states
        figures.met += history.network.met
        if history.broken:
            figures.broken.append(history)
            if len(figures.broken) >= enough:
                break
    figures.seconds = time.monotonic() - begun
    return figures
