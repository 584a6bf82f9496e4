"""Brings files from a host with rsync, on the assumption that the host is hostile.

Safety rests on the file list, a staging directory of ours, the caps and (in fleet.collect) the manifest, not on the
version of rsync. `-a`, `--delete` and `--inplace` are never used; `-a` brought devices, FIFOs, setuid files and links.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import InputError, TamperedTransfer
from fleet.model.hosts import Defaults, Host
from fleet.model.names import is_safe_path, visible
from fleet.transport import limits
from fleet.transport.disk import require_writable
from fleet.transport.openssh import Endpoint, write_config, write_private
from fleet.transport.protocol import PullRequest, PullResult
from fleet.transport.rsync_outcome import dropped_unheard, raise_for
from fleet.transport.supervised import Ended, supervise

PARTIAL = ".rsync-partial"
_ATTEMPTS = 3


@dataclass(frozen=True)
class Client:
    """The rsync of this machine."""

    path: str
    version: tuple[int, ...]

    @property
    def warning(self) -> str | None:
        """A sentence to show when this rsync has known holes, else None."""
        if self.version >= limits.RSYNC_FIXED:
            return None
        shown = ".".join(map(str, self.version))
        return (
            f"rsync {shown} on this machine is older than 3.5.0, which closed 33 vulnerabilities; distributions carry some "
            "fixes back. fleet pulls named files only, into a fresh directory, and checks every digest"
        )


@functools.cache
def find_client() -> Client:
    """Return this machine's rsync, or raise InputError with the command that installs a usable one."""
    hint = "brew install rsync" if sys.platform == "darwin" else "apt install rsync"
    path = shutil.which("rsync")
    if path is None:
        raise InputError("rsync is not installed on this machine", hint=hint)
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=20, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InputError(f"{path} --version failed: {error}", hint=hint) from None
    text = done.stdout.decode("utf-8", "replace")
    match = re.match(r"rsync\s+version\s+v?(\d+)\.(\d+)\.(\d+)", text)
    if match is None or "openrsync" in text.lower():
        raise InputError(f"{path} is not the rsync that fleet needs: {visible(text.strip()[:80])}", hint=hint)
    version = tuple(int(part) for part in match.groups())
    if version < limits.RSYNC_OLDEST:
        oldest = ".".join(map(str, limits.RSYNC_OLDEST))
        raise InputError(f"{path} is {'.'.join(match.groups())}; fleet needs {oldest} or newer", hint=hint)
    return Client(path, version)


def local_trouble() -> str | None:
    """Return what a person should know of this machine's rsync before anything is brought, None when it is a good one."""
    try:
        return find_client().warning
    except InputError as error:
        return f"{error.message}, so no result can be brought here → {error.hint}"


def pull_over_ssh(host: Host, chain: Sequence[Endpoint], request: PullRequest, defaults: Defaults) -> PullResult:
    """Pull over an OpenSSH connection of its own, held to the host key and login that `chain` has proven."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        remote_shell = f"ssh -F '{write_config(Path(folder), chain, defaults)}'"
        source = f"fleet-target:{_literal(request.source.rstrip('/'))}/"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return _pull(host.name, source, remote_shell, request, Path(folder))
            except _DroppedError as error:
                if attempt == _ATTEMPTS:
                    raise_for(error.ended, host.name)
                time.sleep(limits.RETRY_BASE_S * 2**attempt)
    raise AssertionError("unreachable")


def _literal(path: str) -> str:
    """Return a path as the host's rsync takes it to the letter: it looks for wildcards, and for backslashes beside them."""
    return re.sub(r"([*?\[\\])", r"\\\1", path) if re.search(r"[*?\[]", path) else path


def pull_locally(name: str, request: PullRequest) -> PullResult:
    """Pull from a directory of this machine with the same options and checks (fleet.testing)."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder:
        return _pull(name, f"{request.source.rstrip('/')}/", None, request, Path(folder))


class _DroppedError(Exception):
    """sshd hung up before anything was said."""

    def __init__(self, ended: Ended) -> None:
        super().__init__(ended.code)
        self.ended = ended


def _pull(name: str, source: str, remote_shell: str | None, request: PullRequest, folder: Path) -> PullResult:
    if not os.access(find_client().path, os.X_OK):
        # Removed or replaced since; without this look the shell's "not found" would be taken for the host's.
        find_client.cache_clear()
    client = find_client()
    _check_request(name, request)
    resumed = _tidy(name, request)
    # A second try in the same folder needs the same list again.
    names = folder / "files"
    names.unlink(missing_ok=True)
    write_private(names, "".join(path + "\0" for path in request.files))
    argv = [*_limited(request.max_file_bytes), client.path, *_options(request, names)]
    if remote_shell is not None:
        argv += ["-e", remote_shell]
    argv += ["--", source, f"{request.target}/"]
    started = time.monotonic()
    ended = supervise(
        argv,
        deadline_s=request.deadline_s,
        environment=_environment(folder),
        over_limit=lambda: _bytes_below(request.target) > request.max_total_bytes,
    )
    if ended.code != 0 or ended.killed is not None:
        if dropped_unheard(ended):
            raise _DroppedError(ended)
        require_writable(request.target)
        raise_for(ended, name)
    _check_result(name, request)
    match = re.search(rb"Total bytes received: ([0-9]+)", ended.stdout)
    return PullResult(time.monotonic() - started, int(match.group(1)) if match else 0, resumed)


def _options(request: PullRequest, names: Path) -> list[str]:
    # Without a named algorithm both ends agree on zstd where both have it, else zlib; level 1 is cheap in either. Files this
    # large are archives and images: they do not get smaller, and trying doubles the time.
    compression = ["--compress", "--compress-level=1"] if request.max_file_bytes < limits.RSYNC_LARGE_FILE else []
    return [
        "-rt",
        "--no-links",
        "--no-devices",
        "--no-specials",
        "--no-perms",
        "--no-owner",
        "--no-group",
        "--chmod=D700,F600",
        f"--max-size={request.max_file_bytes}",
        f"--timeout={limits.RSYNC_IO_TIMEOUT_S}",
        f"--partial-dir={PARTIAL}",
        "--fsync",
        "--secluded-args",
        f"--files-from={names}",
        "--from0",
        *compression,
        "--stats",
        "--no-human-readable",
    ]


def _limited(max_file_bytes: int) -> list[str]:
    """Return the prefix that lets the kernel stop a file that outgrows its cap; POSIX counts in blocks of 512 bytes."""
    return ["/bin/sh", "-c", 'ulimit -f "$0" && exec "$@"', str(max_file_bytes // 512 + 1)]


def _environment(folder: Path) -> dict[str, str]:
    kept = ("PATH", "USER", "LOGNAME", "SSH_AUTH_SOCK", "TMPDIR")
    # An empty HOME: in ~/.popt rsync would find other meanings for its options, `-e` among them.
    return {**{key: os.environ[key] for key in kept if key in os.environ}, "HOME": str(folder), "LC_ALL": "C"}


def _check_request(name: str, request: PullRequest) -> None:
    if not request.source.startswith("/") or any(character in request.source for character in "\0\n\r"):
        raise _tampered(name, f"{visible(request.source, 120)!r} is not an absolute directory")
    for path in request.files:
        if not is_safe_path(path) or PARTIAL in path.split("/"):
            raise _tampered(name, f"the file name {visible(path, 120)!r} is refused")


def _tidy(name: str, request: PullRequest) -> bool:
    """Take away what an interrupted rsync left half written, and tell whether anything useful was there.

    The staging directory is ours and 0700, so a link in it was planted.
    """
    wanted = set(request.files)
    useful = False
    for path, relative, entry in _walk(request.target):
        if entry.is_symlink() or not (entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)):
            raise _tampered(name, f"{path} was put into the staging directory by somebody else")
        if entry.is_dir(follow_symlinks=False):
            continue
        if relative in wanted or PARTIAL in relative.split("/"):
            useful = True
        else:
            path.unlink()
    return useful


def _check_result(name: str, request: PullRequest) -> None:
    """Refuse what was not asked for; a hostile sender once added `authorized_keys` and rsync ended with 0."""
    wanted = set(request.files)
    folders = {"/".join(path.split("/")[:depth]) for path in wanted for depth in range(1, path.count("/") + 1)}
    leftovers: list[Path] = []
    total = 0
    for path, relative, entry in _walk(request.target):
        found = entry.stat(follow_symlinks=False)
        if entry.is_dir(follow_symlinks=False):
            if entry.name == PARTIAL:
                leftovers.append(path)
                continue
            expected = relative in folders
        else:
            expected = entry.is_file(follow_symlinks=False) and (relative in wanted or PARTIAL in relative.split("/"))
            total += found.st_size
        if not expected or (entry.is_file(follow_symlinks=False) and found.st_nlink != 1):
            raise _tampered(name, f"the host sent {visible(relative, 120)!r}, which nobody asked for")
    if total > request.max_total_bytes:
        raise TamperedTransfer(
            f"{name}: the host sent {total} bytes, more than the cap of {request.max_total_bytes}", host=name
        )
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _tampered(name: str, what: str) -> TamperedTransfer:
    return TamperedTransfer(
        f"{name}: {what}", hint="do not trust this host before you know why; nothing was accepted", host=name
    )


def _walk(root: Path) -> list[tuple[Path, str, os.DirEntry[str]]]:
    found: list[tuple[Path, str, os.DirEntry[str]]] = []
    pending = [(root, "")]
    while pending:
        folder, prefix = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                relative = prefix + entry.name
                found.append((folder / entry.name, relative, entry))
                if entry.is_dir(follow_symlinks=False):
                    pending.append((folder / entry.name, relative + "/"))
    return found


def _bytes_below(root: Path) -> int:
    total = 0
    try:
        for _, _, entry in _walk(root):
            if entry.is_file(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        # rsync renames its temporary files while we look; the next look is a second away.
        return total
    return total
