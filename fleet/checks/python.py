"""The host agent needs Python 3.8 or newer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, shown, unanswered

MINIMUM = (3, 8)


def judge(subject: Subject) -> Iterable[Said]:
    """Compare the version of the interpreter that ran the agent."""
    version = subject.facts.python
    match = re.match(r"(\d{1,3})\.(\d{1,3})", version or "")
    if match is None:
        yield unanswered("python")
        return
    if (int(match[1]), int(match[2])) >= MINIMUM:
        yield ok(f"Python {shown(version, 40)}")
        return
    yield fail(
        f"Python {shown(version, 40)}, and the host agent needs 3.8",
        f"on {subject.host.name}: sudo apt install python3.8, then python: python3.8 for it in hosts.yaml",
    )


CHECK = Check("python", "setup", "Python 3.8 or newer runs the host agent", judge)
