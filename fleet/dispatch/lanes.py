"""What a running controller keeps per host and is told by its threads; none of it outlives the controller."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.dispatch.rules.scheduler import Begin, Check, Collect, Launch, Tell, Wait
from fleet.dispatch.rules.stalls import Watch
from fleet.dispatch.state.views import BatchState
from fleet.errors import AgentError, InputError, OutOfThreads, TransportError
from fleet.model.records import AnyRecord

Trouble = TransportError | AgentError | InputError
"""What a worker may meet without ending the run: the link, the host's answer, or something that this machine lacks."""
PHASES = {
    Check: "checking",
    Tell: "quarantining",
    Begin: "staging",
    Launch: "launching",
    Wait: "running",
    Collect: "collecting",
}


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
    trouble: Trouble | None = None
    fatal: BaseException | None = None
    nudge: bool = False
    detach: bool = False


HASTY_S = 5.0
MAX_HASTY = 10
"""An honest host needs a launch, waits of many minutes each and a collect for an attempt."""
MAX_REST_S = 60.0


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
    hasty: tuple[str | None, int] = (None, 0)
    """An attempt, and how many short actions on it have followed each other."""

    def rest_until(self, attempt: str | None, now: float) -> float | None:
        """Take note of an action that ended; return until when to leave a host alone that goes round in circles, else None.

        One that takes an attempt and has not started it, again and again, would fill the journal as fast as it answers.
        """
        same = attempt is not None and attempt == self.hasty[0] and now - self.busy_since < HASTY_S
        count = self.hasty[1] + 1 if same else 0
        self.hasty = (attempt, count)
        return None if count < MAX_HASTY else now + min(MAX_REST_S, math.ldexp(1.0, min(count - MAX_HASTY, 10)))


def start_thread(name: str, work: Callable[..., None], *arguments: Any) -> None:
    """Start a daemon thread, so that nobody waits for a dead host at the end; OutOfThreads where there can be no more."""
    try:
        threading.Thread(target=work, args=arguments, name=name, daemon=True).start()
    except RuntimeError:
        raise OutOfThreads from None
