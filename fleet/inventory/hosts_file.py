"""The shape of hosts.yaml: `defaults`, `hosts`, `groups`. The commented example is ./hosts.yaml.

A value is looked up in the host's own entry, then in its groups, then in ssh_config, then in `defaults`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fleet.model.base import Strict
from fleet.model.hosts import Defaults
from fleet.model.names import ADDRESS, USER, is_name, visible


def _address(text: str) -> str:
    if not ADDRESS.match(text):
        raise ValueError(f"{visible(text, 80)!r} is not a host name or an IP address")
    return text


def _user(text: str) -> str:
    if not USER.match(text):
        raise ValueError(f"{visible(text, 80)!r} is not a user name; allowed are A-Z a-z 0-9 . _ -, first a letter or _")
    return text


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"{visible(text, 80)!r} may only hold A-Z a-z 0-9 . _ - and must start with a letter or digit")
    return text


def _alias(text: str) -> str:
    if not is_name(text.replace("{name}", "x")):
        raise ValueError(f"{visible(text, 80)!r} may only hold A-Z a-z 0-9 . _ - and {{name}}")
    return text


def _workdir(text: str) -> str:
    if not _WORKDIR.match(text) or ".." in text.split("/"):
        raise ValueError(f"{visible(text, 80)!r} is not a directory of a host; write ~/…, $HOME/… or /…, without `..`")
    return text


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _file(text: str) -> str:
    if not text or len(text) > 4096 or not text.isprintable() or any(character in text for character in "\"'"):
        raise ValueError(f"{visible(text, 80)!r} is not a usable file name")
    return text


_WORKDIR = re.compile(r"(~|\$HOME|/)[A-Za-z0-9._@=,+~/-]{0,1000}\Z")
Workdir = Annotated[str, AfterValidator(_workdir)]
Address = Annotated[str, AfterValidator(_address)]
User = Annotated[str, AfterValidator(_user)]
Name = Annotated[str, AfterValidator(_name)]
Alias = Annotated[str, AfterValidator(_alias)]
Port = Annotated[int, Field(ge=1, le=65535, strict=True)]
File = Annotated[str, AfterValidator(_file)]
Files = Annotated[tuple[File, ...], BeforeValidator(_one_or_many)]
Names = Annotated[tuple[Name, ...], BeforeValidator(_one_or_many)]


class JumpFields(Strict):
    """One jump host written out; as text it is `[user@]name[:port]`, and `name` may be an ssh_config alias."""

    address: Address
    user: User | None = None
    port: Port = 22
    identity_file: Files | None = None
    host_key_alias: Name | None = None


Jumps = Annotated[
    tuple[JumpFields | str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str | dict) else value)
]


class Common(Strict):
    """What a host, a group and the defaults may all say."""

    user: User | None = None
    port: Port | None = None
    identity_file: Files | None = None
    identities_only: bool | None = None
    jump: Jumps | None = None
    alias: Alias | None = None
    pipeline: Name | None = None
    workdir: Workdir | None = None
    host_key: Literal["strict", "accept-new"] | None = None
    python: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_./][A-Za-z0-9_./-]*$")


class HostFields(Common):
    """One entry below `hosts`."""

    address: Address | None = None
    host_key_alias: Name | None = None
    groups: Names = ()


class GroupFields(Common):
    """One entry below `groups`."""

    hosts: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ()


class DefaultFields(Common, Defaults):
    """The `defaults` section: limits and deadlines of fleet.model.hosts.Defaults, and fall-backs for every host."""

    ssh_config: File | None = None
    known_hosts: Files | None = None


class HostsFile(Strict):
    """The whole file."""

    defaults: DefaultFields = Field(default_factory=DefaultFields)
    hosts: dict[str, HostFields | None] = Field(default_factory=dict)
    groups: dict[str, GroupFields | None] = Field(default_factory=dict)


def path_of(text: str, base: Path) -> Path:
    """Return a path from the file: `~` is the user's home, anything else is relative to the file's directory."""
    path = Path(text).expanduser()
    return path if path.is_absolute() else base / path
