"""Too little memory: the kernel ends the eval, or the users' own script does it with pkill."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import GB, Check, Said, Subject, fail, gigabytes, ok, unanswered


def judge(subject: Subject) -> Iterable[Said]:
    """Compare the available memory with the pipeline's minimum."""
    memory = subject.facts.memory
    least = subject.pipeline.readiness.min_free_memory_gb
    if memory is None or memory.available is None:
        yield unanswered("memory")
    elif memory.available < least * GB:
        yield fail(
            f"{gigabytes(memory.available)} of {gigabytes(memory.total or 0)} memory available, {least:g} GB needed",
            f"on {subject.host.name}: ps aux --sort=-rss | head, and end what does not belong there",
        )
    else:
        yield ok(f"{gigabytes(memory.available)} of {gigabytes(memory.total or 0)} available")


CHECK = Check("memory", "memory", "enough memory is available", judge, lambda _host, _pipeline: {"memory": True})
