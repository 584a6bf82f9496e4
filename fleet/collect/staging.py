"""The directory where a result is put together: `attempt<K>.partial`, ours alone until it is renamed once.

One collector works on it at a time: it holds `flock` on the directory itself, which ends with the process and follows the
directory through the rename, so there is no lock file to go stale. What an earlier collector left is used again only
when it is nothing but plain files and directories of ours; anything else (a planted link, a device, a hard link, a
foreign owner) is wiped. Nothing that exists under the final name is ever overwritten.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from fleet.collect.below import (
    DIRECTORY,
    AlreadyHere,
    exchange,
    exists,
    make_private,
    open_below,
    rename_exclusive,
    storage,
    sync,
    walk,
    wipe,
)
from fleet.errors import StorageError

_BLOCK = 4096
_SPARE = 1 << 20
"""Bytes that must stay free beside the files: fleet.json, manifest.json, directories."""


class Staging:
    """An exclusively held staging directory; leave it by `publish`, or it stays for the next collector to resume."""

    def __init__(self, parent: int, directory: Path, name: str, descriptor: int, *, resumed: bool) -> None:
        self._parent = parent
        self._descriptor = descriptor
        self._name = name
        self.final = directory / name
        self.path = directory / f"{name}.partial"
        self.resumed = resumed
        """Whether files of an earlier collector are there; they count only once their sha256 is right."""
        self._published = False

    def __enter__(self) -> Staging:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._descriptor)
        os.close(self._parent)

    def discard(self) -> None:
        """Remove the directory itself, unless it is a result by now; on a full disk the leftovers are the disk's problem."""
        if self._published:
            return
        with contextlib.suppress(OSError):
            wipe(self._descriptor)
            os.rmdir(f"{self._name}.partial", dir_fd=self._parent)

    def open_file(self, path: str) -> int:
        """Return a descriptor of a plain file below; raises OSError for a link at any step (S5, S8)."""
        return open_below(self._descriptor, path)

    def remove_file(self, path: str) -> None:
        """Remove one file, and what rsync kept of it, so that it is brought anew."""
        head, _, tail = path.rpartition("/")
        for one in (path, f"{head}/.rsync-partial/{tail}" if head else f".rsync-partial/{tail}"):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                (self.path / one).unlink()

    def move_file(self, source: str, target: str) -> None:
        """Rename a file below; the target's directories are made."""
        with storage(self.path):
            (self.path / target).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / source).rename(self.path / target)

    def write(self, name: str, data: bytes) -> None:
        """Write one of fleet's own files durably; an earlier one is replaced."""
        with storage(self.path / name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(name, flags, 0o600, dir_fd=self._descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Yield every path below with its lstat, directories included."""
        yield from walk(self._descriptor, "")

    def require_space(self, sizes: list[int]) -> None:
        """Raise StorageError unless the disk has room for files of these sizes."""
        with storage(self.path):
            disk = os.fstatvfs(self._descriptor)
        need = sum(-(-size // _BLOCK) * _BLOCK for size in sizes) + _SPARE
        free = disk.f_bavail * disk.f_frsize
        if free < need:
            raise StorageError(
                f"{self.path}: {need} bytes needed, {free} free", hint="free disk space here, then: fleet collect"
            )
        if disk.f_files and disk.f_favail < len(sizes) + 16:
            raise StorageError(
                f"{self.path}: {len(sizes) + 16} inodes needed, {disk.f_favail} free",
                hint="remove small files here, then: fleet collect",
            )

    def publish(self) -> None:
        """Make the directory durable and give it its final name; AlreadyHere when that name is taken."""
        with storage(self.final):
            directories = [path for path, entry in self.entries() if stat.S_ISDIR(entry.st_mode)]
            for path in reversed(directories):
                sync(open_below(self._descriptor, path, DIRECTORY))
            os.fsync(self._descriptor)
            rename_exclusive(self._parent, f"{self._name}.partial", self._name)
            self._published = True
            os.fsync(self._parent)
        shutil.rmtree(f"{self._name}.fresh.partial", ignore_errors=True, dir_fd=self._parent)


def claim(root: Path, parts: tuple[str, ...], name: str, *, wait_s: float) -> Staging:
    """Return the staging directory of `root/parts/name`, held by us alone.

    Raises AlreadyHere when the final directory exists (or appears while another collector is waited for), StorageError for
    a link or a foreign owner on the way, a full or read-only disk, or a collector that takes longer than `wait_s`.
    """
    directory = root.joinpath(*parts)
    deadline = time.monotonic() + wait_s
    with storage(directory):
        parent = _make_directories(root, parts)
        try:
            while True:
                if exists(parent, name):
                    raise AlreadyHere
                created, descriptor = _try_claim(parent, f"{name}.partial", directory)
                if descriptor is not None:
                    held = descriptor
                    break
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{directory / name}.partial: another collector has held it for {wait_s:.0f} s",
                        hint="wait for it to end, then: fleet collect",
                    )
                time.sleep(0.05)
            try:
                # The other collector may have published between our look and our lock.
                if exists(parent, name):
                    wipe(held)
                    os.rmdir(f"{name}.partial", dir_fd=parent)
                    raise AlreadyHere
                resumed = False
                if not created:
                    resumed = _ours(held)
                    held = _renewed(parent, name, held, keep=resumed)
            except BaseException:
                os.close(held)
                raise
        except BaseException:
            os.close(parent)
            raise
    return Staging(parent, directory, name, held, resumed=resumed)


def _make_directories(root: Path, parts: tuple[str, ...]) -> int:
    """Open `root/parts`, making what is missing with 0700; only `root` itself may be reached through a link."""
    make_private(root)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            try:
                os.mkdir(part, 0o700, dir_fd=descriptor)
                os.fsync(descriptor)
            except FileExistsError:
                pass
            below = os.open(part, DIRECTORY, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _try_claim(parent: int, name: str, directory: Path) -> tuple[bool, int | None]:
    """Return whether the directory is new, and a locked descriptor of it (None: another collector holds or moved it)."""
    created = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        created = True
    try:
        descriptor = os.open(name, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return False, None
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        os.unlink(name, dir_fd=parent)  # a planted link or file; the link goes, never what it points to
        return False, None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine, there = os.fstat(descriptor), os.stat(name, dir_fd=parent, follow_symlinks=False)
        if (mine.st_dev, mine.st_ino) != (there.st_dev, there.st_ino):
            raise BlockingIOError
        if mine.st_uid != os.geteuid():
            raise StorageError(f"{directory / name}: belongs to uid {mine.st_uid}", hint=f"rm -r {directory / name}")
    except (BlockingIOError, FileNotFoundError):
        os.close(descriptor)
        return False, None
    except BaseException:
        os.close(descriptor)
        raise
    return created, descriptor


def _renewed(parent: int, name: str, held: int, *, keep: bool) -> int:
    """Move an earlier collector's files into a new directory under the same name and return that, held like the old one.

    An rsync that outlived its killed collector still writes into the old directory; it must not reach the new one.
    """
    fresh = f"{name}.fresh.partial"
    shutil.rmtree(fresh, ignore_errors=True, dir_fd=parent)
    os.mkdir(fresh, 0o700, dir_fd=parent)
    descriptor = os.open(fresh, DIRECTORY, dir_fd=parent)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        for path, entry in list(walk(held, "")) if keep else ():
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISDIR(entry.st_mode):
                    os.mkdir(path, 0o700, dir_fd=descriptor)
                else:
                    os.rename(path, path, src_dir_fd=held, dst_dir_fd=descriptor)
        exchange(parent, fresh, f"{name}.partial")
    except BaseException:
        os.close(descriptor)
        raise
    os.close(held)
    shutil.rmtree(fresh, ignore_errors=True, dir_fd=parent)
    return descriptor


def _ours(descriptor: int) -> bool:
    """Tell whether the directory holds something, and nothing but private plain files and directories of ours."""
    if stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o700:
        os.fchmod(descriptor, 0o700)
        return False
    found = False
    for _, entry in walk(descriptor, ""):
        found = True
        plain = stat.S_ISDIR(entry.st_mode) or (stat.S_ISREG(entry.st_mode) and entry.st_nlink == 1)
        if not plain or entry.st_uid != os.geteuid() or stat.S_IMODE(entry.st_mode) & 0o7077:
            return False
    return found
