"""Which number an attempt gets when no journal of this machine has given it one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fleet.collect.manifest import PROVENANCE, digest_of, read_result_manifest
from fleet.collect.provenance import Provenance, read_provenance

UNKNOWN_BATCH = "unknown"
ADOPTED = "adopted-"
"""Begins the id of an attempt that fleet did not start; its host has never heard of it."""
"""Where results go whose host names no valid batch."""
_ATTEMPT = re.compile(r"attempt([1-9][0-9]{0,8})\Z")


def attempts_here(task_dir: Path) -> Iterator[tuple[int, Path]]:
    """Yield (number, directory) of every published attempt of a task, in order."""
    try:
        names = [entry.name for entry in task_dir.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return
    numbers = sorted(int(match.group(1)) for match in map(_ATTEMPT.match, names) if match)
    for number in numbers:
        yield number, task_dir / f"attempt{number}"


def find_result(task_dir: Path, attempt_id: str) -> int | None:
    """Return the number under which an attempt's result is here, or None."""
    for number, directory in attempts_here(task_dir):
        # The text is looked at first: a task may have many attempts, and their provenance is not small.
        if attempt_id in _text(directory) and _is_of(read_provenance(directory), attempt_id):
            return number
    return None


def find_same(task_dir: Path, host: str, source: str, digest: str) -> tuple[int, str] | None:
    """Return (number, attempt id) of a result with exactly these files, or that fleet itself collected from there."""
    for number, directory in attempts_here(task_dir):
        document = read_provenance(directory)
        if document is None:
            continue
        own = document.origin == "dispatched" and (document.host, document.source) == (host, source)
        if own or digest_of(read_result_manifest(directory)) == digest:
            return number, document.attempt
    return None


def free_number(task_dir: Path, floor: int = 1) -> int:
    """Return the first number, at least `floor`, that is above every published attempt's."""
    return max([floor, *(number + 1 for number, _ in attempts_here(task_dir))])


def _is_of(document: Provenance | None, attempt_id: str) -> bool:
    return document is not None and document.attempt == attempt_id


def _text(directory: Path) -> str:
    try:
        return (directory / PROVENANCE).read_text("utf-8", "replace")
    except OSError:
        return ""
