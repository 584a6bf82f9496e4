"""The host's fault, shown at the end of an eval's own log: its engine or its disk failed under it."""

from __future__ import annotations

import re

from fleet.model.verdict import Cause
from fleet.quality.diagnosis import RETRY, Diagnosis, any_of, numbered

LOG = "fleet.log"
TAIL = 16 << 10
"""Bytes of the log's end that are looked at: what an eval dies of is the last thing that it says."""

_FAULTS: tuple[tuple[str, str, str, re.Pattern[str]], ...] = (
    (
        "engine",
        "the Docker engine went away",
        "fleet check HOST",
        any_of(
            r"Cannot connect to the Docker daemon",
            r"error during connect:",
            r"error waiting for container: ",
            r"failed to connect to the docker API",
            r"^docker: unexpected EOF",
        ),
    ),
    (
        "no-space",
        "the disk was full",
        "free disk on the host (fleet check HOST), then " + RETRY,
        any_of(r"No space left on device"),
    ),
    ("disk", "the disk failed", "fleet check HOST", any_of(r"Read-only file system", r"Input/output error")),
)


def host_fault(tail: str) -> Diagnosis | None:
    """Return the last line that shows the host at fault, None where the log's end tells of none."""
    found = None
    for number, line in numbered(tail):
        for kind, words, fix, pattern in _FAULTS:
            if pattern.search(line):
                found = Diagnosis(kind, Cause.ENVIRONMENT, words, fix, line, number)
    return found
