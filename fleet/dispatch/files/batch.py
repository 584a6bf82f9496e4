"""A batch on disk: `collected/<batch>/` with its journal, the assignment's copy, and the lock of its one controller."""

from __future__ import annotations

import fcntl
import getpass
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fleet.collect.below import make_private
from fleet.dispatch.files.journal import Journal, now_iso, sync_directory
from fleet.dispatch.files.process import identity
from fleet.dispatch.state.replay import replay
from fleet.dispatch.state.views import BatchState
from fleet.errors import InputError, OwnedElsewhere, StorageError
from fleet.model.assignment import without_values
from fleet.model.names import is_name, visible

JOURNAL = "journal.jsonl"
ASSIGNMENT = "assignment.json"
LOCK = "controller.lock"
MARK = "journal.mark"


def controller_name() -> str:
    """Return who this process is, as other controllers and the hosts are told."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"


class Batch:
    """The directory of one batch."""

    def __init__(self, collected: Path, name: str) -> None:
        if not is_name(name):
            raise InputError(f"{visible(name, 80)!r} is not a batch name; A-Z a-z 0-9 . _ - only", hint="pass --batch NAME")
        self.name = name
        self.directory = collected / name
        self.journal = Journal(self.directory / JOURNAL)

    @property
    def exists(self) -> bool:
        """Whether a journal has been begun."""
        return os.path.lexists(self.journal.path)

    def load(self) -> BatchState:
        """Return the state from the journal; InputError when there is none."""
        if not self.exists:
            raise InputError(f"no batch {self.name} in {self.directory.parent}", hint="fleet dispatch FILE begins one")
        return replay(self.journal.read())

    def require_memory(self) -> None:
        """Raise StorageError when the directory is not ours alone, or its journal is gone, cut short or another user's.

        Beginning anew on such a memory could give a task to a second host while the first one runs it.
        """
        self._require_own()
        if self.exists:
            self.journal.require_whole()
        elif any((self.directory / name).exists() for name in (ASSIGNMENT, MARK)):
            # Both are made after the journal.
            raise StorageError(
                f"{self.journal.path} is gone, and the batch had been begun",
                hint=f"fleet recover {self.name}, or a new batch: --batch NAME",
            )

    def prepare(self) -> None:
        """Make the directory, ours alone."""
        with _storage(self.directory):
            make_private(self.directory)
            sync_directory(self.directory.parent)
        self._require_own()

    def keep(self, assignment: bytes) -> None:
        """Keep the assignment for its one controller, without the values of `env`: a batch directory is passed on."""
        assignment = without_values(assignment, ASSIGNMENT)
        copy = self.directory / ASSIGNMENT
        with _storage(self.directory):
            if copy.exists() and copy.read_bytes() == assignment:
                return
            fresh = copy.with_suffix(f".{os.getpid()}.tmp")
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(assignment)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(copy)

    def _require_own(self) -> None:
        with suppress(FileNotFoundError), _storage(self.directory):
            if self.directory.is_symlink() or self.directory.lstat().st_uid != os.geteuid():
                raise StorageError(f"{self.directory} is a link or belongs to somebody else", hint="pass --collected DIR")

    @contextmanager
    def controlled(self) -> Iterator[None]:
        """Be the batch's one controller; OwnedElsewhere names the process that already is."""
        path = self.directory / LOCK
        with _storage(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if not _take(descriptor):
                holder = self._holder()
                raise OwnedElsewhere(
                    f"batch {self.name} is held by {holder.get('who', 'another process')} since {holder.get('since', '?')}",
                    hint=f"fleet dashboard {self.name} --live, or fleet status {self.name}",
                )
            pid = os.getpid()
            document = {"who": controller_name(), "pid": pid, "since": now_iso(), "process": identity(pid)}
            with _storage(path):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(document).encode(), 0)
            yield
        finally:
            os.close(descriptor)

    def held_by(self) -> dict[str, Any] | None:
        """Return who controls the batch now, or None."""
        try:
            descriptor = os.open(self.directory / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._holder()
        finally:
            os.close(descriptor)
        return None

    def nudge(self) -> bool:
        """Have the running controller of this machine read the journal again; tell whether there is one.

        What the lock file says may be of an earlier holder, or of one on another machine: only the process that wrote it
        is signalled, never another one under its number.
        """
        holder = self.held_by()
        pid = holder.get("pid") if holder is not None else None
        if holder is None or not isinstance(pid, int) or pid <= 0:
            return False
        known = holder.get("process")
        if not isinstance(known, str) or identity(pid) != known:
            return False
        try:
            os.kill(pid, signal.SIGUSR1)
        except OSError:
            return False
        return True

    def _holder(self) -> dict[str, Any]:
        try:
            document = json.loads((self.directory / LOCK).read_bytes())
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}


@contextmanager
def _storage(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint="free the disk, or pass --collected DIR") from None


def _take(descriptor: int) -> bool:
    """Take the lock; `held_by` of another process holds it for an instant, so one refusal is not the last word."""
    for pause_s in (0.0, 0.02, 0.1):
        time.sleep(pause_s)
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    return False


def batches(collected: Path) -> list[str]:
    """Return the names of all batches, the most recently changed first."""
    found = [path for path in collected.glob(f"*/{JOURNAL}") if is_name(path.parent.name)]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent.name for path in found]
