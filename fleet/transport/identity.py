"""Whether a host is the pinned one: decided after the key exchange and before anything else is sent."""

from __future__ import annotations

from fleet.errors import HostKeyChanged, HostKeyUnknown, TransportError, Unreachable
from fleet.model.hosts import Hop, Host
from fleet.model.names import visible
from fleet.transport import limits
from fleet.transport.known_hosts import HostKey, Pins, lookup, names_of, pin
from fleet.transport.wire import Wire


def pins_of(host: Host, hop: Hop) -> Pins:
    """Return what is pinned for one hop of a host."""
    return lookup(host.known_hosts, names_of(hop.host_key_alias, hop.address, hop.port))


def offered(pins: Pins) -> tuple[str, ...]:
    """Return the algorithms the server may prove itself with: those of the pinned types, or all while nothing is pinned."""
    if pins.keys:
        return pins.algorithms()
    return tuple(name for names in limits.HOST_KEY_ALGORITHMS.values() for name in names)


def key_of(wire: Wire) -> HostKey:
    """Return the key that the server has just proven to hold."""
    key = wire.get_remote_server_key()
    return HostKey(key.get_name(), key.asbytes())


def prove(host: Host, hop: Hop, pins: Pins, key: HostKey) -> HostKey:
    """Return `key` when it is the pinned one; raises HostKeyChanged or HostKeyUnknown.

    With `host_key: accept-new` a first key is pinned here; when two processes meet, the first one's key stands for both.
    """
    if key.blob in pins.revoked:
        text = f"{host.name}: {hop.address} presents a revoked key, {key.fingerprint}"
        raise HostKeyChanged(text, hint="ask whoever revoked it", host=host.name)
    if not pins.keys:
        if not host.accept_new_key or not host.known_hosts:
            text = f"{host.name}: no host key is pinned for {hop.host_key_alias}; {hop.address} presents {key.shown}"
            raise HostKeyUnknown(text, hint=f"fleet trust {host.name}", host=host.name)
        pins = Pins(pins.name, pin(host.known_hosts[0], hop.host_key_alias, key), pins.revoked)
    if key not in pins.keys:
        raise changed(host, hop, pins, f"presents {key.shown}")
    return key


def changed(host: Host, hop: Hop, pins: Pins, presents: str) -> HostKeyChanged:
    """Return the error for a key that is not the pinned one, with both fingerprints."""
    pinned = ", ".join(key.shown for key in pins.keys)
    return HostKeyChanged(
        f"{host.name}: the host key is not the pinned one: {pinned} is pinned for {pins.name}, {hop.address} {presents}; "
        "nothing was sent",
        hint=f"if the machine was replaced on purpose: fleet trust {host.name} --replace",
        host=host.name,
    )


def incompatible(host: Host, hop: Hop, text: str, pins: Pins) -> TransportError:
    """Return the error for a server that shares no algorithm with us; a pinned type it no longer offers is a changed key."""
    if "host key" in text and pins.keys:
        return changed(host, hop, pins, "offers no key of that type")
    return Unreachable(
        f"{host.name}: {hop.address} has no algorithm in common with fleet: {visible(text, 200)}",
        hint="update its OpenSSH",
        host=host.name,
    )
