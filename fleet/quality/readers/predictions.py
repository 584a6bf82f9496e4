"""Predictions as the SWE-bench harness takes them: JSON lines, one list, or one object by instance id.

Each row is `{instance_id, model_name_or_path, model_patch}`. A patch may be null; an id that comes twice is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleet.quality import values
from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import Folder, State
from fleet.quality.jsonsafe import Problem
from fleet.quality.kinds import Kind
from fleet.quality.readers.rows import RowFile, read_values
from fleet.quality.readers.trajectory import Record

MAX_ROWS = 100_000


def read_predictions(folder: Folder, name: str, expected: Expected | None) -> list[Evidence]:
    """Return one piece of evidence per instance in the file; a file without a row gives one that says what is wrong with it."""
    found = read_values(folder, name)
    rows: dict[str | None, list[tuple[int, Record]]] = {}
    for line, key, row in _rows(found.values):
        record = _record(row, key)
        rows.setdefault(record.claimed_id, []).append((line, record))
    wanted = expected.instance_id if expected else None
    chosen = {key: value for key, value in rows.items() if wanted is None or key == wanted}
    if not chosen:
        return [_evidence(name, found.state, found.detail, found.problems, wanted, expected, [], len(rows))]
    return [
        _evidence(name, found.state, found.detail, found.problems, instance, expected, records, len(rows))
        for instance, records in chosen.items()
    ]


def _rows(found: list[tuple[int, Any]]) -> Iterator[tuple[int, str | None, dict[str, Any]]]:
    """Yield the rows with their lines and keys: of lines, of a list, or of an object whose keys are the ids."""
    for line, value in found:
        if isinstance(value, list):
            yield from ((line, None, row) for row in value[:MAX_ROWS] if isinstance(row, dict))
        elif isinstance(value, dict) and "model_patch" not in value and "instance_id" not in value:
            inner = [(key, row) for key, row in value.items() if isinstance(row, dict)]
            yield from ((line, key, row) for key, row in inner[:MAX_ROWS])
        elif isinstance(value, dict):
            yield line, None, value


def _record(row: dict[str, Any], key: str | None) -> Record:
    patch, own = row.get("model_patch"), values.identity(row.get("instance_id"))
    return Record(
        claimed_id=own if key is None else values.text(key),
        claimed_kind=values.kind(row.get("instance_id") if key is None else key),
        inner_id=None if key is None else own,
        patch=patch if isinstance(patch, str) else None,
        patch_kind=values.kind(patch),
        model=values.text(row.get("model_name_or_path")),
    )


def _evidence(
    name: str,
    state: State,
    detail: str,
    problems: list[Problem],
    instance: str | None,
    expected: Expected | None,
    records: list[tuple[int, Record]],
    count: int,
) -> Evidence:
    output: RowFile[Record] = RowFile(name, state, blank=not records and not problems, count=count, detail=detail)
    output.problems = problems
    differing = [line for line, record in records if record.patch != records[0][1].patch]
    said = f"holds {len(records)} different patches for the same instance" if differing else None
    record = records[-1][1] if records else None
    return Evidence(
        kind=Kind.PREDICTIONS,
        instance_id=instance,
        expected=expected,
        output=output,
        record=record,
        model=(expected.model if expected else None) or (record.model if record else None),
        output_ambiguous=said,
    )
