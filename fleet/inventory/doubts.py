"""What an inventory says and most likely does not mean: a pipeline that is nowhere, a group that is another's misspelling."""

from __future__ import annotations

import difflib
from typing import NamedTuple

from fleet.errors import InputError
from fleet.inventory import Inventory
from fleet.inventory.pipelines import Pipelines

ALIKE = 0.8
"""As difflib measures it: `gpus` is like `gpu`, `gpu2` is not like `gpu1`."""


class Doubt(NamedTuple):
    """One thing to look at in hosts.yaml."""

    host: str
    message: str


def doubts(inventory: Inventory, pipelines: Pipelines) -> list[Doubt]:
    """Return what to look at, in the order of the hosts; nothing of it is refused, because it may be meant."""
    unknown = {name: _unknown_pipeline(name, pipelines) for name in {host.pipeline for host in inventory.hosts}}
    found = []
    for host in inventory.hosts:
        if unknown[host.pipeline]:
            found.append(Doubt(host.name, unknown[host.pipeline]))
        for group in host.groups:
            near = _slip_of(group, inventory)
            if near:
                message = f"is alone in group {group!r}, which only its own entry names; did you mean {near!r}?"
                found.append(Doubt(host.name, message))
    return found


def _unknown_pipeline(name: str, pipelines: Pipelines) -> str:
    try:
        pipelines.folder(name)
    except InputError as error:
        return error.message
    return ""


def _slip_of(group: str, inventory: Inventory) -> str:
    if group in inventory.declared or len(inventory.groups.get(group, ())) > 1:
        return ""
    others = [name for name in inventory.groups if name != group]
    return next(iter(difflib.get_close_matches(group, others, n=1, cutoff=ALIKE)), "")
