"""The trajectory: every step that is really taken, as OpenHands writes it (an action, then its observation)."""

import os
import shlex
import subprocess
import sys
from datetime import datetime, timezone

MAX_CONTENT = 20000
GIT_ENVIRONMENT = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Steps:
    """Runs commands and reads files in `cwd`, and keeps the history of it."""

    def __init__(self, cwd, say):
        self.cwd = cwd
        self.history = []
        self.started = now()
        self._say = say

    def message(self, source, text):
        self._add(source=source, action="message", message=text, args={"content": text})

    def run(self, argv, env=None):
        """Run one command; a failing one is part of the trajectory, not an error."""
        shown = " ".join(shlex.quote("python3" if word == sys.executable else word) for word in argv)
        self._say("  $ " + shown)
        cause = self._add(source="agent", action="run", message="Running command: " + shown, args={"command": shown})
        done = subprocess.run(
            argv,
            cwd=str(self.cwd),
            env=dict(os.environ, **GIT_ENVIRONMENT, **(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        self._add(
            source="agent",
            observation="run",
            cause=cause,
            content=(done.stdout + done.stderr)[:MAX_CONTENT],
            extras={"command": shown, "metadata": {"exit_code": done.returncode}},
        )
        return done

    def read(self, name):
        self._say("  read " + name)
        cause = self._add(source="agent", action="read", message="Reading file: " + name, args={"path": name})
        text = (self.cwd / name).read_text(encoding="utf-8")
        self._add(source="agent", observation="read", cause=cause, content=text[:MAX_CONTENT], extras={"path": name})

    def _add(self, **event):
        number = len(self.history)
        self.history.append(dict({"id": number, "timestamp": now()}, **event))
        return number
