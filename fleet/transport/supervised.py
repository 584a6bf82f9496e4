"""Runs a program in a process group of its own, drains it, and ends the whole group at a deadline or a limit.

The group must not outlive a killed controller: it would go on writing into a staging directory that the next one takes.
Linux's PR_SET_PDEATHSIG does not do: it needs code between fork and exec, which is unsafe beside threads, it follows the
thread and not the process, and it does not reach grandchildren. So a shell in the group waits on a pipe that closes with us.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

_TAIL = 64 * 1024
_GRACE_S = 2.0
_LOOK_EVERY_S = 1.0
_WATCHED = (
    "exec 3<&0 </dev/null; "
    "(trap '' TERM; read -r _ || { kill -s TERM -- -$$; sleep 2; kill -s KILL -- -$$; }) <&3 >/dev/null 2>&1 & "
    'exec "$@" 3<&-'
)
"""Becomes the program; beside it waits a watcher, until a line says that all is well or the pipe's end that we are gone."""


@dataclass(frozen=True)
class Ended:
    """How a program ended; `killed` says why when it was us."""

    code: int
    stdout: bytes
    """The last 64 KiB."""
    stderr: bytes
    """The last 64 KiB."""
    killed: Literal["deadline", "limit"] | None


def supervise(
    argv: Sequence[str],
    *,
    deadline_s: float,
    environment: Mapping[str, str],
    over_limit: Callable[[], bool],
) -> Ended:
    """Run `argv` to its end; `over_limit` is asked once a second, blocking on the kernel in between."""
    # SIGXFSZ stays ignored (as in Python), so that a file over its limit is an error with a text, not a dead process.
    process = subprocess.Popen(
        ["/bin/sh", "-c", _WATCHED, "sh", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        start_new_session=True,
        restore_signals=False,
    )
    killed: Literal["deadline", "limit"] | None = None
    tails = {"out": bytearray(), "err": bytearray()}
    end = time.monotonic() + deadline_s
    try:
        with selectors.DefaultSelector() as selector:
            for stream, label in ((process.stdout, "out"), (process.stderr, "err")):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ, label)
            looked = time.monotonic()
            while selector.get_map():
                for key, _ in selector.select(max(0.0, min(_LOOK_EVERY_S, end - time.monotonic()))):
                    chunk = os.read(key.fd, 65536)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    tail = tails[key.data]
                    tail += chunk
                    del tail[:-_TAIL]
                now = time.monotonic()
                if now >= end:
                    killed = "deadline"
                elif now - looked >= _LOOK_EVERY_S:
                    looked = now
                    killed = "limit" if over_limit() else None
                if killed is not None:
                    break
        if killed is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            if process.returncode is None:
                killed = "deadline"
    finally:
        _end_group(process, gentle=killed is not None)
    return Ended(process.returncode, bytes(tails["out"]), bytes(tails["err"]), killed)


def _end_group(process: subprocess.Popen[bytes], *, gentle: bool) -> None:
    """End the group: TERM first, so that rsync keeps what it has for a later resume, then KILL."""
    try:
        if process.poll() is None:
            if gentle:
                os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        elif process.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(process.stdin.fileno(), b"\n")
    finally:
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
