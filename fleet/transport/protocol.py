"""The seam between fleet and the way to a host. `SshConnector` and fleet.testing implement it.

A Connector opens Transports (one per host, one connection each); a Transport starts Sessions (one remote command each).
All errors are the TransportErrors of fleet.errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from fleet.model.hosts import Host


@runtime_checkable
class Session(Protocol):
    """One remote command on an open connection; used by one thread at a time, except that any thread may close it."""

    def send(self, data: bytes) -> None:
        """Write to the command's stdin; raises NoAnswer when the link is gone."""

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next chunk of stdout; b"" at its end (or when the link is gone), None when nothing came in time."""

    def stderr_tail(self) -> bytes:
        """Return the last 8 KiB of stderr, which is always drained."""

    def exit_status(self, timeout_s: float) -> int | None:
        """Return the exit status; None when it is not known, because it did not come in time or the link was lost."""

    def close(self) -> None:
        """Give the session up; the remote command is not killed by this."""


@dataclass(frozen=True)
class PullRequest:
    """Files to bring from one directory of a host into one directory here."""

    source: str
    """Absolute directory on the host."""
    files: tuple[str, ...]
    """Relative to `source`; every one has passed fleet.model.names.is_safe_path."""
    target: Path
    """Existing staging directory of ours: empty, or left by an interrupted pull of the same files."""
    max_file_bytes: int
    max_total_bytes: int
    deadline_s: float


@dataclass(frozen=True)
class PullResult:
    """What a pull took."""

    seconds: float
    bytes_received: int
    """On the wire, compressed."""
    resumed: bool
    """Part of it was here already from an interrupted pull."""


@runtime_checkable
class Transport(Protocol):
    """One open connection to one host, carrying any number of sessions."""

    host: Host
    dead_after_s: float
    """How long a peer that has vanished may go unnoticed."""

    def start(self, command: str) -> Session:
        """Start `command`, a constant of ours and never built from data; raises Unreachable when nothing was started."""

    def alive(self, timeout_s: float) -> bool:
        """Tell whether the host answers a round trip within `timeout_s`; the connection is closed when it does not."""

    def pull(self, request: PullRequest) -> PullResult:
        """Bring files here; raises TransferFailed, TamperedTransfer or StorageError."""

    def close(self) -> None:
        """Close the connection at once."""


@runtime_checkable
class Connector(Protocol):
    """Opens connections; safe to use from many threads."""

    def open(self, host: Host) -> Transport:
        """Connect and log in; raises Unreachable, AuthFailed, HostKeyUnknown or HostKeyChanged."""

    def close(self) -> None:
        """Close everything it opened."""
