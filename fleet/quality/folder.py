"""A result directory opened safely: no symbolic link is followed, only regular files are read, every read has a cap.

What comes back from an eval host is a stranger's directory: a link to `/etc/shadow`, a FIFO that never ends or a 10 GB file
must cost a sentence in the verdict, not the operator's machine.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any

MIB = 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO without a writer would wait for ever; it means nothing for a regular file.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class State(StrEnum):
    """What was found where a file should be."""

    OK = "ok"
    MISSING = "missing"
    NOT_A_FILE = "not-a-file"
    TOO_LARGE = "too-large"
    UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FileRead:
    """One file: its bytes when `state` is ok, else a few words on why there are none."""

    path: str
    state: State
    data: bytes = b""
    size: int = 0
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether the bytes were read."""
        return self.state is State.OK


class Refused(Exception):
    """A path that is not a readable regular file."""

    def __init__(self, state: State, detail: str) -> None:
        super().__init__(detail)
        self.state = state
        self.detail = detail


class Stream:
    """An open file that is read line by line; it can count its digest on the way."""

    def __init__(self, stream: IO[bytes], size: int, digest: Any | None) -> None:
        self._stream = stream
        self._digest = digest
        self.size = size

    def readline(self, limit: int) -> bytes:
        """Return the next line with its newline, at most `limit` bytes of it."""
        return self._count(self._stream.readline(limit))

    def read(self, limit: int) -> bytes:
        """Return up to `limit` bytes."""
        return self._count(self._stream.read(limit))

    def skip_to_last(self, length: int) -> None:
        """Go on at the last `length` bytes, or stay where those have been read; without a digest only."""
        assert self._digest is None
        self._stream.seek(max(self._stream.tell(), self.size - length))

    def _count(self, data: bytes) -> bytes:
        if self._digest is not None:
            self._digest.update(data)
        return data


class Folder:
    """A result directory; `digests` remembers the SHA-256 of what was read when `hashing` is on."""

    def __init__(self, path: Path, *, hashing: bool = False) -> None:
        self.path = path
        self.hashing = hashing
        self.digests: dict[str, tuple[int, str]] = {}
        self._root = os.open(path, _DIRECTORY)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._root)

    def entries(self, relative: str = "") -> dict[str, bool]:
        """Return the names in a directory below this one → whether each is a directory; links are left out."""
        try:
            descriptor = self._directory(relative.split("/") if relative else [])
        except (OSError, Refused):
            return {}
        try:
            with os.scandir(descriptor) as found:
                return {entry.name: entry.is_dir(follow_symlinks=False) for entry in found if not entry.is_symlink()}
        except OSError:
            return {}
        finally:
            os.close(descriptor)

    @contextmanager
    def open(self, relative: str) -> Iterator[Stream]:
        """Open a file for reading, or raise Refused."""
        descriptor = self._file(relative)
        digest = hashlib.sha256() if self.hashing else None
        with os.fdopen(descriptor, "rb", buffering=MIB) as file:
            stream = Stream(file, os.fstat(descriptor).st_size, digest)
            try:
                yield stream
                if digest is not None:
                    while stream.read(MIB):
                        pass
                    self.digests[relative] = (file.tell(), digest.hexdigest())
            except OSError as error:
                raise Refused(State.UNREADABLE, error.strerror or str(error)) from error

    def read(self, relative: str, cap: int) -> FileRead:
        """Return a whole file of at most `cap` bytes."""
        try:
            with self.open(relative) as stream:
                if stream.size > cap:
                    return FileRead(
                        relative, State.TOO_LARGE, b"", stream.size, f"has {stream.size} bytes, more than the {cap} allowed"
                    )
                data = stream.read(cap + 1)
                return FileRead(relative, State.OK, data[:cap], len(data))
        except Refused as refused:
            return FileRead(relative, refused.state, detail=refused.detail)

    def read_ends(self, relative: str, cap: int) -> tuple[FileRead, bool]:
        """Return a file, of a too large one its first and last parts; the flag says that the middle was left out."""
        half = cap // 2
        try:
            with self.open(relative) as stream:
                if stream.size <= cap:
                    data = stream.read(cap)
                    return FileRead(relative, State.OK, data, len(data)), False
                head, left = stream.read(half), stream.size - 2 * half
                while left > 0:
                    skipped = stream.read(min(MIB, left))
                    if not skipped:
                        break
                    left -= len(skipped)
                return FileRead(relative, State.OK, head + b"\n" + stream.read(half), stream.size), True
        except Refused as refused:
            return FileRead(relative, refused.state, detail=refused.detail), False

    def digest(self, relative: str) -> tuple[int, str]:
        """Return size and SHA-256 of a file, from memory when it was read before; raises Refused."""
        if relative not in self.digests:
            digest, size = hashlib.sha256(), 0
            with self.open(relative) as stream:
                while chunk := stream.read(MIB):
                    size += len(chunk)
                    if not self.hashing:
                        digest.update(chunk)
            if not self.hashing:
                self.digests[relative] = (size, digest.hexdigest())
        return self.digests[relative]

    def _file(self, relative: str) -> int:
        parts = relative.split("/")
        if not _is_name(parts[-1]):
            raise Refused(State.NOT_A_FILE, "is not a path below the result directory")
        try:
            parent = self._directory(parts[:-1])
            try:
                descriptor = os.open(parts[-1], _FILE, dir_fd=parent)
            finally:
                os.close(parent)
        except OSError as error:
            raise _refusal(error) from error
        try:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        except OSError as error:
            os.close(descriptor)
            raise _refusal(error) from error
        if not regular:
            os.close(descriptor)
            raise Refused(State.NOT_A_FILE, "is not a regular file")
        return descriptor

    def _directory(self, parts: list[str]) -> int:
        if not all(_is_name(part) for part in parts):
            raise Refused(State.NOT_A_FILE, "is not a path below the result directory")
        descriptor = os.dup(self._root)
        for part in parts:
            inner = None
            with suppress(OSError):
                inner = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            if inner is None:
                kind = _kind(part, descriptor)
                os.close(descriptor)
                raise kind
            os.close(descriptor)
            descriptor = inner
        return descriptor


def _is_name(part: str) -> bool:
    """Tell whether a part of a path can be a name on this machine; a foreign id may hold NUL or half a surrogate pair."""
    if part in ("", ".", "..") or "\0" in part:
        return False
    try:
        os.fsencode(part)
    except UnicodeEncodeError:
        return False
    return True


def _kind(name: str, parent: int) -> Refused:
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError as error:
        return _refusal(error)
    if stat.S_ISDIR(mode):
        return Refused(State.UNREADABLE, "is in a directory that may not be read")
    return Refused(State.NOT_A_FILE, "is behind a symbolic link" if stat.S_ISLNK(mode) else "is not in a directory")


def _refusal(error: OSError) -> Refused:
    if error.errno == errno.ENOENT:
        return Refused(State.MISSING, "is not there")
    if error.errno == errno.ELOOP:
        return Refused(State.NOT_A_FILE, "is a symbolic link, which is never followed")
    if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.EISDIR):
        return Refused(State.NOT_A_FILE, "is not a regular file")
    return Refused(State.UNREADABLE, f"cannot be read: {error.strerror}")
