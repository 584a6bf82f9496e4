"""Every error that fleet raises on purpose.

FleetError                      message + hint (the next command to type) + exit bit
├── InputError            1     usage, hosts.yaml, assignment, dataset, pipeline: nothing touched
├── TransportError        4     nothing is known about the host beyond this failure
│   ├── Unreachable             DNS, refused, timeout, no banner
│   ├── AuthFailed              the host answered and did not let us in
│   ├── NoAnswer                the request may or may not have been carried out
│   ├── TransferFailed          rsync ended with an error; the host keeps its files
│   │   └── OutputsChanged      the way is fine: files on the host are gone, or of another size than it sealed
│   └── IdentityError    16     the host key is not the pinned one, or none is pinned
│       ├── HostKeyChanged
│       ├── HostKeyUnknown
│       └── AnotherMachine
├── TamperedTransfer     16     what arrived is not what the manifest says
├── AgentError            4     the host agent answered with a refusal
├── ArchivesUnknown       4   the store of image archives gave no clear answer
├── BucketUnsafe         16   others can read or write the image archives, or one was replaced
├── StorageError         32     this machine's disk: full, read-only, foreign, corrupt
├── OutOfThreads         32     this machine's limit of threads
└── OwnedElsewhere       64     another controller holds the batch
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.model.exitcodes import Exit


class FleetError(Exception):
    """Root of all errors; `hint` is what the user should type or change next."""

    bit: Exit = Exit.INPUT

    def __init__(self, message: str, *, hint: str = "", host: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.host = host


class InputError(FleetError):
    """The command line or one of the input files is wrong; nothing was touched."""


class TransportError(FleetError):
    """The host could not be asked."""

    bit = Exit.INCOMPLETE
    link = "unreachable"


class Unreachable(TransportError):
    """No SSH connection came about."""


class AuthFailed(TransportError):
    """The host refused every key that was offered."""

    link = "auth-failed"


class NoAnswer(TransportError):
    """The connection ended before a complete answer; the request may have been carried out."""


class TransferFailed(TransportError):
    """rsync ended with an error; the files are still on the host."""


class OutputsChanged(TransferFailed):
    """Files on the host are no longer those that it sealed; they may come back, and the host keeps the rest."""


class IdentityError(TransportError):
    """The host is not proven to be the machine that was pinned."""

    bit = Exit.SAFETY
    link = "host-key-changed"


class HostKeyChanged(IdentityError):
    """The host presents another key than the pinned one."""


class HostKeyUnknown(IdentityError):
    """No key is pinned for this host."""

    link = "host-key-unknown"


class AnotherMachine(IdentityError):
    """The pinned key answers from another machine, or from one whose `~/.fleet` was deleted."""

    link = "changed"


class TamperedTransfer(FleetError):
    """A collected file differs from the manifest that the host sealed."""

    bit = Exit.SAFETY


class AgentError(FleetError):
    """The host agent refused; `code` is one of the protocol's closed set and `detail` its evidence."""

    bit = Exit.INCOMPLETE

    def __init__(
        self,
        message: str,
        *,
        code: str,
        detail: Mapping[str, Any] | None = None,
        hint: str = "",
        host: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, host=host)
        self.code = code
        self.detail = dict(detail or {})


class ArchivesUnknown(FleetError):
    """Whether every image archive is there could not be learned; no host was asked."""

    bit = Exit.INCOMPLETE


class BucketUnsafe(FleetError):
    """The image archives may be another's: their bucket is open, or one was replaced; no host was asked."""

    bit = Exit.SAFETY


class StorageError(FleetError):
    """This machine's own storage failed; nothing may be launched without a durable record."""

    bit = Exit.LOCAL


class OutOfThreads(FleetError):
    """This machine lets the process start no further thread."""

    bit = Exit.LOCAL

    def __init__(self) -> None:
        super().__init__(
            "this machine lets the process start no further thread; evals on the hosts go on",
            hint="ulimit -u, ulimit -v; then the same command, or fewer hosts at a time: --hosts PATTERN",
        )


class OwnedElsewhere(FleetError):
    """Another controller holds the batch."""

    bit = Exit.OWNED
