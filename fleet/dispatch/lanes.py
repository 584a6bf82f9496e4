"""What a running controller keeps per host and is told by its threads; none of it outlives the controller."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.dispatch.stalls import Watch
from fleet.dispatch.views import BatchState
from fleet.errors import AgentError, TransportError
from fleet.model.records import AnyRecord


@dataclass(frozen=True)
class Live:
    """What only the running controller knows of a host, for displays."""

    phase: str = ""
    last_line: str = ""
    since: str = ""


class Observer(Protocol):
    """Somebody who is shown each new state, e.g. a terminal display."""

    def update(self, state: BatchState, lanes: Mapping[str, Any]) -> None:
        """Take the newest state; must return at once."""


@dataclass(frozen=True)
class Message:
    """What a worker thread says; `host` is None for the outside world."""

    host: str | None
    records: tuple[AnyRecord, ...] = ()
    beat: Mapping[str, Any] | None = None
    ended: bool = False
    trouble: TransportError | AgentError | None = None
    fatal: BaseException | None = None
    nudge: bool = False
    detach: bool = False


@dataclass
class Lane:
    """The controller's own bookkeeping for one host; none of it is worth keeping."""

    busy: bool = False
    busy_since: float = 0.0
    failures: int = 0
    """Troubles in a row."""
    resume_at: float | None = None
    """While set, the host is left alone until then."""
    recheck_at: float | None = None
    live: Live = field(default_factory=Live)
    watch: Watch | None = None
    """Of the attempt that runs there."""
