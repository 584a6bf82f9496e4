"""Hosts over real SSH: one connection per host, jump hosts shared, identity checked before anything is sent."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import FleetError, HostKeyChanged, HostKeyUnknown, NoAnswer, TransportError, Unreachable
from fleet.model.hosts import Defaults, Hop, Host
from fleet.model.names import visible
from fleet.transport import limits
from fleet.transport.keys import Credential, Keyring
from fleet.transport.known_hosts import HostKey, Pins, lookup, names_of, pin
from fleet.transport.library import IncompatiblePeer, paramiko
from fleet.transport.protocol import PullRequest, PullResult
from fleet.transport.sockets import dial
from fleet.transport.wire import Wire


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


@dataclass(frozen=True)
class Hold:
    """An authenticated connection to one hop, with what proved either side."""

    hop: Hop
    wire: Wire
    credential: Credential
    host_key: HostKey


class SshTransport:
    """One open connection to one host."""

    def __init__(self, host: Host, chain: tuple[Hold, ...], connector: SshConnector) -> None:
        self.host = host
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
            return pull_over_ssh(self.host, self._chain, request)

    def close(self) -> None:
        """Close the connection at once."""
        self._chain[-1].wire.cut()
        self._connector.forget(self)


@dataclass
class _Shared:
    """One jump connection that many hosts go through."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    chain: tuple[Hold, ...] = ()
    error: TransportError | None = None
    failed_at: float = -1.0


class SshConnector:
    """Opens SSH connections; thread-safe. Jump hosts are connected to once and shared by all hosts behind them."""

    def __init__(self, defaults: Defaults | None = None) -> None:
        self.defaults = defaults or Defaults()
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._open: set[SshTransport] = set()
        self._jumps: dict[Any, _Shared] = {}
        self._jump_slots: dict[Hop, threading.Semaphore] = {}
        self._openings = threading.Semaphore(limits.OPENINGS_IN_FLIGHT)
        self._closed = False

    def open(self, host: Host) -> SshTransport:
        """Connect and log in; raises Unreachable, AuthFailed, HostKeyUnknown or HostKeyChanged."""
        with self._openings:
            transport = SshTransport(host, self._connect(host, (*host.jumps, host.hop)), self)
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
        wire = self._shake_hands(host, self._way_to(host, hops[:depth]), hops[depth], _all_algorithms())
        try:
            return _key_of(wire)
        finally:
            wire.cut()

    def close(self) -> None:
        """Close every connection that was opened here."""
        with self._lock:
            self._closed = True
            transports, self._open = list(self._open), set()
            shared, self._jumps = list(self._jumps.values()), {}
        for transport in transports:
            transport.close()
        for jump in shared:
            for hold in reversed(jump.chain):
                hold.wire.cut()
        self._keyring.close()

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

    # --- opening ---

    def _connect(self, host: Host, hops: tuple[Hop, ...]) -> tuple[Hold, ...]:
        """Return the holds of a whole chain; the last hop's connection is new."""
        way = self._way_to(host, hops[:-1])
        hop = hops[-1]
        pins = lookup(host.known_hosts, names_of(hop.host_key_alias, hop.address, hop.port))
        wire = self._shake_hands(host, way, hop, pins.algorithms() if pins.keys else _all_algorithms(), pins)
        try:
            key = self._proven(host, hop, pins, _key_of(wire))
            credential = self._keyring.login(wire, hop, host.name, self.defaults.auth_timeout)
        except BaseException:
            wire.cut()
            raise
        return (*way, Hold(hop, wire, credential, key))

    def _way_to(self, host: Host, jumps: tuple[Hop, ...]) -> tuple[Hold, ...]:
        """Return the shared connection through `jumps`, opened by the first host that needs it."""
        if not jumps:
            return ()
        asked = time.monotonic()
        with self._lock:
            shared = self._jumps.setdefault((jumps, host.known_hosts, host.accept_new_key), _Shared())
        with shared.lock:
            if shared.chain and all(hold.wire.is_active() for hold in shared.chain):
                return shared.chain
            if shared.error is not None and shared.failed_at >= asked:
                # Whoever waited for this attempt shares its outcome: 100 hosts behind a dead jump host cost one timeout.
                raise _same(shared.error, host.name)
            try:
                shared.chain, shared.error = self._connect(host, jumps), None
            except TransportError as error:
                shared.chain, shared.failed_at = (), time.monotonic()
                shared.error = type(error)(
                    f"jump host {jumps[-1].address}: {_bare(error, host)}", hint=error.hint, host=host.name
                )
                raise _same(shared.error, host.name) from None
            return shared.chain

    def _shake_hands(
        self, host: Host, way: tuple[Hold, ...], hop: Hop, algorithms: tuple[str, ...], pins: Pins | None = None
    ) -> Wire:
        """Return a connection whose server has proven to hold its host key; tries again when sshd drops it unheard."""
        timeout = self.defaults.connect_timeout
        for attempt in range(1, limits.OPEN_ATTEMPTS + 1):
            sock = self._through(way, hop, host.name) if way else dial(hop, timeout, host.name)
            wire = Wire(sock, algorithms)
            try:
                wire.handshake(self.defaults.banner_timeout, self.defaults.auth_timeout)
            except TimeoutError:
                what = "sent no SSH banner" if not wire.remote_version else "did not finish the key exchange"
                text = f"{host.name}: {hop.address} port {hop.port} accepted the connection but {what} in time"
                raise Unreachable(text, hint="is that sshd, and is the machine overloaded?", host=host.name) from None
            except IncompatiblePeer as error:
                wire.cut()
                raise self._incompatible(host, hop, str(error), pins) from None
            except (EOFError, OSError, paramiko.SSHException) as error:
                wire.cut()
                if attempt == limits.OPEN_ATTEMPTS or not _dropped(wire, error):
                    raise _broken(host, hop, wire, error) from None
                time.sleep(limits.RETRY_BASE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311
            else:
                return wire
        raise AssertionError("unreachable")

    def _through(self, way: tuple[Hold, ...], hop: Hop, host: str) -> Any:
        """Return a channel from the last jump host to `hop`; sshd counts it neither as a session nor as a login."""
        jump = way[-1]
        try:
            return jump.wire.open_channel(
                "direct-tcpip", (hop.address, hop.port), ("127.0.0.1", 0), timeout=self.defaults.connect_timeout
            )
        except paramiko.ChannelException as error:
            where = f"{hop.address} port {hop.port}"
            if error.code == 1:
                text, hint = f"{host}: {jump.hop.address} forbids forwarding to {where}", "set AllowTcpForwarding yes there"
            else:
                text, hint = (
                    f"{host}: {jump.hop.address} cannot connect to {where}",
                    "is the machine running, is the port right?",
                )
            raise Unreachable(text, hint=hint, host=host) from None
        except (OSError, EOFError, paramiko.SSHException) as error:
            slow = "Timeout" in str(error)
            text = f"{host}: {hop.address} port {hop.port} did not answer" if slow else f"{host}: the connection was lost"
            raise Unreachable(f"{text} (through {jump.hop.address})", hint="run the command again", host=host) from None

    # --- identity ---

    def _proven(self, host: Host, hop: Hop, pins: Pins, key: HostKey) -> HostKey:
        """Return `key` when it is the pinned one; nothing has been sent yet but the key exchange."""
        if key.blob in pins.revoked:
            text = f"{host.name}: {hop.address} presents a revoked key, {key.fingerprint}"
            raise HostKeyChanged(text, hint="ask whoever revoked it", host=host.name)
        if not pins.keys:
            if not host.accept_new_key or not host.known_hosts:
                text = f"{host.name}: no host key is pinned for {hop.host_key_alias}; {hop.address} presents {_shown(key)}"
                raise HostKeyUnknown(text, hint=f"fleet trust {host.name}", host=host.name)
            pins = Pins(pins.name, pin(host.known_hosts[0], hop.host_key_alias, key), pins.revoked)
        if key not in pins.keys:
            raise _changed(host, hop, pins, f"presents {_shown(key)}")
        return key

    def _incompatible(self, host: Host, hop: Hop, text: str, pins: Pins | None) -> TransportError:
        if "host key" in text and pins is not None and pins.keys:
            return _changed(host, hop, pins, "offers no key of that type")
        return Unreachable(
            f"{host.name}: {hop.address} has no algorithm in common with fleet: {visible(text, 200)}",
            hint="update its OpenSSH",
            host=host.name,
        )


def _all_algorithms() -> tuple[str, ...]:
    return tuple(name for names in limits.HOST_KEY_ALGORITHMS.values() for name in names)


def _key_of(wire: Wire) -> HostKey:
    key = wire.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def _shown(key: HostKey) -> str:
    return f"{key.type} {key.fingerprint}"


def _changed(host: Host, hop: Hop, pins: Pins, presents: str) -> HostKeyChanged:
    pinned = ", ".join(_shown(key) for key in pins.keys)
    return HostKeyChanged(
        f"{host.name}: the host key is not the pinned one: {pinned} is pinned for {pins.name}, {hop.address} {presents}; "
        "nothing was sent",
        hint=f"if the machine was replaced on purpose: fleet trust {host.name} --replace",
        host=host.name,
    )


def _dropped(wire: Wire, error: Exception) -> bool:
    """Tell whether sshd hung up before it said anything, as it does above MaxStartups and while it restarts."""
    if wire.remote_version and not isinstance(error, EOFError | ConnectionError):
        return False
    return isinstance(error, EOFError | ConnectionError) or "banner" in str(error).lower()


def _broken(host: Host, hop: Hop, wire: Wire, error: Exception) -> TransportError:
    if not wire.remote_version:
        return Unreachable(
            f"{host.name}: {hop.address} port {hop.port} closed the connection before the SSH banner",
            hint="too many logins at once (MaxStartups), or not an sshd?",
            host=host.name,
        )
    return Unreachable(
        f"{host.name}: the key exchange with {hop.address} failed: {visible(str(error) or 'connection closed', 200)}",
        hint=f"ssh -v -p {hop.port} {hop.address}",
        host=host.name,
    )


def _bare(error: FleetError, host: Host) -> str:
    return error.message.removeprefix(f"{host.name}: ")


def _same(error: TransportError, host: str) -> TransportError:
    return type(error)(f"{host}: {error.message}", hint=error.hint, host=host)
