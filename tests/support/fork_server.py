"""The `fleet` command without its start-up: one process imports it once and forks a new one for each command.

    with ForkServer() as server:
        ended = server.run(["dispatch", "a.json"], directory, env)

Each command is a process of its own, in a session of its own, with its own files for what it says.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.durable_steps import Plan, install

DEADLINE_S = 60
ROOT = Path(__file__).resolve().parents[2]
_MODULES = (
    "fleet.cli.main", "fleet.cli.dispatch", "fleet.dispatch.job", "fleet.inventory", "fleet.inventory.pipelines",
    "fleet.transport.ssh", "fleet.transport.rsync", "fleet.dashboard.live", "fleet.dashboard.export",
    "fleet.dashboard.terminal",
    "fleet.collect.pull", "fleet.quality.judge", "fleet.dispatch.resolve", "fleet.dispatch.rules.halt",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, or minus the signal."""

    code: int
    out: str
    err: str


class ForkServer:
    """Starts the process that forks; ends it with the context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> ForkServer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._process is not None
        self._process.communicate(timeout=30)

    def run(self, words: Sequence[str], directory: Path, env: Mapping[str, str], plan: Plan | None = None) -> Ended:
        """Run `fleet WORDS` in `directory` to its end."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            request = {"words": list(words), "directory": str(directory), "env": dict(env), "folder": folder}
            request["plan"] = plan.document() if plan is not None else None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            out, err = (Path(folder, name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(code, out, err)


def _serve() -> None:
    for name in _MODULES:
        importlib.import_module(name)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(request)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n")
        sys.stdout.flush()


def _become(request: dict[str, Any]) -> None:
    """Be the command: nothing of the server is left but what it has imported."""
    import signal

    from fleet.cli.main import main

    os.setsid()
    signal.alarm(DEADLINE_S)
    folder = Path(request["folder"])
    for number, name in ((0, "/dev/null"), (1, folder / "out"), (2, folder / "err")):
        opened = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["directory"])
    if request["plan"] is not None:
        install(Plan(**request["plan"]))
    main(request["words"])


if __name__ == "__main__":
    _serve()
