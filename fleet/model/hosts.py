"""A host as the rest of fleet sees it, whatever it was resolved from."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fleet.model.base import Strict


class Hop(Strict):
    """One SSH endpoint: the host itself or a jump host before it."""

    address: str
    port: int = 22
    user: str
    identity_files: tuple[Path, ...] = ()
    identities_only: bool = False
    """ssh_config's IdentitiesOnly: from ssh-agent only the keys of `identity_files` are offered."""
    host_key_alias: str
    """The name under which the key is pinned in known_hosts; stable when the address changes."""


class Host(Strict):
    """One eval host: where it is, how to reach it, which pipeline runs there."""

    name: str
    hop: Hop
    jumps: tuple[Hop, ...] = ()
    """Jump hosts, nearest to us first."""
    groups: tuple[str, ...] = ()
    pipeline: str = "openhands"
    workdir: str | None = None
    """Overrides the pipeline's work directory on this host."""
    known_hosts: tuple[Path, ...] = ()
    """Files of pinned keys, read in this order; only fleet's own (the first) is ever written."""
    accept_new_key: bool = False
    """`host_key: accept-new` in hosts.yaml: pin a key on first sight instead of asking `fleet trust`."""
    origin: str = "hosts.yaml"
    """Where the entry came from: hosts.yaml, ssh_config, ec2."""
    python: str = Field(default="python3", pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$")


class Defaults(Strict):
    """Limits and deadlines shared by all hosts; the reasons are in docs/design.md."""

    in_flight: int = Field(default=64, ge=1, le=512)
    """Hosts being worked on at once."""
    handshakes_per_jump: int = Field(default=8, ge=1, le=64)
    """sshd's default MaxStartups (10:30:100) drops connections from the tenth unauthenticated one on."""
    connect_timeout: float = Field(default=10.0, gt=0, le=120)
    banner_timeout: float = Field(default=10.0, gt=0, le=120)
    auth_timeout: float = Field(default=20.0, gt=0, le=120)
    dead_after: float = Field(default=15.0, ge=3, le=120)
    """An open connection whose other end has vanished is given up after so many seconds."""
