"""hosts.yaml and ssh_config aliases → the hosts of the fleet, and the patterns that choose among them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet.errors import InputError
from fleet.inventory.hosts_file import GroupFields, HostFields, HostsFile, path_of
from fleet.inventory.patterns import expand, match_names, select
from fleet.inventory.resolve import Resolver
from fleet.inventory.ssh_config import SshConfig
from fleet.inventory.yaml_file import read_yaml
from fleet.model.base import hinted, nearest, parse
from fleet.model.hosts import Defaults, Host
from fleet.model.names import is_name, visible

__all__ = ["Inventory", "load_inventory"]


class Inventory:
    """The hosts as resolved, in the order of hosts.yaml."""

    def __init__(
        self,
        path: Path,
        hosts: Sequence[Host],
        defaults: Defaults,
        groups: dict[str, tuple[str, ...]],
        declared: frozenset[str] = frozenset(),
    ) -> None:
        self.path = path
        self.hosts = tuple(hosts)
        self.defaults = defaults
        self.groups = groups
        self.declared = declared
        """Groups with an entry of their own below `groups:`."""
        self._by_name = {host.name: host for host in self.hosts}

    def select(self, patterns: Sequence[str] = ()) -> tuple[Host, ...]:
        """Return the hosts that `patterns` (name, `eval*`, `eval[1-6]`, `@group`, `!exclusion`) choose; none chooses all.

        Raises InputError for a pattern that stands for no host.
        """
        return tuple(self._by_name[name] for name in select(patterns, list(self._by_name), self.groups, str(self.path)))

    def get(self, name: str) -> Host:
        """Return one host by its name, or raise InputError with the nearest known name."""
        if name not in self._by_name:
            near = nearest(name, list(self._by_name))
            suggestion = f", did you mean {near!r}?" if near else ""
            raise InputError(f"{self.path}: unknown host {visible(name, 80)!r}{suggestion}", hint="fleet hosts")
        return self._by_name[name]


def load_inventory(path: Path, *, ssh_config: Path | None = None) -> Inventory:
    """Return the inventory in `path`; `ssh_config` overrides the file named there. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: no such file", hint="write hosts.yaml (docs/set-up-hosts.md), or pass --hosts-file FILE")
    with hinted("docs/set-up-hosts.md has every key with an example; fleet schema hosts-file"):
        return _load(path, ssh_config)


def _load(path: Path, ssh_config: Path | None) -> Inventory:
    source = str(path)
    file = parse(HostsFile, read_yaml(path), source)
    entries = _entries(file, source)
    groups = _groups(file, entries, source)
    config_file = ssh_config or (path_of(file.defaults.ssh_config, path.parent) if file.defaults.ssh_config else None)
    loaded: list[SshConfig] = []

    def config() -> SshConfig:
        if not loaded:
            loaded.append(SshConfig(config_file))
        return loaded[0]

    resolver = Resolver(file, path, config)
    shared = {name: [(group, file.groups[group] or GroupFields()) for group, members in groups.items()
                     if name in members and group in file.groups] for name in entries}  # fmt: skip
    aliases = [resolver.alias_of(name, entry, shared[name]) for name, entry in entries.items()]
    if any(alias is not None for alias in aliases):
        config().prefetch([alias for alias in aliases if alias is not None])
    hosts = [resolver.host(name, entry, shared[name]) for name, entry in entries.items()]
    _refuse_same_machine(hosts, source)
    defaults = Defaults(**{field: getattr(file.defaults, field) for field in Defaults.model_fields})
    return Inventory(path, hosts, defaults, groups, frozenset(file.groups))


def _entries(file: HostsFile, source: str) -> dict[str, HostFields]:
    entries: dict[str, HostFields] = {}
    written: dict[str, str] = {}
    for key, fields in file.hosts.items():
        for name in expand(key, f"{source}: hosts"):
            if not is_name(name):
                raise InputError(
                    f"{source}: hosts.{visible(name, 80)}: a host name may only hold A-Z a-z 0-9 . _ - and must start "
                    "with a letter or digit"
                )
            if name in entries:
                raise InputError(f"{source}: hosts: {name} is defined twice, by {written[name]!r} and by {key!r}")
            if fields is not None and key != name and fields.address is not None:
                raise InputError(f"{source}: hosts.{key}: one address cannot belong to {len(expand(key, source))} hosts")
            entries[name] = fields or HostFields()
            written[name] = key
    if not entries:
        raise InputError(f"{source}: hosts: no host is defined", hint="see the commented hosts.yaml of the project")
    return entries


def _groups(file: HostsFile, entries: dict[str, HostFields], source: str) -> dict[str, tuple[str, ...]]:
    names = list(entries)
    members: dict[str, set[str]] = {}
    for group, fields in file.groups.items():
        if not is_name(group):
            raise InputError(f"{source}: groups.{visible(group, 80)}: not a valid group name")
        members[group] = set()
        for pattern in (fields or GroupFields()).hosts:
            if pattern.startswith(("@", "!")):
                raise InputError(
                    f"{source}: groups.{group}.hosts: only names, globs and ranges are allowed here, not {pattern!r}"
                )
            members[group].update(match_names(pattern, names, {}, f"{source}: groups.{group}.hosts"))
    for name, entry in entries.items():
        for group in entry.groups:
            members.setdefault(group, set()).add(name)
    return {group: tuple(name for name in names if name in found) for group, found in members.items()}


def _refuse_same_machine(hosts: Sequence[Host], source: str) -> None:
    """Refuse two names for one machine: each would be given an eval of its own."""
    seen: dict[tuple[object, ...], str] = {}
    for host in hosts:
        machine = (host.hop.address.lower(), host.hop.port, *((jump.address, jump.port) for jump in host.jumps))
        if machine in seen:
            raise InputError(f"{source}: {seen[machine]} and {host.name} are both {host.hop.address} port {host.hop.port}")
        seen[machine] = host.name
