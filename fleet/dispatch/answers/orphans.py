"""Hosts that have something of a batch and are no longer in the inventory: shown as orphans, because nobody can ask them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from fleet.dispatch.state.views import BatchState
from fleet.model.states import ON_HOST, TaskState

_LEFT_BEHIND = ON_HOST | {TaskState.LOST, TaskState.HELD}


def with_orphans(state: BatchState, names: Collection[str], inventory: str) -> BatchState:
    """Return the state in which every host that is not among `names` and may hold something uncollected is an orphan."""
    having = {
        attempt.host
        for view in state.tasks.values()
        if view.state in _LEFT_BEHIND and (attempt := state.attempts.get(view.attempt or "")) is not None
        if attempt.path is None
    }
    gone = {name for name in having if name in state.hosts and name not in names}
    if not gone:
        return state
    why = f"no longer in {inventory}; put it back to follow and to collect what it has"
    hosts = {name: replace(host, orphan=why) if name in gone else host for name, host in state.hosts.items()}
    return replace(state, hosts=hosts)
