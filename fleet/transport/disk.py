"""Whether the disk here takes what a transfer brings; asked of the disk, never of the other end's words."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from fleet.errors import StorageError

_NAME = ".fleet-probe"
_PROBE = bytes(64 * 1024)


def require_writable(directory: Path) -> None:
    """Raise StorageError with the cause when a small file cannot be written durably below `directory`."""
    path = directory / _NAME
    try:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(_PROBE)
                file.flush()
                os.fsync(descriptor)
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
    except OSError as error:
        text = f"cannot write below {directory}: {error.strerror or error}"
        raise StorageError(text, hint="df -h . ; the host keeps its files") from None
