"""What has arrived, measured by our own reading: every file opened without following a link, counted and hashed here.

rsync calls a file identical when size and mtime are; a byte flipped in between is only caught by the digest. rsync also ends
with 0 when it skipped a link or a file over the cap; only the manifest knows that it is missing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from fleet.collect.below import storage_error
from fleet.collect.manifest import PARTIAL, ManifestFile
from fleet.collect.staging import Staging

_PARALLEL_BYTES = 32 << 20
"""Below this, starting threads costs more than it saves; other hosts' pulls fill the processor meanwhile."""
_ON_DISK = frozenset({errno.EIO, errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM})


class Fault(StrEnum):
    """What is wrong with one file."""

    MISSING = "missing"
    NOT_A_FILE = "not a plain file"
    SIZE = "another size"
    DIGEST = "another sha256"


@dataclass(frozen=True)
class Bad:
    """One file that is not what the manifest says."""

    file: ManifestFile
    fault: Fault
    found: str = ""
    """The size or the digest that is here."""


def check_files(staging: Staging, files: Sequence[ManifestFile]) -> list[Bad]:
    """Return the files that are missing or differ, in the manifest's order; reads every byte once."""
    if sum(file.size for file in files) < _PARALLEL_BYTES or len(files) < 2:
        checked = [_check(staging, file) for file in files]
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "fleet-sha256") as pool:
            checked = list(pool.map(lambda file: _check(staging, file), files))
    return [bad for bad in checked if bad is not None]


def _check(staging: Staging, file: ManifestFile) -> Bad | None:
    try:
        descriptor = staging.open_file(file.path)
    except FileNotFoundError:
        return Bad(file, Fault.MISSING)
    except OSError as error:
        if error.errno in _ON_DISK:
            raise storage_error(staging.path / file.path, error) from None
        return Bad(file, Fault.NOT_A_FILE)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            return Bad(file, Fault.NOT_A_FILE)
        if info.st_size != file.size:
            return Bad(file, Fault.SIZE, str(info.st_size))
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise storage_error(staging.path / file.path, error) from None
    return None if digest == file.sha256 else Bad(file, Fault.DIGEST, digest)


def foreign_entries(staging: Staging, files: Sequence[ManifestFile]) -> list[str]:
    """Return what is in the directory and not in the manifest: a hostile sender can add files and still end with 0."""
    wanted = {file.path for file in files}
    parents = {path[:index] for path in wanted for index, character in enumerate(path) if character == "/"}
    found = []
    for path, entry in staging.entries():
        expected = path in parents if stat.S_ISDIR(entry.st_mode) else path in wanted and stat.S_ISREG(entry.st_mode)
        if not expected:
            found.append(path)
    return found


def drop_partials(staging: Staging) -> None:
    """Remove rsync's own leftovers; everything that counts has its final name."""
    partials = [path for path, entry in staging.entries() if path.rpartition("/")[2] == PARTIAL and stat.S_ISDIR(entry.st_mode)]
    for path in partials:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(staging.path / path)


def drop_own(staging: Staging, names: Sequence[str]) -> None:
    """Remove what an interrupted collector had already written beside the files, before they are brought again."""
    for path, entry in list(staging.entries()):
        if "/" in path or path.casefold() not in names:
            continue
        if stat.S_ISDIR(entry.st_mode):
            shutil.rmtree(staging.path / path)
        else:
            (staging.path / path).unlink()
