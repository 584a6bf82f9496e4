"""Pinning a host key on purpose: what a host presents, beside what is pinned, before anyone logs in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fleet.errors import InputError
from fleet.model.hosts import Hop, Host
from fleet.transport.identity import pins_of
from fleet.transport.known_hosts import HostKey, pin
from fleet.transport.ssh import SshConnector


@dataclass(frozen=True)
class Candidate:
    """The key that one hop presents, and what is known about it."""

    host: Host
    hop: Hop
    key: HostKey
    pinned: tuple[HostKey, ...]
    state: Literal["unknown", "known", "changed"]

    @property
    def file(self) -> Path:
        """Fleet's own known_hosts, the only one that is written."""
        if not self.host.known_hosts:
            raise InputError(f"{self.host.name}: no known_hosts file to pin the key in", hint="set defaults.known_hosts")
        return self.host.known_hosts[0]


def examine(connector: SshConnector, host: Host, depth: int) -> Candidate:
    """Return what hop number `depth` presents (jump hosts first); raises Unreachable, or what is wrong with the way there.

    Nothing is sent to that hop but the key exchange; no login is tried.
    """
    hop = (*host.jumps, host.hop)[depth]
    key = connector.presented_key(host, depth)
    pins = pins_of(host, hop)
    if key.blob in pins.revoked:
        return Candidate(host, hop, key, pins.keys, "changed")
    state: Literal["unknown", "known", "changed"] = "known" if key in pins.keys else "changed" if pins.keys else "unknown"
    return Candidate(host, hop, key, pins.keys, state)


def accept(candidate: Candidate) -> None:
    """Pin the candidate's key under the hop's alias, in the place of any other; raises StorageError."""
    pin(candidate.file, candidate.hop.host_key_alias, candidate.key, replace=candidate.state == "changed")
