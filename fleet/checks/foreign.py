"""An eval that fleet did not start, seen by the pipeline's busy patterns; it is reported and never killed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import Check, Said, Subject, duration, fail, ok, shown, typed
from fleet.model.hosts import Host
from fleet.model.pipeline import Pipeline


def asks(_host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask for processes whose command line matches."""
    return {"processes": list(pipeline.busy.processes)} if pipeline.busy.processes else {}


def judge(subject: Subject) -> Iterable[Said]:
    """List foreign processes, and foreign containers that match while no eval of ours is running."""
    facts, name = subject.facts, subject.host.name
    ours = facts.lock is not None and facts.lock.state == "held"
    containers = facts.docker.containers if facts.docker is not None else ()
    running = [one for one in containers if one.matched and not one.leftover_of and one.state == "running"]
    for process in facts.processes:
        age = f" for {duration(process.elapsed_s)}" if process.elapsed_s is not None else ""
        yield fail(
            f"foreign eval: pid {process.pid} of {shown(process.user, 40)}{age}: {shown(process.command, 120)}",
            f"wait for its end, or end it by hand on {name}: kill {process.pid} (fleet never kills what it did not start)",
            str(process.pid),
        )
    for container in () if ours else running:
        label = shown(container.name or container.id, 100)
        yield fail(
            f"foreign eval: container {label} is running",
            f"wait for its end, or end it by hand on {name}: docker stop {typed(container.name or container.id, 'CONTAINER')}",
            label,
        )
    if not facts.processes and (ours or not running):
        yield ok("no foreign eval is running")


CHECK = Check("busy-foreign", "idle", "no eval that fleet did not start is running", judge, asks)
