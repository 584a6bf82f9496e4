"""No eval is running: fleet's own lock is free.

The users' script stops containers, prunes images and runs `pkill` at its start: a second eval on a host kills the first.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, shown, typed, unanswered


def judge(subject: Subject) -> Iterable[Said]:
    """Say which task holds the host, since when, and how to wait for it or end it."""
    lock = subject.facts.lock
    held = {attempt.attempt for attempt in subject.facts.attempts if attempt.state == "held"}
    if lock is None:
        yield unanswered("the lock")
    elif lock.state == "held" and lock.attempt in held:
        yield ok("no eval of fleet is running; what is left of one is named by `leftover`")
    elif lock.state == "held":
        task = shown(lock.task or lock.attempt, 200) or "an attempt that left no record"
        batch = f" of batch {shown(lock.batch, 100)}" if lock.batch else ""
        since = f" since {shown(lock.since, 40)}" if lock.since else ""
        word = typed(lock.task, "TASK")
        follow = f"fleet logs {word} -f" if lock.task else "fleet status"
        yield fail(f"running {task}{batch}{since}", f"wait ({follow}), or end it: fleet cancel {word}", lock.attempt)
    elif lock.guard == "held":
        yield fail(
            "an eval of fleet is running although its lock file was deleted (~/.fleet was removed under it)",
            f"wait for its end; on {subject.host.name}: ps -ef | grep fleet-sup",
        )
    elif lock.accounts:
        one = lock.accounts[0]
        who = f"{shown(one.user, 80)} (uid {one.uid}" + (f", pid {one.pid})" if one.pid else ")")
        yield fail(f"another account of this machine runs an eval of fleet: {who}", "wait for its end, or ask who has it")
    else:
        yield ok("no eval of fleet is running")


CHECK = Check("busy", "idle", "no eval of fleet is running on the host", judge)
