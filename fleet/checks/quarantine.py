"""No controller has put the host in quarantine: too many tasks in a row ended badly there, with the host possibly at fault.

The note lies on the host itself, so every controller sees it; only a person lifts it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, shown


def judge(subject: Subject) -> Iterable[Said]:
    """Say since when the host is held back, by which batch and why."""
    note = subject.facts.quarantine
    if note is None:
        yield ok("not in quarantine")
        return
    since = f" since {shown(note.at, 40)}" if note.at else ""
    batch = f" by batch {shown(note.batch, 100)}" if note.batch else ""
    name = subject.host.name
    yield fail(f"quarantined{since}{batch}: {shown(note.reason, 500)}", f"repair the host, then: fleet release {name}")


CHECK = Check("quarantine", "idle", "no controller has put the host in quarantine", judge)
