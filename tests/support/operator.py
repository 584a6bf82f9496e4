"""An operator at a terminal: runs the real `fleet` command as a process in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE_S = 120.0
_STARTED: list[subprocess.Popen[str]] = []


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return stdout as the one JSON document that it must be."""
        return json.loads(self.out)


class Operator:
    """A person with a hosts.yaml and an empty directory for results."""

    def __init__(self, directory: Path, hosts_file: Path, env: Mapping[str, str] | None = None) -> None:
        self.directory = directory
        self.collected = directory / "collected"
        directory.mkdir(parents=True, exist_ok=True)
        self.command: Sequence[str] = (sys.executable, "-m", "fleet")
        self.env = {
            **os.environ,
            "FLEET_HOSTS_FILE": str(hosts_file),
            "FLEET_COLLECTED": str(self.collected),
            **(env or {}),
        }

    def start(self, *arguments: str | Path, prefix: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a command, behind `prefix` where there is one, and return its process; the caller ends it."""
        return self._start(*prefix, *self.command, *arguments)

    def start_as(self, program: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a Python program that ends in the command, for what must be changed inside the process."""
        return self._start(sys.executable, "-c", program, *arguments)

    def _start(self, *words: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*map(str, words)],
            cwd=self.directory,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _STARTED.append(process)
        return process

    def run(self, *arguments: str | Path) -> Said:
        """Run a command to its end."""
        return finish(self.start(*arguments))

    def journal(self, batch: str = "phase8") -> list[dict[str, Any]]:
        """Return the complete lines of a batch's journal."""
        path = self.collected / batch / "journal.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def states(self, batch: str = "phase8") -> dict[str, str]:
        """Return the state of every task, from `fleet status --offline`."""
        document = self.run("status", batch, "--offline", "--json").json
        return {row["task"]: row["state"] for row in document["tasks"]}


def finish(process: subprocess.Popen[str], timeout_s: float = DEADLINE_S) -> Said:
    """Wait for a command and return what it left; kills it past the deadline."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end within {timeout_s} s\n{out[-2000:]}\n{err[-4000:]}") from None
    return Said(process.returncode, out, err)


def end_what_was_left() -> None:
    """End the commands that a test which failed did not wait for: they would be found by, and held against, a later one."""
    while _STARTED:
        process = _STARTED.pop()
        if process.returncode is None:
            process.kill()
        with process:
            pass


def kill(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> Said:
    """Send a signal and wait."""
    process.send_signal(number)
    return finish(process)


def wait_until(true: Callable[[], object], timeout_s: float = 60.0, every_s: float = 0.03) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not true within {timeout_s} s"
        time.sleep(every_s)
