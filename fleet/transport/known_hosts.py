"""The pinned host keys: OpenSSH's known_hosts format, parsed once per process, looked up by HostKeyAlias.

Plain, hashed and wildcard names and `@revoked` lines are understood; `@cert-authority` lines pin nothing here. Only
fleet's own file, the first of a host's list, is ever written: as a whole, under a lock, mode 0600.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import grp
import hashlib
import hmac
import os
import pwd
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import InputError, StorageError
from fleet.transport.limits import HOST_KEY_ALGORITHMS


@dataclass(frozen=True)
class HostKey:
    """A public host key as it stands in known_hosts."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """The fingerprint as OpenSSH shows it: `SHA256:` and 43 characters."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def shown(self) -> str:
        """Type and fingerprint, as a person compares them."""
        return f"{self.type} {self.fingerprint}"

    def line(self, name: str) -> str:
        """The known_hosts line that pins this key for `name`."""
        return f"{name} {self.type} {base64.b64encode(self.blob).decode()}\n"


@dataclass
class _File:
    """One parsed file."""

    stamp: tuple[int, ...]
    plain: dict[str, list[HostKey]] = field(default_factory=dict)
    hashed: list[tuple[bytes, bytes, HostKey]] = field(default_factory=list)
    patterns: list[tuple[tuple[str, ...], HostKey]] = field(default_factory=list)
    revoked: set[bytes] = field(default_factory=set)

    def keys(self, name: str) -> Iterator[HostKey]:
        yield from self.plain.get(name, ())
        for salt, digest, key in self.hashed:
            if hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest):
                yield key
        for patterns, key in self.patterns:
            if _matches(patterns, name):
                yield key


@dataclass(frozen=True)
class Pins:
    """What is pinned for one host."""

    name: str
    """The name the keys were found under; without keys, the name they would be pinned under."""
    keys: tuple[HostKey, ...]
    revoked: frozenset[bytes]

    def algorithms(self) -> tuple[str, ...]:
        """Return the signature algorithms that can prove a pinned key, strongest first."""
        types = {key.type for key in self.keys}
        return tuple(name for key_type, names in HOST_KEY_ALGORITHMS.items() if key_type in types for name in names)


_cache: dict[Path, _File] = {}
_cache_lock = threading.Lock()


def names_of(alias: str, address: str, port: int) -> tuple[str, ...]:
    """Return the names a key may be pinned under: the stable alias first, then what plain `ssh` writes."""
    plain = address if port == 22 else f"[{address}]:{port}"
    return tuple(dict.fromkeys([alias, plain.lower()]))


def lookup(files: Iterable[Path], names: Sequence[str]) -> Pins:
    """Return the keys pinned under the first of `names` that any file knows, from all files together."""
    parsed = [_parsed(path) for path in files]
    revoked = frozenset().union(*(file.revoked for file in parsed))
    for name in names:
        keys = tuple(dict.fromkeys(key for file in parsed for key in file.keys(name)))
        if keys:
            return Pins(name, keys, revoked)
    return Pins(names[0], (), revoked)


def pin(path: Path, name: str, key: HostKey, *, replace: bool = False) -> tuple[HostKey, ...]:
    """Write `key` for `name` into fleet's own file and return what is pinned there afterwards.

    When another process pinned a key meanwhile that one stands, unless `replace`. Raises StorageError.
    """
    try:
        _make_private(path.parent)
        with _locked(path.with_name(path.name + ".lock")):
            text = path.read_text("utf-8", "surrogateescape") if path.exists() else ""
            there = tuple(_parse(text, ()).keys(name))
            if there and not replace:
                return there
            if replace:
                text = "".join(_without(line, name) for line in text.splitlines(keepends=True))
            if text and not text.endswith("\n"):
                text += "\n"
            _write(path, text + key.line(name))
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint=f"ls -ld {path.parent}") from None
    return (key,)


def _make_private(folder: Path) -> None:
    """Make a directory and its missing parents with 0700; Path.mkdir forgets the mode of parents."""
    if not folder.exists():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _without(line: str, name: str) -> str:
    """Return a line with `name` taken out of it; hashed and wildcard entries of `name` cannot be in fleet's own file."""
    fields = line.split(None, 2)
    if len(fields) < 3 or line.startswith(("#", "@")):
        return line
    left = [item for item in fields[0].split(",") if item != name]
    return f"{','.join(left)} {fields[1]} {fields[2]}" if left else ""


def _write(path: Path, text: str) -> None:
    # mkstemp creates with 0600: a file that is made private afterwards was readable for a moment.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _parsed(path: Path) -> _File:
    try:
        found = path.stat()
    except OSError:
        return _File(())
    stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
    with _cache_lock:
        cached = _cache.get(path)
        if cached is not None and cached.stamp == stamp:
            return cached
        if found.st_uid not in (0, os.getuid()) or found.st_mode & 0o002 or (found.st_mode & 0o020 and _shared(found.st_gid)):
            raise InputError(f"{path}: can be changed by other users, so it proves nothing", hint=f"chmod 600 {path}")
        try:
            cached = _parse(path.read_text("utf-8", "surrogateescape"), stamp)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from None
        _cache[path] = cached
        return cached


def _shared(group: int) -> bool:
    """Tell whether a group may have other members; with umask 002 ssh leaves files writable to the user's own group."""
    try:
        return grp.getgrgid(group).gr_name != pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return True


def _parse(text: str, stamp: tuple[int, ...]) -> _File:
    file = _File(stamp)
    for line in text.split("\n"):
        fields = line.split()
        marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
        if len(fields) < 3 or fields[0].startswith("#") or marker not in ("", "@revoked"):
            continue
        try:
            key = HostKey(fields[1], base64.b64decode(fields[2], validate=True))
        except (binascii.Error, ValueError):
            continue
        if marker == "@revoked":
            file.revoked.add(key.blob)
        else:
            _add(file, fields[0], key)
    return file


def _add(file: _File, names: str, key: HostKey) -> None:
    if names.startswith("|1|"):
        with contextlib.suppress(ValueError):
            salt, digest = (base64.b64decode(part, validate=True) for part in names.split("|")[2:4])
            file.hashed.append((salt, digest, key))
        return
    parts = tuple(names.split(","))
    if any(character in names for character in "*?!"):
        file.patterns.append((parts, key))
        return
    for part in parts:
        file.plain.setdefault(part.lower() if part.startswith("[") or "." in part else part, []).append(key)


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    hit = False
    for pattern in patterns:
        translated = "".join({"*": ".*", "?": "."}.get(item, re.escape(item)) for item in pattern.removeprefix("!"))
        if re.fullmatch(translated, name):
            if pattern.startswith("!"):
                return False
            hit = True
    return hit
