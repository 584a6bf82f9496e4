"""Verdicts kept beside results, and the document that holds them."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from fleet.errors import StorageError
from fleet.model.verdict import SCHEMA, Outcome, Verdict

VERDICT = "verdict.json"
_CAP = 64 * 1024 * 1024


def is_collected(path: Path) -> bool:
    """Tell whether a result directory is an attempt that fleet collected."""
    return (path / "fleet.json").is_file()


def document(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return the `fleet.verdict/1` document without its schema: results and summary.

    A rejected result never counts as resolved, whatever it claims.
    """
    counted = {outcome: sum(1 for verdict in verdicts if verdict.verdict is outcome) for outcome in Outcome}
    resolved = sum(1 for verdict in verdicts if verdict.facts.resolved and verdict.verdict is not Outcome.REJECTED)
    return {
        "results": [verdict.model_dump(mode="json") for verdict in verdicts],
        "summary": {**{str(outcome): number for outcome, number in counted.items()}, "resolved": resolved},
    }


def write_verdict(path: Path, verdict: Verdict) -> None:
    """Write verdict.json into the result directory `path`, atomically; an unchanged verdict is not written again."""
    body = json.dumps({"schema": SCHEMA, **document([verdict])}, indent=2) + "\n"
    target = path / VERDICT
    with suppress(OSError):
        if target.read_text(encoding="utf-8") == body:
            return
    try:
        descriptor, name = tempfile.mkstemp(prefix=".verdict-", dir=path)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(f"{target}: the verdict could not be written: {error.strerror}", hint="df -h, ls -ld") from error


def read_verdict(path: Path) -> Verdict | None:
    """Return the verdict kept in a result directory, or None when there is none that can be read."""
    target = path / VERDICT
    try:
        if target.stat().st_size > _CAP:
            return None
        body = json.loads(target.read_bytes())
        return Verdict.model_validate(body["results"][0])
    except (OSError, ValueError, RecursionError, KeyError, IndexError, TypeError, ValidationError):
        return None
