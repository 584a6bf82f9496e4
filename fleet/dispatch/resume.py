"""The commands that come next, so that they can be typed as they stand: with the batch that they are about."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from fleet.dispatch.views import BatchState
from fleet.model.names import plain

_NAMED = ("fleet logs", "fleet cancel", "fleet retry", "fleet why")
"""Take the batch as `--batch NAME`; without it they mean the batch that changed last."""
_PLACED = ("fleet status", "fleet collect", "fleet dashboard")
"""Take it as their first word."""


def resume_command(batch: BatchState) -> str:
    """Return the command that dispatches the batch's assignment again, with its name where the file's does not say it."""
    file = plain(batch.assignment_file)
    named = f" --batch {plain(batch.batch, 200)}" if PurePath(file).stem != batch.batch else ""
    return f"fleet dispatch {shlex.quote(file) if file else 'FILE'}{named}"


def typed(template: str, batch: BatchState, *, task: str = "", host: str = "") -> str:
    """Return a command of the failure tables for this batch: TASK and HOST filled in, and the batch where it takes one."""
    command = template.replace("TASK", task) if task else template
    command = command.replace("HOST", host) if host else command
    name = plain(batch.batch, 200)
    words = command.split(" ")
    if not name or words[0] != "fleet" or "--batch" in words:
        return command
    verb = " ".join(words[:2])
    if verb in _NAMED:
        return f"{command} --batch {name}"
    if verb in _PLACED and len(words) == 2:
        return f"{command} {name}"
    return command
