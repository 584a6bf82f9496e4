"""A generated ssh_config for rsync's ssh: the same hops, the same pinned key, the same login as the open connection.

Everything is in a 0600 file below a 0700 directory and nothing in argv; the user's own configuration is not read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fleet.errors import InputError
from fleet.model.hosts import Defaults, Hop
from fleet.model.names import ADDRESS, USER, visible
from fleet.transport.keys import Credential
from fleet.transport.known_hosts import HostKey
from fleet.transport.limits import HOST_KEY_ALGORITHMS, OPENSSH_OPTIONS


class Endpoint(Protocol):
    """One proven hop of the way: who it is, which key it proved, which key let us in."""

    @property
    def hop(self) -> Hop:
        """Where it is."""

    @property
    def credential(self) -> Credential:
        """The key that let us in."""

    @property
    def host_key(self) -> HostKey:
        """The key it proved to hold."""


def write_config(folder: Path, chain: Sequence[Endpoint], defaults: Defaults) -> Path:
    """Write config, known_hosts and public keys into `folder` and return the config; the last hop is `fleet-target`."""
    names = [*(f"fleet-jump{number}" for number in range(1, len(chain))), "fleet-target"]
    blocks: list[str] = []
    for number, (name, end) in enumerate(zip(names, chain, strict=True)):
        _refuse_unsafe(end.hop)
        pinned = write_private(folder / f"{name}.known_hosts", end.host_key.line(end.hop.host_key_alias))
        lines = [
            f"Host {name}",
            f"HostName {end.hop.address}",
            f"Port {end.hop.port}",
            f"User {end.hop.user}",
            f"HostKeyAlias {end.hop.host_key_alias}",
            f"UserKnownHostsFile {_quoted(pinned)}",
            f"HostKeyAlgorithms {','.join(HOST_KEY_ALGORITHMS[end.host_key.type])}",
            f"ProxyJump {names[number - 1]}" if number else "ProxyCommand none",
        ]
        if end.credential.identity_file is not None:
            lines += [f"IdentityFile {_quoted(end.credential.identity_file)}", "IdentityAgent none"]
        else:
            # ssh takes a public key as a wish: the agent's key of that name and no other is offered.
            lines.append(f"IdentityFile {_quoted(write_private(folder / f'{name}.pub', end.credential.public_line))}")
        blocks.append("\n  ".join(lines))
    general = "\n  ".join(["Host *", *_patience(defaults), *OPENSSH_OPTIONS])
    return write_private(folder / "config", "\n".join([*blocks, general]) + "\n")


def _patience(defaults: Defaults) -> list[str]:
    """Return the deadlines of the open connection as ssh takes them: whole seconds, and connecting includes the banner."""
    connect_s = max(1, math.ceil(max(defaults.connect_timeout, defaults.banner_timeout)))
    # ssh gives up one interval after the last of the signs of life that it counts.
    asked_s = max(1, int(defaults.dead_after / 3))
    return [f"ConnectTimeout {connect_s}", f"ServerAliveInterval {asked_s}", "ServerAliveCountMax 2"]


def _refuse_unsafe(hop: Hop) -> None:
    """Refuse what ssh would take for another setting or expand; the inventory has let none of it pass."""
    if not (ADDRESS.match(hop.address) and ADDRESS.match(hop.host_key_alias) and USER.match(hop.user)):
        shown = visible(f"{hop.user}@{hop.address} ({hop.host_key_alias})", 200)
        raise InputError(f"{shown}: not a user, address and HostKeyAlias that ssh may be given")


def write_private(path: Path, text: str) -> Path:
    """Create a file that only we can read, from its first moment on, and return its path."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    return path


def _quoted(path: Path) -> str:
    """Return a path as ssh_config takes it literally; `%` and `$` would be expanded there."""
    text = str(path)
    if any(character in text for character in "\"'\n\r\0$\\"):
        raise InputError(f"{path}: ssh cannot be told this file name", hint="move the file to a plainer path")
    return '"' + text.replace("%", "%%") + '"'
