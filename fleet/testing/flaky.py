"""A link that fails on a plan: requests lost, answers lost, late, or cut after so many bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fleet.errors import NoAnswer, TransferFailed, Unreachable
from fleet.model.hosts import Host
from fleet.transport.protocol import Connector, PullRequest, PullResult, Session, Transport


@dataclass(frozen=True)
class Fault:
    """What happens to one session (or one opening, or one pull).

    `drop="open"`: the connection does not come about. `drop="request"`: the command never starts. `drop="answer"`: it
    runs and its answer is lost. `cut_after`: the link dies after that many bytes of the answer. `delay_s`: all of it late.
    """

    drop: Literal["open", "request", "answer"] | None = None
    cut_after: int | None = None
    delay_s: float = 0.0


Plan = Callable[[Host, int], Fault | None]
"""Asked with the host and how many times that host was asked before: openings, sessions and pulls count together."""


class FlakyConnector:
    """Wraps a Connector; every transport it opens follows the plan."""

    def __init__(self, inner: Connector, plan: Plan) -> None:
        self.inner = inner
        self.plan = plan
        self._asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def next_fault(self, host: Host) -> Fault:
        """Return the fault of the next step on `host`."""
        with self._lock:
            number = self._asked.get(host.name, 0)
            self._asked[host.name] = number + 1
        return self.plan(host, number) or Fault()

    def open(self, host: Host) -> FlakyTransport:
        """Open through the wrapped connector, or fail as planned."""
        fault = self.next_fault(host)
        time.sleep(fault.delay_s)
        if fault.drop == "open":
            raise Unreachable(f"{host.name}: did not answer (planned)", host=host.name)
        return FlakyTransport(self.inner.open(host), lambda: self.next_fault(host))

    def close(self) -> None:
        """Close the wrapped connector."""
        self.inner.close()


class FlakyTransport:
    """Wraps a Transport; `next_fault` is asked once per session and per pull."""

    def __init__(self, inner: Transport, next_fault: Callable[[], Fault]) -> None:
        self.inner = inner
        self.host = inner.host
        self.dead_after_s = inner.dead_after_s
        self._next_fault = next_fault
        self._dead = False

    def start(self, command: str) -> Session:
        """Start the command, or pretend to."""
        if self._dead:
            raise Unreachable(f"{self.host.name}: the connection is lost (planned)", host=self.host.name)
        fault = self._next_fault()
        if fault.drop == "open":
            self.die()
            raise Unreachable(f"{self.host.name}: the connection is lost (planned)", host=self.host.name)
        session = None if fault.drop == "request" else self.inner.start(command)
        return _FlakySession(self, session, fault)

    def alive(self, timeout_s: float) -> bool:
        """Tell whether the link still lives."""
        return not self._dead and self.inner.alive(timeout_s)

    def pull(self, request: PullRequest) -> PullResult:
        """Pull, or fail as planned: the data may be here although the answer is not."""
        fault = self._next_fault()
        time.sleep(fault.delay_s)
        if fault.drop in ("open", "request"):
            raise TransferFailed(f"{self.host.name}: the link was lost (planned)", host=self.host.name)
        result = self.inner.pull(request)
        if fault.drop == "answer":
            raise TransferFailed(f"{self.host.name}: the link was lost (planned)", host=self.host.name)
        return result

    def close(self) -> None:
        """Close the wrapped transport."""
        self.inner.close()

    def die(self) -> None:
        """Lose the link: nothing started on it is heard of again."""
        self._dead = True


class _FlakySession:
    def __init__(self, transport: FlakyTransport, inner: Session | None, fault: Fault) -> None:
        self._transport = transport
        self._inner = inner
        self._fault = fault
        self._left = fault.cut_after
        self._late = fault.delay_s

    def send(self, data: bytes) -> None:
        if self._inner is None:
            self._transport.die()
            raise NoAnswer(f"{self._transport.host.name}: the connection was lost while sending (planned)")
        self._inner.send(data)

    def receive(self, timeout_s: float) -> bytes | None:
        if self._late > 0:
            wait = min(self._late, timeout_s)
            time.sleep(wait)
            self._late -= wait
            if self._late > 0:
                return None
        if self._inner is None or self._left == 0:
            self._transport.die()
            return b""
        data = self._inner.receive(timeout_s)
        if self._fault.drop == "answer" and data is not None:
            # Wait for the command's end before losing the link: "it ran, and nobody knows" is the case worth testing.
            while data:
                data = self._inner.receive(timeout_s) or b""
            self._transport.die()
            return b""
        if data and self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data

    def stderr_tail(self) -> bytes:
        return b"" if self._inner is None else self._inner.stderr_tail()

    def exit_status(self, timeout_s: float) -> int | None:
        lost = self._inner is None or self._fault.drop == "answer" or self._left == 0
        return None if lost or self._inner is None else self._inner.exit_status(timeout_s)

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
