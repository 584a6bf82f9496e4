"""Opens connections: straight or through shared jump hosts, tried again when sshd is too busy to listen."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from fleet.errors import FleetError, TransportError, Unreachable
from fleet.model.hosts import Defaults, Hop, Host
from fleet.model.names import visible
from fleet.transport import limits
from fleet.transport.identity import incompatible, key_of, offered, pins_of, prove
from fleet.transport.keys import Credential, Keyring
from fleet.transport.known_hosts import HostKey, Pins
from fleet.transport.library import IncompatiblePeer, paramiko
from fleet.transport.sockets import dial
from fleet.transport.wire import Wire


@dataclass(frozen=True)
class Hold:
    """An authenticated connection to one hop, with what proved either side."""

    hop: Hop
    wire: Wire
    credential: Credential
    host_key: HostKey


@dataclass
class _Shared:
    """One jump connection that many hosts go through."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    chain: tuple[Hold, ...] = ()
    error: TransportError | None = None
    failed_at: float = -1.0


class Opener:
    """What a connector needs to open chains of hops; thread-safe."""

    def __init__(self, defaults: Defaults) -> None:
        self.defaults = defaults
        self._keyring = Keyring()
        self._lock = threading.Lock()
        self._jumps: dict[Any, _Shared] = {}

    def close(self) -> None:
        """Close the jump connections and let ssh-agent go."""
        with self._lock:
            shared, self._jumps = list(self._jumps.values()), {}
        for jump in shared:
            for hold in reversed(jump.chain):
                hold.wire.cut()
        self._keyring.close()

    def connect(self, host: Host, hops: tuple[Hop, ...]) -> tuple[Hold, ...]:
        """Return the holds of a whole chain; the last hop's connection is new."""
        way = self.way_to(host, hops[:-1])
        hop = hops[-1]
        pins = pins_of(host, hop)
        wire = self.shake_hands(host, way, hop, pins)
        try:
            key = prove(host, hop, pins, key_of(wire))
            credential = self._keyring.login(wire, hop, host.name, self.defaults.auth_timeout)
        except BaseException:
            wire.cut()
            raise
        return (*way, Hold(hop, wire, credential, key))

    def way_to(self, host: Host, jumps: tuple[Hop, ...]) -> tuple[Hold, ...]:
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
                shared.chain, shared.error = self.connect(host, jumps), None
            except TransportError as error:
                shared.chain, shared.failed_at = (), time.monotonic()
                shared.error = type(error)(
                    f"jump host {jumps[-1].address}: {_bare(error, host)}", hint=error.hint, host=host.name
                )
                raise _same(shared.error, host.name) from None
            return shared.chain

    def shake_hands(self, host: Host, way: tuple[Hold, ...], hop: Hop, pins: Pins) -> Wire:
        """Return a connection whose server has proven to hold its host key; tries again when sshd drops it unheard."""
        timeout = self.defaults.connect_timeout
        for attempt in range(1, limits.OPEN_ATTEMPTS + 1):
            sock = self._through(way, hop, host.name) if way else dial(hop, timeout, host.name, self.defaults.dead_after)
            wire = Wire(sock, offered(pins))
            try:
                wire.handshake(self.defaults.banner_timeout, self.defaults.auth_timeout)
            except TimeoutError:
                what = "sent no SSH banner" if not wire.remote_version else "did not finish the key exchange"
                text = f"{host.name}: {hop.address} port {hop.port} accepted the connection but {what} in time"
                raise Unreachable(text, hint="is that sshd, and is the machine overloaded?", host=host.name) from None
            except IncompatiblePeer as error:
                wire.cut()
                raise incompatible(host, hop, str(error), pins) from None
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
