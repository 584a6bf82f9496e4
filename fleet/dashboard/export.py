"""summary.json and results.csv: what other programs and spreadsheets read, written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from fleet.dashboard.batches import read_batch
from fleet.dashboard.figures import ResultRow, Summary
from fleet.dashboard.summary import summarize
from fleet.dispatch.files.batch import Batch
from fleet.dispatch.files.journal import sync_directory
from fleet.errors import StorageError
from fleet.model.names import visible
from fleet.model.verdict import Facts

SUMMARY_JSON = "summary.json"
RESULTS_CSV = "results.csv"
_FORMULA = tuple("=+-@\t\r＝＋－＠")
_OF_FACTS = tuple(Facts.model_fields)
COLUMNS = tuple(column for name in ResultRow.model_fields for column in (_OF_FACTS if name == "facts" else (name,)))
"""The columns of results.csv; new ones are only ever added at the end of their group."""


def write_summary(batch_dir: Path, summary: Summary) -> None:
    """Write summary.json and results.csv into `batch_dir`; each is replaced by one rename, readable by its owner only."""
    write_atomically(batch_dir / SUMMARY_JSON, summary_json(summary))
    write_atomically(batch_dir / RESULTS_CSV, results_csv(summary.results))


def rebuild(batch_dir: Path, now: datetime | None = None) -> Summary:
    """Return the summary of the journal in `batch_dir` and write both files: the way back after anything."""
    state, judged = read_batch(Batch(batch_dir.parent, batch_dir.name))
    summary = summarize(state, now or datetime.now(UTC), judged)
    write_summary(batch_dir, summary)
    return summary


def summary_json(summary: Summary) -> bytes:
    """Return the document `fleet.summary/1`, ASCII, one field per line."""
    return json.dumps(summary.model_dump(mode="json", by_alias=True), indent=1, allow_nan=False).encode() + b"\n"


def results_csv(rows: tuple[ResultRow, ...]) -> bytes:
    """Return the rows as RFC 4180 CSV in UTF-8; what is not known is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = {**{name: getattr(row, name) for name in ResultRow.model_fields}, **dict(row.facts)}
        writer.writerow([cell(values[column]) for column in COLUMNS])
    return text.getvalue().encode("utf-8")


def cell(value: object) -> str:
    """Return one cell; foreign text that a spreadsheet would run as a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return cell(";".join(map(str, value)))
    text = str(value)
    return ("'" if text.lstrip(" ").startswith(_FORMULA) else "") + visible(text)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, durably and mode 0600; on any failure the old file stays as it was."""
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
        temporary = None
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written: {error.strerror}",
            hint=f"free or repair the disk, then: fleet dashboard {path.parent.name}",
        ) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                Path(temporary).unlink()
