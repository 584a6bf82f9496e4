"""Counts every step by which a process changes what is below a directory, and fails or kills it at one of them.

Put into a process before its work begins. A step is a call that makes, writes, syncs, renames, links or removes something;
what rsync writes is rsync's own. The process can be ended before or after a step, alone or with all that it started, in the
middle of a write, or the step can end with an error of the disk.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

STEPS = ("open", "write", "pwrite", "fsync", "ftruncate", "mkdir", "rmdir", "rename", "replace", "link", "unlink", "remove")
ALL = bool(os.environ.get("FLEET_TEST_ALL_CRASHPOINTS"))
SEED, CHOSEN = 1, 6
_OF_DESCRIPTOR = ("write", "pwrite", "fsync", "ftruncate")

Act = Literal["kill", "kill-all", "torn", "eio", "count"]


@dataclass(frozen=True)
class Plan:
    """What to do at step number `at` below `root`, counted from 1; the steps are written to `log`, one per line."""

    root: str
    log: str
    at: int = 0
    act: Act = "count"
    when: Literal["before", "after"] = "before"
    only: tuple[str, ...] = STEPS
    """The calls that count."""

    def document(self) -> dict[str, Any]:
        """Return the plan as JSON data."""
        return asdict(self)


def install(plan: Plan) -> None:
    """Wrap the calls of this process."""
    steps = _Steps(plan)
    for name in STEPS:
        setattr(os, name, steps.counted(name, getattr(os, name)))
    from fleet.collect import below

    below._renameat2 = steps.counted("rename", below._renameat2)


def chosen(points: Sequence[int]) -> list[int]:
    """Return one point at random of each of CHOSEN equal stretches; all of them in `make crashpoints`."""
    if ALL or len(points) <= CHOSEN:
        return list(points)
    choice = random.Random(SEED)
    bounds = [round(number * len(points) / CHOSEN) for number in range(CHOSEN + 1)]
    return [points[choice.randrange(low, high)] for low, high in itertools.pairwise(bounds)]


class _Steps:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lock = threading.Lock()
        self._count = 0
        self._log = os.open(plan.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._write = os.write

    def counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            path = _path(name, arguments, named)
            if path is None or not path.startswith(self._plan.root) or name not in self._plan.only:
                return call(*arguments, **named)
            with self._lock:
                self._count += 1
                mine = self._count == self._plan.at
                self._write(self._log, f"{self._count} {name} {path.removeprefix(self._plan.root)}\n".encode())
            if not mine:
                return call(*arguments, **named)
            if self._plan.act == "eio":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            try:
                if self._plan.act == "torn":
                    return call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2], *arguments[2:])
                return call(*arguments, **named) if self._plan.when == "after" else None
            finally:
                self._die()

        return step

    def _die(self) -> None:
        if self._plan.act == "kill-all":
            for pid in reversed(_descendants(os.getpid())):
                os.kill(pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def _path(name: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str | None:
    """Return the path that the call changes, the target of a rename; None when it changes none."""
    if name == "open" and not arguments[1] & os.O_CREAT:
        return None
    if name in _OF_DESCRIPTOR:
        return _of(arguments[0])
    below = named.get("dir_fd", named.get("dst_dir_fd"))
    given = arguments[1] if name in ("rename", "replace", "link") else arguments[0]
    if isinstance(arguments[0], int):
        below, given = arguments[0], arguments[2]  # renameat2(parent, source, target, flag)
    path = os.fsdecode(given)
    return path if below is None else f"{_of(below)}/{path}"


def _of(descriptor: int) -> str | None:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return None


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, listing.read_text().split()):
            found += [child, *_descendants(child)]
    return found
