"""Results that wait on the host: they are safe there, but nobody has judged them."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, ok, warn


def judge(subject: Subject) -> Iterable[Said]:
    """Count ended attempts that no controller has acknowledged."""
    waiting = [one for one in subject.facts.attempts if one.state in ("finished", "held", "lost") and not one.acked]
    if not waiting:
        yield ok("no result is waiting to be collected")
        return
    names = ", ".join(attempt.task for attempt in waiting[:3]) + (", …" if len(waiting) > 3 else "")
    yield warn(f"{len(waiting)} ended attempt{'s' * (len(waiting) > 1)} not yet collected: {names}", "fleet collect")


CHECK = Check("uncollected", "idle", "no result is waiting to be collected", judge)
