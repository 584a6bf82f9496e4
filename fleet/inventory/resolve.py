"""From an entry of hosts.yaml to a Host: addresses, users, keys and jump hosts, all checked."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet.errors import InputError
from fleet.inventory.hosts_file import GroupFields, HostFields, HostsFile, JumpFields, path_of
from fleet.inventory.ssh_config import DEFAULT_IDENTITIES, Settings, SshConfig
from fleet.model.hosts import Hop, Host
from fleet.model.names import ADDRESS, USER, is_name, visible

_JUMP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<name>[^@:\[\]/]+))(?::(?P<port>[0-9]{1,5}))?/?\Z"
)
_JUMP_BY_COMMAND = re.compile(r"(?:/usr/bin/)?ssh (?:-q )?-W (?:%h:%p|\[%h\]:%p) (?:-q )?(\S+)(?: -q)?(?: 2> ?/dev/null)?\Z")
_MAX_JUMPS = 8


def own_known_hosts() -> Path:
    """Return the file that `fleet trust` writes when hosts.yaml does not name another."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "fleet" / "known_hosts"


def user_known_hosts() -> tuple[Path, ...]:
    """Return the files that `ssh` reads for this user."""
    home = Path("~/.ssh").expanduser()
    return (home / "known_hosts", home / "known_hosts2", Path("/etc/ssh/ssh_known_hosts"))


class Resolver:
    """Turns entries into hosts; jump hosts shared by many hosts are resolved once."""

    def __init__(self, file: HostsFile, path: Path, config: Callable[[], SshConfig]) -> None:
        self._file = file
        self._source = str(path)
        self._base = path.parent
        self._config = config
        self._chains: dict[Any, tuple[Hop, ...]] = {}
        self._user = getpass.getuser()

    def alias_of(self, name: str, entry: HostFields, groups: list[tuple[str, GroupFields]]) -> str | None:
        """Return the ssh_config alias of a host; a host with neither address nor alias is its own alias, as for `ssh NAME`."""
        if entry.address is not None:
            if entry.alias is not None:
                raise InputError(f"{self._source}: hosts.{name}: give `address` or `alias`, not both")
            return None
        alias = self._value("alias", name, entry, groups) or "{name}"
        return str(alias).replace("{name}", name)

    def host(self, name: str, entry: HostFields, groups: list[tuple[str, GroupFields]]) -> Host:
        """Return the host `name`, or raise InputError that says where the bad value stands."""
        where = f"{self._source}: hosts.{name}"

        def value(field: str) -> Any:
            return self._value(field, name, entry, groups)

        alias = self.alias_of(name, entry, groups)
        settings = self._config().settings(alias) if alias is not None else Settings()
        address = entry.address or self._hostname(settings, alias or name, where)
        # An alias keeps the user's own ssh settings; hosts.yaml wins only where it speaks about this host or its group.
        user = self._near("user", name, entry, groups) or settings.user or self._file.defaults.user or self._user
        port = self._near("port", name, entry, groups) or settings.port or self._file.defaults.port or 22
        self._check(address, user, where)
        files = self._identities(
            self._near("identity_file", name, entry, groups), settings, alias or name, address, user, port, where
        )
        hop = Hop(
            address=address,
            port=port,
            user=user,
            identity_files=files,
            identities_only=bool(value("identities_only")) or settings.identities_only,
            host_key_alias=self._pin_name(entry.host_key_alias or settings.host_key_alias or alias or name, where),
        )
        jump = self._near("jump", name, entry, groups)
        jumps: tuple[Hop, ...] = ()
        if jump is None:
            jumps = self._config_jumps(settings, alias or name, where, 0)
            jump = () if jumps else self._file.defaults.jump
        if jump:
            jumps = self._written_jumps(jump, where)
        return Host(
            name=name,
            hop=hop,
            jumps=jumps,
            groups=tuple(dict.fromkeys([*entry.groups, *(group for group, _ in groups)])),
            pipeline=value("pipeline") or "openhands",
            workdir=value("workdir"),
            known_hosts=self._known_hosts(settings),
            accept_new_key=value("host_key") == "accept-new",
            origin="hosts.yaml" if alias is None else "ssh_config",
            python=value("python") or "python3",
        )

    def _value(self, field: str, name: str, entry: HostFields, groups: list[tuple[str, GroupFields]]) -> Any:
        near = self._near(field, name, entry, groups)
        return near if near is not None else getattr(self._file.defaults, field)

    def _near(self, field: str, name: str, entry: HostFields, groups: list[tuple[str, GroupFields]]) -> Any:
        own = getattr(entry, field)
        if own is not None:
            return own
        said = [(group, getattr(fields, field)) for group, fields in groups if getattr(fields, field) is not None]
        if any(value != said[0][1] for _, value in said):
            both = " and ".join(f"@{group}" for group, _ in said)
            raise InputError(
                f"{self._source}: hosts.{name}: {both} disagree about {field}",
                hint=f"say {field} in the entry of {name} itself",
            )
        return said[0][1] if said else None

    def _hostname(self, settings: Settings, alias: str, where: str) -> str:
        if settings.hostname is None:
            return alias
        return _fill(settings.hostname, {"h": alias, "n": alias}, f"{where}: HostName in ssh_config")

    def _check(self, address: str, user: str, where: str) -> None:
        if not ADDRESS.match(address):
            raise InputError(f"{where}: {visible(address, 80)!r} is not a host name or an IP address")
        if not USER.match(user):
            raise InputError(f"{where}: {visible(user, 80)!r} is not a user name that may be used for SSH")

    def _pin_name(self, text: str, where: str) -> str:
        if not ADDRESS.match(text):
            raise InputError(f"{where}: {visible(text, 80)!r} is not a usable HostKeyAlias")
        return text

    def _identities(
        self, said: tuple[str, ...] | None, settings: Settings, alias: str, address: str, user: str, port: int, where: str
    ) -> tuple[Path, ...]:
        if said is None and settings.identity_files is None:
            said = self._file.defaults.identity_file
        if said is not None:
            return tuple(path_of(text, self._base) for text in said)
        if settings.identity_files is not None:
            home = str(Path("~").expanduser())
            tokens = {"d": home, "h": address, "n": alias, "p": str(port), "r": user, "u": self._user}
            filled = (_fill(text, tokens, f"{where}: IdentityFile in ssh_config") for text in settings.identity_files)
            return tuple(path_of(text, Path.cwd()) for text in filled)
        standard = (Path("~/.ssh").expanduser() / name for name in DEFAULT_IDENTITIES)
        return tuple(path for path in standard if path.exists())

    def _known_hosts(self, settings: Settings) -> tuple[Path, ...]:
        said = self._file.defaults.known_hosts
        files = [path_of(text, self._base) for text in said] if said else [own_known_hosts(), *user_known_hosts()]
        named = (text for text in settings.known_hosts or () if "%" not in text and "$" not in text)
        files.extend(path_of(text, Path.cwd()) for text in named)
        return tuple(dict.fromkeys(files))

    # --- jump hosts ---

    def _config_jumps(self, settings: Settings, alias: str, where: str, depth: int) -> tuple[Hop, ...]:
        jump = settings.proxy_jump
        if jump is None and settings.proxy_command is not None:
            match = _JUMP_BY_COMMAND.match(settings.proxy_command)
            if match is None:
                raise InputError(
                    f"{where}: ssh_config gives {alias} a ProxyCommand, which fleet does not run",
                    hint=f"use ProxyJump for {alias} in ssh_config, or `jump:` for the host in {self._source}",
                )
            jump = match.group(1)
        return self._chain(tuple(jump.split(",")), where, depth) if jump else ()

    def _written_jumps(self, jumps: tuple[JumpFields | str, ...], where: str) -> tuple[Hop, ...]:
        hops: list[Hop] = []
        for jump in jumps:
            if isinstance(jump, str):
                if jump == "none":
                    continue
                hops.extend(self._chain(tuple(jump.split(",")), where, 0, first=not hops))
                continue
            user = jump.user or self._user
            self._check(jump.address, user, f"{where}: jump host {jump.address}")
            hops.append(
                Hop(
                    address=jump.address,
                    port=jump.port,
                    user=user,
                    identity_files=self._identities(
                        jump.identity_file, Settings(), jump.address, jump.address, user, jump.port, where
                    ),
                    host_key_alias=jump.host_key_alias or jump.address,
                )
            )
        return tuple(hops)

    def _chain(self, texts: tuple[str, ...], where: str, depth: int, *, first: bool = True) -> tuple[Hop, ...]:
        """Return the hops of `a,b`: like ssh, only the first keeps the jump hosts that its own config gives it."""
        key = (texts, first)
        if key not in self._chains:
            if depth >= _MAX_JUMPS or len(texts) > _MAX_JUMPS:
                raise InputError(
                    f"{where}: more than {_MAX_JUMPS} jump hosts in a row", hint="does a jump host jump to itself?"
                )
            hops: list[Hop] = []
            for text in texts:
                hops.extend(self._jump(text.strip(), where, depth, nested=first and not hops))
            self._chains[key] = tuple(hops)
        return self._chains[key]

    def _jump(self, text: str, where: str, depth: int, *, nested: bool) -> tuple[Hop, ...]:
        match = _JUMP.match(text)
        if match is None or (match["name"] is not None and not is_name(match["name"])):
            raise InputError(f"{where}: {visible(text, 80)!r} is not a jump host", hint="write [user@]name[:port]")
        name = match["six"] or match["name"]
        settings = self._config().settings(name) if match["six"] is None else Settings()
        address = self._hostname(settings, name, where)
        user = match["user"] or settings.user or self._user
        port = int(match["port"] or settings.port or 22)
        self._check(address, user, f"{where}: jump host {name}")
        if not 0 < port < 65536:
            raise InputError(f"{where}: jump host {name}: the port {port} is not a number from 1 to 65535")
        hop = Hop(
            address=address,
            port=port,
            user=user,
            identity_files=self._identities(None, settings, name, address, user, port, where),
            identities_only=settings.identities_only,
            host_key_alias=self._pin_name(settings.host_key_alias or name, where),
        )
        before = self._config_jumps(settings, name, where, depth + 1) if nested else ()
        return (*before, hop)


def _fill(text: str, tokens: dict[str, str], where: str) -> str:
    """Return `text` with ssh's %-tokens and ${VARIABLES} filled; anything unknown is refused, not passed on."""

    def token(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        if match[1] is not None:
            value = os.environ.get(match[1])
            if value is None:
                raise InputError(f"{where}: the variable ${{{match[1]}}} is not set")
            return value
        if match[0][1:] not in tokens:
            raise InputError(f"{where}: {visible(match[0], 20)!r} is not supported", hint="write the value out")
        return tokens[match[0][1:]]

    return re.sub(r"%.?|\$\{([A-Za-z_][A-Za-z0-9_]*)\}", token, text)
