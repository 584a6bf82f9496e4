"""The controller's memory: an append-only JSON-lines file, fsynced before anything it announces is sent.

Several processes may append (a controller, and `fleet cancel` or `fleet retry` beside it): each append holds a flock. A line
without its newline is the mark of a writer that died; it is set aside and the rest is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from fleet.errors import StorageError
from fleet.model.records import AnyRecord, record_from

VERSION = 1


def now_iso() -> str:
    """Return the time as the journal writes it: UTC, milliseconds, `Z`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """The journal of one batch; reading and appending both tolerate a writer that died in the middle of a line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[AnyRecord]:
        """Return every record; a torn last line is left out, any other unreadable line is a StorageError."""
        records, _ = self.read_from(0)
        return records

    def read_from(self, offset: int) -> tuple[list[AnyRecord], int]:
        """Return the records from byte `offset` on and the offset behind the last complete line."""
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                raw = file.read()
        except FileNotFoundError:
            return [], offset
        except OSError as error:
            raise self._storage(f"cannot be read: {error.strerror}") from None
        complete = raw[: raw.rfind(b"\n") + 1]
        records = []
        for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
            if not line.strip():
                continue
            try:
                record = record_from(json.loads(line))
            except (ValueError, ValidationError, RecursionError, AttributeError, TypeError) as error:
                raise self._storage(f"line {number} after byte {offset} is not a journal record: {error}") from None
            if record is not None:
                records.append(record)
        return records, offset + len(complete)

    def append(self, *records: AnyRecord) -> list[AnyRecord]:
        """Write `records` durably and return them with their time; on error the file is as it was before."""
        stamped = [record if record.t else record.model_copy(update={"t": now_iso()}) for record in records]
        data = b"".join(
            json.dumps({"v": VERSION, **record.model_dump(mode="json")}, separators=(",", ":")).encode() + b"\n"
            for record in stamped
        )
        try:
            with self._locked() as descriptor:
                end = self._end_of_last_line(descriptor)
                try:
                    _write_all(descriptor, data, end)
                    os.fsync(descriptor)
                except OSError:
                    os.ftruncate(descriptor, end)
                    raise
        except OSError as error:
            raise self._storage(f"cannot be written: {error.strerror}") from None
        return stamped

    @contextmanager
    def _locked(self) -> Iterator[int]:
        created = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if created:
                sync_directory(self.path.parent)
            yield descriptor
        finally:
            os.close(descriptor)

    def _end_of_last_line(self, descriptor: int) -> int:
        """Return the end of the last complete line, setting a dead writer's torn tail aside."""
        size = os.fstat(descriptor).st_size
        tail_start = max(0, size - 1)
        if size == 0 or os.pread(descriptor, 1, tail_start) == b"\n":
            return size
        start, chunk = size, b""
        while start > 0 and b"\n" not in chunk:
            step = min(65_536, start)
            start -= step
            chunk = os.pread(descriptor, step, start) + chunk
        end = start + chunk.rfind(b"\n") + 1
        torn = self.path.with_suffix(".torn")
        with torn.open("ab") as file:
            file.write(os.pread(descriptor, size - end, end) + b"\n")
        os.ftruncate(descriptor, end)
        return end

    def _storage(self, what: str) -> StorageError:
        return StorageError(
            f"{self.path}: {what}",
            hint=f"repair the disk; if the file itself is damaged, move {self.path.parent} away and dispatch the assignment "
            "again: the hosts hand over what they have and start nothing twice",
        )


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        offset += written
        view = view[written:]


def sync_directory(path: Path) -> None:
    """Make a created, renamed or removed name in `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
