"""The command that goes on with a batch: the one thing an operator needs after anything went wrong."""

from __future__ import annotations

import shlex
from pathlib import PurePath

from fleet.dispatch.views import BatchState
from fleet.model.names import plain


def resume_command(batch: BatchState) -> str:
    """Return the command that dispatches the batch's assignment again, with its name where the file's does not say it."""
    file = plain(batch.assignment_file)
    named = f" --batch {plain(batch.batch, 200)}" if PurePath(file).stem != batch.batch else ""
    return f"fleet dispatch {shlex.quote(file) if file else 'FILE'}{named}"
