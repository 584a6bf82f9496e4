"""Which machine a host's name stands for, as the journals here know it: a request that carries it is refused by any other."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fleet.dispatch.files.batch import Batch, batches
from fleet.dispatch.state.views import BatchState
from fleet.errors import FleetError
from fleet.model.states import ON_HOST, TaskState

_LEFT = ON_HOST | {TaskState.HELD}


def machine_of(state: BatchState, host: str) -> str:
    """Return the identity that the host had when the batch first saw it; empty when it never did."""
    view = state.hosts.get(host)
    return view.host_uid if view is not None else ""


def machine_needed(states: Iterable[BatchState], host: str) -> str:
    """Return the identity known to the first of the batches that has something left on the host, empty when none has.

    A machine that was replaced when nothing of any batch was left on it is nobody's trouble.
    """
    return next((known for state in states if _concerned(state, host) and (known := machine_of(state, host))), "")


class Machines:
    """What the batches below `collected` know, the most recently changed one first; an unreadable one is silent."""

    def __init__(self, collected: Path) -> None:
        self._states = [state for name in batches(collected) if (state := _read(Batch(collected, name))) is not None]

    def of(self, host: str) -> str:
        """Return the identity that a batch with something left on the host knows; empty when there is none."""
        return machine_needed(self._states, host)


def _read(batch: Batch) -> BatchState | None:
    try:
        return batch.load()
    except (FleetError, OSError):
        return None


def _concerned(state: BatchState, host: str) -> bool:
    """Tell whether the batch has an attempt on the host that may run or is not settled, or holds it in quarantine."""
    view = state.hosts.get(host)
    if view is not None and view.quarantine is not None:
        return True
    return any(
        view.state in _LEFT and view.attempt is not None and state.attempts[view.attempt].host == host
        for view in state.tasks.values()
    )
