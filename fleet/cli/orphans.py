"""What a command shows of a batch whose hosts may have left the inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.cli.options import Context
from fleet.errors import InputError

if TYPE_CHECKING:
    from fleet.dispatch.state.views import BatchState


def shown(ctx: Context, state: BatchState) -> BatchState:
    """Return the state with its orphans; as it is where there is no inventory to compare with."""
    from fleet.dispatch.answers.orphans import with_orphans

    try:
        inventory = ctx.inventory()
    except InputError:
        return state
    return with_orphans(state, {host.name for host in inventory.hosts}, str(inventory.path))
