"""Where batches are on this machine, and how one is read back: its journal is all that is needed, no host is asked."""

from __future__ import annotations

from pathlib import Path

from fleet.dispatch.journal import Journal
from fleet.dispatch.state import BatchState, replay
from fleet.errors import InputError
from fleet.model.base import nearest
from fleet.model.names import is_name
from fleet.model.records import AnyRecord, ResultJudged

JOURNAL = "journal.jsonl"


def batch_folders(collected: Path) -> list[Path]:
    """Return the folders below `collected` that hold a journal, the most recently changed one first."""
    found = []
    try:
        entries = sorted(collected.iterdir())
    except OSError:
        return []
    for folder in entries:
        try:
            found.append(((folder / JOURNAL).stat().st_mtime_ns, folder))
        except OSError:
            continue
    return [folder for _, folder in sorted(found, key=lambda item: (-item[0], item[1].name))]


def find_batch(collected: Path, name: str | None) -> Path:
    """Return the folder of batch `name` (default: the most recently changed), or raise InputError that says what there is."""
    folders = batch_folders(collected)
    if not folders:
        raise InputError(f"no batch below {collected}/", hint="fleet dispatch ASSIGNMENT.json   (or: fleet demo)")
    if name is None:
        return folders[0]
    if is_name(name) and (collected / name / JOURNAL).is_file():
        return collected / name
    names = [folder.name for folder in folders]
    near = nearest(name, names)
    hint = f"fleet dashboard {near or names[0]}"
    also = f", did you mean {near!r}?" if near else f"; there is {', '.join(names[:5])}" + (" …" if len(names) > 5 else "")
    raise InputError(f"no batch {name[:80]!r} below {collected}/{also}", hint=hint)


def read_batch(folder: Path) -> tuple[BatchState, dict[str, ResultJudged]]:
    """Return the state of the batch in `folder` and the verdict of every attempt, earlier ones included."""
    records = Journal(folder / JOURNAL).read()
    return replay(records), verdicts_of(records)


def verdicts_of(records: list[AnyRecord]) -> dict[str, ResultJudged]:
    """Return attempt → its last verdict."""
    return {record.attempt: record for record in records if isinstance(record, ResultJudged)}
