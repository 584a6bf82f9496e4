"""All checks, in the order in which their findings are shown."""

from __future__ import annotations

from fleet.checks import (
    busy,
    clock,
    commands,
    critical,
    disk,
    docker,
    enclosure,
    foreign,
    home,
    leftover,
    memory,
    python,
    quarantine,
    rsync,
    scripts,
    shell,
    tools,
    uncollected,
    workdir,
)
from fleet.checks.base import Check

CHECKS: tuple[Check, ...] = (
    workdir.CHECK,
    critical.CHECK,
    scripts.CHECK,
    python.CHECK,
    home.CHECK,
    rsync.CHECK,
    shell.CHECK,
    tools.CHECK,
    commands.CHECK,
    clock.CHECK,
    enclosure.CHECK,
    docker.CHECK,
    disk.CHECK,
    memory.CHECK,
    busy.CHECK,
    foreign.CHECK,
    leftover.CHECK,
    quarantine.CHECK,
    uncollected.CHECK,
)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(check.group for check in CHECKS))
"""Columns of the table."""
GROUP_OF: dict[str, str] = {check.name: check.group for check in CHECKS}
AGENT = "agent"
"""Name of the finding about an answer that could not be used; it belongs to no single check."""
