"""What the user's ssh_config says about an alias, at a price that 300 hosts can pay.

Plain `Host` blocks are read here (microseconds per alias). Anything with a meaning of its own (`Match`, canonical names,
an `Include` inside a block, backslashes) is left to `ssh -G`, about 5 ms per alias and in parallel; it runs what the
user's own `Match exec` says, as `ssh` itself would. Names are checked before either sees them and every value that comes
back is checked again, so none of them can act as an option, a token or shell text.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import InputError
from fleet.model.names import is_name, visible

SYSTEM = Path("/etc/ssh/ssh_config")
DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
_SSH_G_DEADLINE_S = 20.0
_MAX_FILES = 64
_LEFT_TO_SSH = frozenset({"match", "canonicalizehostname"})


@dataclass(frozen=True)
class Settings:
    """The settings of one alias; None means that ssh_config does not say."""

    hostname: str | None = None
    user: str | None = None
    port: int | None = None
    identity_files: tuple[str, ...] | None = None
    identities_only: bool = False
    proxy_jump: str | None = None
    proxy_command: str | None = None
    host_key_alias: str | None = None
    known_hosts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class _Block:
    patterns: tuple[str, ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]

    def applies(self, alias: str) -> bool:
        """Tell whether the block is about `alias`; one matching `!pattern` takes the whole block out."""
        hit = False
        for pattern in self.patterns:
            wanted = pattern.removeprefix("!")
            if wanted == alias or (_is_glob(wanted) and _glob(wanted).fullmatch(alias)):
                if pattern.startswith("!"):
                    return False
                hit = True
        return hit


class _Blocks:
    """All blocks in their order, with those that name an alias literally found by that name: 1,000 hosts, 1,000 blocks."""

    def __init__(self, blocks: list[_Block]) -> None:
        self._blocks = blocks
        self._named: dict[str, list[int]] = {}
        self._wild: list[int] = []
        for number, block in enumerate(blocks):
            if any(_is_glob(pattern) for pattern in block.patterns):
                self._wild.append(number)
                continue
            for pattern in dict.fromkeys(block.patterns):
                self._named.setdefault(pattern, []).append(number)

    def about(self, alias: str) -> list[_Block]:
        """Return the blocks that apply to `alias`, in the order of the file."""
        found = (self._blocks[number] for number in sorted([*self._named.get(alias, ()), *self._wild]))
        return [block for block in found if block.applies(alias)]


class _LeaveToSsh(Exception):
    """The file holds something that only ssh should interpret."""


class SshConfig:
    """The user's ssh_config: `file`, or what `ssh` reads by itself (~/.ssh/config and /etc/ssh/ssh_config)."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self._known: dict[str, Settings] = {}
        sources = [file] if file is not None else [Path("~/.ssh/config").expanduser(), SYSTEM]
        self._blocks: _Blocks | None = None
        blocks: list[_Block] = []
        try:
            for source in sources:
                if file is None and not source.exists():
                    continue
                check_private(source)
                base = SYSTEM.parent if source == SYSTEM else Path("~/.ssh").expanduser()
                blocks.extend(_read(source, base, 0))
            self._blocks = _Blocks(blocks)
        except _LeaveToSsh:
            self._blocks = None

    def prefetch(self, aliases: list[str]) -> None:
        """Look `aliases` up together; worth a thread pool when `ssh -G` has to be asked."""
        missing = [alias for alias in dict.fromkeys(aliases) if alias not in self._known]
        if self._blocks is not None or len(missing) < 2:
            return
        with ThreadPoolExecutor(max_workers=8) as pool:
            self._known.update(zip(missing, pool.map(self._ask_ssh, missing), strict=True))

    def settings(self, alias: str) -> Settings:
        """Return what the config says about `alias`, a name that may not hold anything but `[A-Za-z0-9._-]`."""
        if not is_name(alias):
            raise InputError(f"{visible(alias, 80)!r} is not a name that may be looked up in ssh_config")
        if alias not in self._known:
            self._known[alias] = self._ask_ssh(alias) if self._blocks is None else _collect(self._blocks, alias)
        return self._known[alias]

    def _ask_ssh(self, alias: str) -> Settings:
        if not is_name(alias):
            raise InputError(f"{visible(alias, 80)!r} is not a name that may be looked up in ssh_config")
        argv = ["ssh", "-G", *(["-F", str(self.file)] if self.file is not None else []), "--", alias]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SSH_G_DEADLINE_S, check=False)
        except FileNotFoundError:
            raise InputError("ssh is not installed", hint="apt install openssh-client") from None
        except subprocess.TimeoutExpired:
            raise InputError(
                f"`ssh -G {alias}` did not answer within {_SSH_G_DEADLINE_S:.0f} s", hint="see Match exec"
            ) from None
        if done.returncode != 0:
            reason = visible(done.stderr.decode("utf-8", "replace").strip(), 300)
            raise InputError(f"`ssh -G {alias}` failed: {reason}", hint=f"ssh -G {alias}")
        return _from_ssh_g(done.stdout.decode("utf-8", "replace"))


def check_private(path: Path) -> None:
    """Refuse a config file that somebody else can change: it names the keys and the way to every host."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file", hint="see ssh_config in hosts.yaml") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is not a regular file")
    if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o022:
        raise InputError(f"{path}: can be changed by other users", hint=f"chmod 600 {path}")


def _read(path: Path, base: Path, depth: int) -> list[_Block]:
    """Return the blocks of one file, includes put in their place."""
    if depth > 8:
        raise InputError(f"{path}: includes nest too deeply")
    blocks: list[_Block] = []
    patterns: tuple[str, ...] = ("*",)
    lines: list[tuple[str, tuple[str, ...]]] = []
    conditional = False
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    for raw in text.split("\n"):
        parsed = _line(raw.strip(" \t\r\f"))
        if parsed is None:
            continue
        key, values = parsed
        if key in _LEFT_TO_SSH and values[:1] != ("no",):
            raise _LeaveToSsh
        if key == "include":
            if conditional:
                raise _LeaveToSsh
            blocks.append(_Block(patterns, tuple(lines)))
            lines = []
            for included in _included(values, base):
                check_private(included)
                blocks.extend(_read(included, base, depth + 1))
        elif key == "host":
            blocks.append(_Block(patterns, tuple(lines)))
            patterns, lines, conditional = values, [], True
        else:
            lines.append((key, values))
    blocks.append(_Block(patterns, tuple(lines)))
    return [block for block in blocks if block.lines]


def _line(text: str) -> tuple[str, tuple[str, ...]] | None:
    if not text or text.startswith("#"):
        return None
    match = re.match(r"([A-Za-z0-9]+)(?:[ \t]*=[ \t]*|[ \t]+)(.*)\Z", text)
    if match is None or "\\" in text:
        raise _LeaveToSsh
    if match.group(1).lower() == "proxycommand":
        return "proxycommand", (match.group(2),)
    try:
        return match.group(1).lower(), tuple(shlex.split(match.group(2), comments=True))
    except ValueError:
        raise _LeaveToSsh from None


def _included(values: tuple[str, ...], base: Path) -> list[Path]:
    found: list[Path] = []
    for value in values:
        if "$" in value or "%" in value:
            raise _LeaveToSsh
        path = Path(value).expanduser()
        root = Path("/") if path.is_absolute() else base
        found.extend(sorted(root.glob(str(path.relative_to("/") if path.is_absolute() else path))))
    if len(found) > _MAX_FILES:
        raise _LeaveToSsh
    return [path for path in found if path.is_file()]


def _is_glob(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


@functools.cache
def _glob(pattern: str) -> re.Pattern[str]:
    return re.compile("".join({"*": ".*", "?": "."}.get(character, re.escape(character)) for character in pattern), re.DOTALL)


def _collect(blocks: _Blocks, alias: str) -> Settings:
    """Return the settings by ssh's rule: the first value wins, identity files add up, jump and command compete."""
    first: dict[str, tuple[str, ...]] = {}
    identities: list[str] = []
    for block in blocks.about(alias):
        for key, values in block.lines:
            if not values:
                continue
            if key == "identityfile":
                identities.append(values[0])
            elif key not in first and not _too_late(key, first):
                first[key] = values
    return _settings(first, identities)


def _too_late(key: str, first: dict[str, tuple[str, ...]]) -> bool:
    """Tell whether the other way to a host was chosen already; `ProxyJump none` does not rule a command out."""
    if key == "proxycommand":
        return first.get("proxyjump", ("none",))[0].lower() != "none"
    return key == "proxyjump" and "proxycommand" in first


def _from_ssh_g(output: str) -> Settings:
    first: dict[str, tuple[str, ...]] = {}
    identities: list[str] = []
    for line in output.split("\n"):
        key, _, value = line.partition(" ")
        if key == "identityfile":
            identities.append(value)
        elif key == "userknownhostsfile":
            first[key] = tuple(value.split(" "))
        elif value:
            first.setdefault(key, (value,))
    # ssh -G prints its built-in list when the config names no identity and no known_hosts file.
    if "~/.ssh/id_rsa" in identities and "~/.ssh/id_ecdsa" in identities:
        identities = []
    if any(name.endswith("/.ssh/known_hosts2") for name in first.get("userknownhostsfile", ())):
        del first["userknownhostsfile"]
    return _settings(first, identities)


def _settings(first: dict[str, tuple[str, ...]], identities: list[str]) -> Settings:
    def one(key: str) -> str | None:
        value = first.get(key, ("",))[0]
        return None if not value or value.lower() == "none" else value

    port = one("port")
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InputError(f"ssh_config: the port {visible(port, 40)!r} is not a number from 1 to 65535")
    return Settings(
        hostname=one("hostname"),
        user=one("user"),
        port=int(port) if port else None,
        identity_files=tuple(name for name in dict.fromkeys(identities) if name.lower() != "none") if identities else None,
        identities_only=first.get("identitiesonly", ("no",))[0].lower() in ("yes", "true"),
        proxy_jump=one("proxyjump"),
        proxy_command=one("proxycommand"),
        host_key_alias=one("hostkeyalias"),
        known_hosts=tuple(name for name in first.get("userknownhostsfile", ()) if name.lower() != "none") or None,
    )
