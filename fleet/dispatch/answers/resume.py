"""The commands that come next, so that they can be typed as they stand: with the batch that they are about."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from fleet.dispatch.state.views import BatchState
from fleet.model.names import plain

_NAMED = ("fleet logs", "fleet cancel", "fleet retry", "fleet why")
"""Take the batch as `--batch NAME`; without it they mean the batch that changed last."""
_PLACED = ("fleet status", "fleet collect", "fleet dashboard")
"""Take it as their first word."""


def resume_command(batch: BatchState) -> str:
    """Return the command that dispatches the batch's assignment again, with its name where the file's does not say it."""
    file = plain(batch.assignment_file)
    named = f" --batch {plain(batch.batch, 200)}" if PurePath(file).stem != batch.batch else ""
    return f"fleet dispatch {_file(batch)}{named}"


def anew_command(batch: BatchState, host: str) -> str:
    """Return the command that gives a host's tasks to a batch of their own, whatever this one knows of them."""
    return f"fleet dispatch {_file(batch)} --hosts {host} --batch NAME"


def _file(batch: BatchState) -> str:
    file = plain(batch.assignment_file)
    return shlex.quote(file) if file else "FILE"


def typed(template: str, batch: BatchState, *, task: str = "", host: str = "") -> str:
    """Return a command of the failure tables for this batch: TASK and HOST filled in, and the batch where it takes one."""
    known = {"TASK": task, "HOST": host, "BATCH": plain(batch.batch, 200)}
    command = re.sub(r"\b(TASK|HOST|BATCH)\b", lambda match: known[match[1]] or match[1], template)
    name, words = plain(batch.batch, 200), command.split(" ")
    verb = " ".join(words[:2])
    if not name or "--batch" in words:
        return command
    if verb in _NAMED:
        return f"{command} --batch {name}"
    if verb in _PLACED and (len(words) == 2 or words[2].startswith("--")):
        return " ".join([verb, name, *words[2:]])
    return command
