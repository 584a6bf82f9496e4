"""Programs that the pipeline names under `readiness.tools`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import Check, Said, Subject, fail, ok
from fleet.model.hosts import Host
from fleet.model.pipeline import Pipeline


def asks(_host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask where each program is."""
    return {"tools": list(pipeline.readiness.tools)}


def judge(subject: Subject) -> Iterable[Said]:
    """Name what is missing."""
    wanted = subject.pipeline.readiness.tools
    missing = [tool for tool in wanted if not subject.facts.tools.get(tool)]
    for tool in missing:
        yield fail(f"{tool} is not on PATH", f"on {subject.host.name}: sudo apt install -y {tool}", tool)
    if not missing:
        yield ok(", ".join(wanted) or "no further tools needed")


CHECK = Check("tools", "setup", "the programs of readiness.tools are on PATH", judge, asks)
