"""What a damaged batch directory still holds: the journal's lines that parse, and the collected results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fleet.collect.judged import key_of
from fleet.collect.manifest import read_result_manifest
from fleet.collect.places import attempts_here
from fleet.collect.provenance import Provenance, read_provenance
from fleet.dispatch.files.journal_line import decode
from fleet.dispatch.recovery.evidence import Here
from fleet.errors import StorageError
from fleet.model.names import is_name
from fleet.model.records import AnyRecord
from fleet.quality.folder import Folder
from fleet.quality.manifest import differences
from fleet.quality.store import read_verdict

_HEAD = b'{"v":'
"""How every line begins that a journal of ours holds."""


def records_in(data: bytes) -> tuple[list[AnyRecord], int]:
    """Return every record that can still be read, in order, and how many lines hold something else.

    A torn tail counts as such a line. Two records in one line, because the byte between them is damaged, are both read.
    """
    found: list[AnyRecord] = []
    unreadable = 0
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            record = decode(line)
            found += [] if record is None else [record]
        except ValueError:
            pieces = list(_pieces(line))
            found += pieces
            unreadable += not pieces
    return found, unreadable


def _pieces(line: bytes) -> Iterator[AnyRecord]:
    start = line.find(_HEAD)
    while start >= 0:
        following = line.find(_HEAD, start + 1)
        piece = line[start:following] if following >= 0 else line[start:]
        with suppress(ValueError):
            record = decode(piece[: piece.rfind(b"}") + 1])
            if record is not None:
                yield record
        start = following


def results_in(directory: Path) -> tuple[list[Here], list[str]]:
    """Return the results collected into a batch directory, their files compared with the manifests; and what is none."""
    found: list[Here] = []
    notes: list[str] = []
    for task_dir in sorted({path.parent for path in directory.glob("*/*/run*/attempt*") if path.is_dir()}):
        for number, path in attempts_here(task_dir):
            relative = path.relative_to(directory).as_posix()
            try:
                provenance = read_provenance(path)
            except StorageError as error:
                notes.append(f"{error.message}; {error.hint}")
                continue
            here = None if provenance is None else _here(path, relative, number, provenance)
            if here is None:
                notes.append(f"{path}: is not a result that fleet collected, and was left out")
                continue
            found.append(here)
            if here.damage:
                notes.append(f"{path}: {here.damage}; move it away, then: fleet collect {directory.name} --again")
    return found, notes


def _here(path: Path, relative: str, number: int, provenance: Provenance) -> Here | None:
    task = provenance.task
    key = key_of(
        {
            "instance_id": task.instance_id,
            "model": task.model,
            "run": task.run,
            "dataset_sha256": provenance.dataset.sha256,
        }
    )
    if key is None or not is_name(provenance.attempt) or not relative.startswith(f"{key.label}/"):
        return None
    files = size = 0
    damage = ""
    try:
        manifest = read_result_manifest(path)
        files, size = len(manifest.files), sum(file.size for file in manifest.files)
        with Folder(path) as folder:
            bad = differences(folder, ())
        damage = f"{bad[0][0]} {bad[0][1]}" if bad else ""
    except StorageError as error:
        damage = error.message
    except OSError as error:
        damage = error.strerror or str(error)
    verdict = None if damage else read_verdict(path)
    return Here(provenance.attempt, key, provenance.host, number, relative, provenance, files, size, verdict, damage)
