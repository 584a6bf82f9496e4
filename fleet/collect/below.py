"""Work below one directory by descriptors, so that no step of a path can be a link, and disk errors with their path."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.errors import StorageError

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2


class AlreadyHere(Exception):
    """The final name exists: another collector was first."""


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an OSError of this machine's disk into a StorageError that names the path."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from None


def storage_error(path: Path, error: OSError) -> StorageError:
    """Return the StorageError for `error`, with the cause and what to do."""
    what = {
        errno.ENOSPC: "no space left",
        errno.EDQUOT: "quota exceeded",
        errno.EROFS: "read-only file system",
        errno.ELOOP: "a symbolic link is in the way",
        errno.ENOTDIR: "a symbolic link or a file is in the way",
    }.get(error.errno or 0, error.strerror or str(error))
    return StorageError(f"{path}: {what}", hint="repair or free this disk, then: fleet collect")


def make_private(path: Path) -> None:
    """Make a directory and its missing parents with 0700 whatever the umask; Path.mkdir forgets the mode of parents."""
    for one in (*reversed(path.parents), path):
        if not one.exists():
            one.mkdir(mode=0o700, exist_ok=True)


def walk(descriptor: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield (path, lstat) of everything below, sorted, a directory before what it holds."""
    with os.scandir(descriptor) as listing:
        names = sorted(entry.name for entry in listing)
    for name in names:
        try:
            entry = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue  # an rsync that outlived its collector renames its temporary files while we look
        path = f"{prefix}{name}"
        yield path, entry
        if stat.S_ISDIR(entry.st_mode):
            below = os.open(name, DIRECTORY, dir_fd=descriptor)
            try:
                yield from walk(below, f"{path}/")
            finally:
                os.close(below)


def open_below(descriptor: int, path: str, flags: int = _FILE) -> int:
    """Open `path` step by step, so that no part of it can be a link."""
    *parents, name = path.split("/")
    current = os.dup(descriptor)
    try:
        for part in parents:
            below = os.open(part, DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
        return os.open(name, flags, dir_fd=current)
    finally:
        os.close(current)


def wipe(descriptor: int) -> None:
    """Remove everything in a directory, without following a link."""
    with os.scandir(descriptor) as listing:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in listing]
    for name, is_directory in names:
        if is_directory:
            shutil.rmtree(name, dir_fd=descriptor)
        else:
            os.unlink(name, dir_fd=descriptor)


def sync(descriptor: int) -> None:
    """Make what a descriptor shows durable, and close it."""
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def exists(parent: int, name: str) -> bool:
    """Tell whether there is anything of that name, a dangling link included."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def rename_exclusive(parent: int, source: str, target: str) -> None:
    """Rename within `parent`, or raise AlreadyHere; plain rename(2) would replace an empty directory."""
    if _renameat2(parent, source, target, _RENAME_NOREPLACE):
        return
    if exists(parent, target):
        raise AlreadyHere
    os.rename(source, target, src_dir_fd=parent, dst_dir_fd=parent)


def exchange(parent: int, one: str, other: str) -> None:
    """Swap two names within `parent`, atomically where the system can."""
    if _renameat2(parent, one, other, _RENAME_EXCHANGE):
        return
    aside = f"{one}.aside.partial"
    os.rename(other, aside, src_dir_fd=parent, dst_dir_fd=parent)
    os.rename(one, other, src_dir_fd=parent, dst_dir_fd=parent)
    os.rename(aside, one, src_dir_fd=parent, dst_dir_fd=parent)


def _renameat2(parent: int, source: str, target: str, flag: int) -> bool:
    """Call Linux's renameat2; False when this system or file system has none."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(parent, os.fsencode(source), parent, os.fsencode(target), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code == errno.EEXIST:
        raise AlreadyHere
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code))
