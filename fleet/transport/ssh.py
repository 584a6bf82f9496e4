"""Hosts over real SSH: one connection per host, jump hosts shared, identity checked before anything is sent."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

from fleet.errors import NoAnswer, Unreachable
from fleet.model.hosts import Defaults, Hop, Host
from fleet.model.names import visible
from fleet.transport import limits
from fleet.transport.identity import key_of
from fleet.transport.known_hosts import HostKey, Pins
from fleet.transport.library import paramiko
from fleet.transport.opening import Hold, Opener
from fleet.transport.protocol import PullRequest, PullResult


class SshSession:
    """One remote command on a channel."""

    def __init__(self, channel: Any, host: str) -> None:
        self._channel = channel
        self._host = host

    def send(self, data: bytes) -> None:
        """Write to the command's stdin; raises NoAnswer when the link is gone or the command does not read."""
        view = memoryview(data)
        self._channel.settimeout(limits.SEND_STALL_S)
        while view:
            try:
                sent = self._channel.send(view[: 1 << 20].tobytes())
            except (OSError, EOFError, paramiko.SSHException):
                sent = 0
            if sent == 0 or not self._channel.transport.is_active():
                raise NoAnswer(
                    f"{self._host}: the connection was lost while sending", hint="run the command again", host=self._host
                )
            view = view[sent:]

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next chunk of stdout, b"" at its end, None when nothing came in time."""
        self._channel.settimeout(max(0.0, timeout_s))
        try:
            data: bytes = self._channel.recv(limits.RECEIVE_CHUNK)
        except TimeoutError:
            return None
        except (OSError, EOFError, paramiko.SSHException):
            return b""
        return data

    def stderr_tail(self) -> bytes:
        """Return the last 8 KiB of stderr."""
        return bytes(self._channel.__dict__.get("fleet_stderr", b""))

    def exit_status(self, timeout_s: float) -> int | None:
        """Return the exit status, or None when it is not known; paramiko's -1 is "the connection was lost"."""
        if not self._channel.status_event.wait(max(0.0, timeout_s)):
            return None
        status: int = self._channel.exit_status
        return None if status < 0 else status

    def close(self) -> None:
        """Give the session up."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.close()


class SshTransport:
    """One open connection to one host."""

    def __init__(self, host: Host, chain: tuple[Hold, ...], connector: SshConnector) -> None:
        self.host = host
        self.dead_after_s = connector.defaults.dead_after
        self._chain = chain
        self._connector = connector

    def start(self, command: str) -> SshSession:
        """Start `command`; raises Unreachable when it was certainly not started."""
        name = self.host.name
        try:
            return SshSession(self._chain[-1].wire.execute(command), name)
        except paramiko.ChannelException as error:
            text = f"{name}: the host refuses another session: {visible(str(error), 200)}"
            raise Unreachable(text, hint="raise MaxSessions in its sshd_config", host=name) from None
        except (OSError, EOFError, paramiko.SSHException):
            raise Unreachable(f"{name}: the connection is lost", hint="run the command again", host=name) from None

    def alive(self, timeout_s: float) -> bool:
        """Tell whether the host answers within `timeout_s`; closes the connection when it does not."""
        return self._chain[-1].wire.answers(timeout_s)

    def pull(self, request: PullRequest) -> PullResult:
        """Bring files here with rsync over OpenSSH, to the same host key with the same login."""
        from fleet.transport.rsync import pull_over_ssh

        with self._connector.jump_slot(self.host):
            return pull_over_ssh(self.host, self._chain, request, self._connector.defaults)

    def close(self) -> None:
        """Close the connection at once."""
        self._chain[-1].wire.cut()
        self._connector.forget(self)


class SshConnector:
    """Opens SSH connections; thread-safe. Jump hosts are connected to once and shared by all hosts behind them."""

    def __init__(self, defaults: Defaults | None = None) -> None:
        self.defaults = defaults or Defaults()
        self._opener = Opener(self.defaults)
        self._lock = threading.Lock()
        self._open: set[SshTransport] = set()
        self._jump_slots: dict[Hop, threading.Semaphore] = {}
        self._openings = threading.Semaphore(limits.OPENINGS_IN_FLIGHT)
        self._closed = False

    def open(self, host: Host) -> SshTransport:
        """Connect and log in; raises Unreachable, AuthFailed, HostKeyUnknown or HostKeyChanged."""
        with self._openings:
            transport = SshTransport(host, self._opener.connect(host, (*host.jumps, host.hop)), self)
        with self._lock:
            if not self._closed:
                self._open.add(transport)
                return transport
        transport.close()
        raise Unreachable(f"{host.name}: the connector is closed", host=host.name)

    def presented_key(self, host: Host, depth: int) -> HostKey:
        """Return the key that hop number `depth` (jump hosts first) presents, with nothing sent to it but the key exchange.

        The hops before it must be trusted already: the way leads through them.
        """
        hops = (*host.jumps, host.hop)
        nothing_pinned = Pins(hops[depth].host_key_alias, (), frozenset())
        wire = self._opener.shake_hands(host, self._opener.way_to(host, hops[:depth]), hops[depth], nothing_pinned)
        try:
            return key_of(wire)
        finally:
            wire.cut()

    def close(self) -> None:
        """Close every connection that was opened here."""
        with self._lock:
            self._closed = True
            transports, self._open = list(self._open), set()
        for transport in transports:
            transport.close()
        self._opener.close()

    def __enter__(self) -> SshConnector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def forget(self, transport: SshTransport) -> None:
        """Take a closed transport off the list."""
        with self._lock:
            self._open.discard(transport)

    @contextlib.contextmanager
    def jump_slot(self, host: Host) -> Iterator[None]:
        """Hold one of the few places for a separate connection to the host's jump host: sshd's MaxStartups drops the tenth."""
        if not host.jumps:
            yield
            return
        with self._lock:
            slots = self._jump_slots.setdefault(host.jumps[0], threading.Semaphore(self.defaults.handshakes_per_jump))
        with slots:
            time.sleep(random.uniform(0.0, 0.05))  # noqa: S311  (spreads openings out; not a secret)
            yield
