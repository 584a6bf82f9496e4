"""The controller's memory: an append-only JSON-lines file, fsynced before anything it announces is sent.

    journal.jsonl   begun with its first records in one step: one without a complete line is damaged, never "nothing done"
    journal.mark    how long it was before the last append: shorter than that, something was taken out of it
    journal.torn    lines without their newline, set aside: marks of writers that died

Several processes may append (a controller, and `fleet cancel` or `fleet retry` beside it): each append holds a flock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleet.dispatch.files.journal_line import decode, encode
from fleet.errors import StorageError
from fleet.model.records import AnyRecord

READ_WAIT_S = 3.0
"""A reader waits so long for a writer, and then reads beside it: one that was suspended must not hold `fleet status` up."""
WRITE_WAIT_S = 30.0
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)


def now_iso() -> str:
    """Return the time as the journal writes it: UTC, milliseconds, `Z`."""
    return iso_ago(0.0)


def iso_ago(seconds: float) -> str:
    """Return the time `seconds` ago as the journal writes it."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Journal:
    """The journal of one batch; reading and appending both tolerate a writer that died in the middle of a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = False
        """Whether the file ended in an incomplete line when it was last read from its beginning."""
        self._mark = path.with_suffix(".mark")
        self._file: tuple[int, int] | None = None
        """Device and inode of the file, once it was seen: another one under its name is not this journal."""

    def read(self) -> list[AnyRecord]:
        """Return every record; a torn last line is left out, any other unreadable line is a StorageError."""
        records, _ = self.read_from(0)
        return records

    def read_from(self, offset: int) -> tuple[list[AnyRecord], int]:
        """Return the records from byte `offset` on and the offset behind the last complete line."""
        raw = self._bytes_from(offset)
        if raw is None:
            return [], offset
        end = raw.rfind(b"\n") + 1
        if offset == 0:
            self.torn = end < len(raw)
            if not raw[:end].strip():
                raise self._damage("it holds no record, so what was done cannot be known")
        records = []
        for number, line in enumerate(raw[:end].split(b"\n")[:-1], start=1):
            if not line.strip():
                continue
            try:
                record = decode(line)
            except ValueError as error:
                where = f"line {number}" + (f" after byte {offset}" if offset else "")
                raise self._damage(f"{where} is not a journal record: {error}") from None
            if record is not None:
                records.append(record)
        return records, offset + end

    def append(self, *records: AnyRecord) -> list[AnyRecord]:
        """Write `records` durably and return them with their time; on error the file is as it was before."""
        stamped = [record if record.t else record.model_copy(update={"t": now_iso()}) for record in records]
        data = b"".join(map(encode, stamped))
        try:
            begun = self._file is None and not os.path.lexists(self.path) and self._begin(data)
            if not begun:
                self._extend(data)
        except OSError as error:
            raise self._failure(f"cannot be written: {error.strerror or error}") from None
        return stamped

    def require_whole(self) -> None:
        """Raise StorageError when the file is shorter than it has been, a link, or another user's."""
        try:
            info = self.path.lstat()
        except OSError as error:
            raise self._damage(f"cannot be read: {error.strerror}") from None
        if self.path.is_symlink() or info.st_uid != os.geteuid():
            raise self._failure(f"is a link, or belongs to uid {info.st_uid}")
        try:
            # Empty when a controller died before it first wrote it.
            known = int(self._mark.read_bytes() or b"0")
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise self._damage(f"{self._mark.name} cannot be read: {error}") from None
        # Asked after the mark was read: other processes may have appended since.
        size = self.path.lstat().st_size
        if size < known:
            raise self._damage(f"{known - size} bytes or more are missing from its end")

    # --- reading ---

    def _bytes_from(self, offset: int) -> bytes | None:
        """Return what follows `offset`; None when no journal was begun."""
        try:
            with (
                self._held(os.O_RDONLY, fcntl.LOCK_SH, READ_WAIT_S) as descriptor,
                os.fdopen(descriptor, "rb", closefd=False) as file,
            ):
                if os.fstat(descriptor).st_size < offset:
                    raise self._damage("became shorter while it was in use")
                file.seek(offset)
                return file.read()
        except FileNotFoundError:
            if self._file is not None:
                raise self._damage("was removed while it was in use") from None
            return None
        except OSError as error:
            raise self._failure(f"cannot be read: {error.strerror}") from None

    @contextmanager
    def _held(self, flags: int, lock: int, wait_s: float) -> Iterator[int]:
        """Open the file and hold its lock. A reader goes on without: what it may then see is a line that is taken back."""
        descriptor = os.open(self.path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if not _take(descriptor, lock, wait_s) and lock == fcntl.LOCK_EX:
                hint = f"is a controller suspended? ps, fuser {self.path}"
                raise StorageError(f"{self.path}: another process has held it for {wait_s:.0f} s", hint=hint)
            info = os.fstat(descriptor)
            # A recovery may have put another file in its place while this one's lock was waited for.
            replaced = lock == fcntl.LOCK_EX and not os.path.samestat(info, os.lstat(self.path))
            if replaced or self._file not in (None, (info.st_dev, info.st_ino)):
                raise self._failure("was replaced while it was in use")
            self._file = (info.st_dev, info.st_ino)
            yield descriptor
        finally:
            os.close(descriptor)

    # --- writing ---

    def _begin(self, data: bytes) -> bool:
        """Make the file with its first records in it, or none; False when another process was first."""
        fresh = self.path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            _write_all(descriptor, data, 0)
            os.fsync(descriptor)
            # Of an earlier journal that was moved away: its length says nothing of this one.
            self._mark.unlink(missing_ok=True)
            _link(fresh, self.path)
            sync_directory(self.path.parent)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            os.close(descriptor)
        return True

    def _extend(self, data: bytes) -> None:
        with self._held(os.O_RDWR, fcntl.LOCK_EX, WRITE_WAIT_S) as descriptor:
            owner = os.fstat(descriptor).st_uid
            if owner != os.geteuid():
                raise self._failure(f"belongs to uid {owner}")
            end = self._end_of_last_line(descriptor)
            self._note(end)
            try:
                _write_all(descriptor, data, end)
                os.fsync(descriptor)
            except OSError:
                # Whether it reached the disk is not known, and asking again would say yes: it is taken back.
                os.ftruncate(descriptor, end)
                raise

    def _note(self, end: int) -> None:
        """Keep how long the journal is; not fsynced, because it speaks of what already is."""
        descriptor = os.open(self._mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(descriptor, b"%020d\n" % end, 0)
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
        torn = os.open(self.path.with_suffix(".torn"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(torn, "ab") as file:
            file.write(os.pread(descriptor, size - end, end) + b"\n")
        os.ftruncate(descriptor, end)
        return end

    def _failure(self, what: str) -> StorageError:
        return StorageError(f"{self.path}: {what}", hint="free or repair this disk, then the same command again")

    def _damage(self, what: str) -> StorageError:
        return StorageError(f"{self.path}: {what}", hint=f"fleet recover {self.path.parent.name}")


def _take(descriptor: int, lock: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, lock | fcntl.LOCK_NB)
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)


def _link(fresh: Path, path: Path) -> None:
    """Give the file its name unless that is taken; where there are no hard links, nearly so."""
    try:
        os.link(fresh, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        fresh.rename(path)


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
