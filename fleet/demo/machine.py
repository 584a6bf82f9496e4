"""What an embedded host takes from this machine: programs and an interpreter; and how everything that runs on it ends."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Collection
from pathlib import Path

POWER_OFF_S = 3.0
HIDDEN = ("sudo", "systemd-run", "docker")


def end_processes(homes: Collection[Path]) -> None:
    """End whatever runs with one of these HOMEs, as a power cut would, but let it tidy up first; only Linux tells."""
    marks = {f"HOME={home}".encode() for home in homes}
    told: set[int] = set()
    begun = time.monotonic()
    while running := _carrying(marks):
        if time.monotonic() > begun + POWER_OFF_S:
            _signal(running, signal.SIGKILL)
            return
        # Once: a second one would interrupt the tidying up.
        _signal([pid for pid in running if pid not in told], signal.SIGTERM)
        told.update(running)
        time.sleep(0.05)


def _signal(pids: Collection[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


def _carrying(marks: set[bytes]) -> list[int]:
    """Return the processes with one of these words in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # It may end while we look, or be another user's.
        with contextlib.suppress(OSError):
            if not marks.isdisjoint((entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
    return found


def write_tools(directory: Path, docker: str | None) -> None:
    """Give the host its own `python3` and, where there is one, its view of Docker, but none of this machine's powers.

    The first `python3` on PATH may be a version manager's shim that needs more than PATH. The agent would use a
    password-free sudo, a system unit or Docker where it finds them; a demo must not touch those of this machine.
    """
    directory.mkdir(exist_ok=True)
    scripts = {name: f'echo "{name}: not on an embedded host" >&2; exit 1' for name in HIDDEN}
    scripts |= {"python3": f'exec {shlex.quote(_base_python())} "$@"'} | ({"docker": docker} if docker else {})
    for name, line in scripts.items():
        path = directory / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)


def _base_python() -> str:
    """The interpreter outside any virtual environment: a host has its own, without our packages."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return str(Path(base).resolve())


@functools.cache
def tool_directories() -> tuple[str, ...]:
    """The minimal PATH, plus where git and rsync are when that is elsewhere (Homebrew, Nix)."""
    standard = ["/usr/local/bin", "/usr/bin", "/bin"]
    for tool in ("git", "rsync"):
        found = shutil.which(tool)
        if found is not None and str(Path(found).parent) not in standard:
            standard.insert(0, str(Path(found).parent))
    return tuple(standard)
