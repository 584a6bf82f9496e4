"""What a diagnosis is: shared by the three tables of evidence (agent errors, environment, the model's patch)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fleet.model.verdict import Cause

RETRY = "fleet retry TASK"
ANOTHER_RUN = "dispatch the task with another run"
"""What `fleet retry` cannot do: begin again what counts, or with other settings than the task has begun with."""
MAX_LINE = 600
"""A longer line is cut before a pattern sees it."""


@dataclass(frozen=True)
class Diagnosis:
    """What was recognised, whose fault that is, what to type, and the line that shows it."""

    kind: str
    cause: Cause
    words: str
    fix: str
    evidence: str = ""
    line: int | None = None


def any_of(*patterns: str) -> re.Pattern[str]:
    """Compile alternatives that match in any case."""
    return re.compile("|".join(patterns), re.IGNORECASE)


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines of a log with their numbers, each cut at MAX_LINE."""
    for number, line in enumerate(text.split("\n"), 1):
        yield number, line[:MAX_LINE].rstrip("\r")
