"""Writes a plan as an assignment file that `fleet dispatch` takes, and describes it for `--json`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fleet.errors import InputError, StorageError
from fleet.model.base import Strict
from fleet.plan.planner import Plan, Want

SCHEMA = "fleet.plan/1"


class PlannedHost(Strict):
    """One host's share."""

    host: str
    tasks: int
    images: int
    minutes: float


class PlanDocument(Strict):
    """The document `fleet.plan/1`."""

    schema_: Literal["fleet.plan/1"] = Field(default="fleet.plan/1", alias="schema")
    wanted: int
    """Datasets × models × runs."""
    missing: int
    """Those without an accepted or flagged result; these are assigned."""
    minutes: float
    """Expected time until the last host is done."""
    hosts: tuple[PlannedHost, ...]
    path: str | None = None
    """Where the assignment was written."""
    assignment: dict[str, list[dict[str, Any]]]


def assignment_of(plan: Plan, base: Path | None, pipeline: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Return the assignment; dataset paths below `base` are relative to it, all others absolute."""
    return {share.host: [_entry(want, base, pipeline) for want in share.tasks] for share in plan.shares if share.tasks}


def _entry(want: Want, base: Path | None, pipeline: str | None) -> dict[str, Any]:
    path = want.dataset_file
    inside = base is not None and path.is_relative_to(base)
    entry: dict[str, Any] = {
        "instance_id": want.key.instance_id,
        "model": want.key.model,
        "dataset_file": str(path.relative_to(base)) if inside and base is not None else str(path),
        "task_name": want.task_name,
    }
    if want.key.run != 1:
        entry["run"] = want.key.run
    if pipeline is not None:
        entry["pipeline"] = pipeline
    return entry


def describe(plan: Plan, assignment: dict[str, list[dict[str, Any]]], path: Path | None) -> PlanDocument:
    """Return the document for `--json`."""
    return PlanDocument(
        wanted=plan.wanted,
        missing=plan.missing,
        minutes=round(plan.minutes, 1),
        hosts=tuple(
            PlannedHost(host=share.host, tasks=len(share.tasks), images=share.images, minutes=round(share.minutes, 1))
            for share in plan.shares
        ),
        path=str(path) if path is not None else None,
        assignment=assignment,
    )


def as_text(assignment: dict[str, list[dict[str, Any]]]) -> str:
    """Return the assignment with one task per line, which diffs well."""
    hosts = [
        f"  {json.dumps(host)}: [\n" + ",\n".join(f"    {json.dumps(task)}" for task in tasks) + "\n  ]"
        for host, tasks in assignment.items()
    ]
    return "{\n" + ",\n".join(hosts) + "\n}\n"


def write_assignment(path: Path, text: str, *, force: bool) -> None:
    """Write the file whole or not at all; a different one that is already there may belong to a running batch."""
    try:
        if path.exists() and not force and path.read_text() != text:
            raise InputError(f"{path} is already there with other tasks", hint="choose another --out, or --force to replace it")
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
        fresh.write_text(text)
        fresh.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}", hint="choose another --out") from None
