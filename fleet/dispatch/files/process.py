"""Which process this is: a process id is used again, a process id with its start time and boot is not."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")


def identity(pid: int) -> str | None:
    """Return what tells the process from every other one, on this machine and others; None when there is none."""
    with suppress(OSError, IndexError):
        # The program's name stands in brackets and may hold anything; what follows the last bracket is fields 3 and up.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return f"{_BOOT.read_text().strip()} {pid} {fields[19]}"
    if _BOOT.exists():
        return None
    return _identity_without_proc(pid)


def _identity_without_proc(pid: int) -> str | None:
    """Return the same where there is no /proc (macOS), to the second."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=5, check=False)
        if done.returncode == 0 and done.stdout.strip():
            return f"{pid} {done.stdout.strip()}"
    return None
