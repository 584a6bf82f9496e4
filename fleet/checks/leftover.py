"""Nothing of an ended attempt still lives: neither a held attempt nor one of its containers.

The lock is free while a container of a dead eval goes on working; only this look sees it.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, shown, typed


def judge(subject: Subject) -> Iterable[Said]:
    """List held attempts, then running containers of attempts that have ended."""
    facts = subject.facts
    held = [attempt for attempt in facts.attempts if attempt.state == "held"]
    active = facts.lock.attempt if facts.lock is not None and facts.lock.state == "held" else None
    containers = facts.docker.containers if facts.docker is not None else ()
    leftovers = [one for one in containers if one.leftover_of and one.leftover_of != active]
    for attempt in held:
        why = f": {shown(attempt.reason)}" if attempt.reason else ""
        yield fail(
            f"{attempt.task} has ended but something of it still lives{why}",
            f"fleet cancel {typed(attempt.task, 'TASK')}",
            attempt.attempt,
        )
    tasks = {attempt.attempt: attempt.task for attempt in facts.attempts}
    for container in leftovers:
        label, owner = shown(container.name or container.id, 100), container.leftover_of or ""
        task = tasks.get(owner, f"attempt {shown(owner, 80)}")
        yield fail(
            f"container {label} ({shown(container.state, 20)}) is left over from {task}",
            f"on {subject.host.name}: docker rm -f {typed(container.name or container.id, 'CONTAINER')}",
            label,
        )
    if not held and not leftovers:
        yield ok("nothing is left of earlier attempts")


CHECK = Check("leftover", "idle", "nothing of an ended attempt is left: no process, no container", judge)
