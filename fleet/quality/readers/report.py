"""`report.json`: keyed by instance id (SWE-bench 2 and later), flat (older), or a run report that lists ids.

Formats: swebench.harness.grading.get_eval_report and swebench.harness.reporting.make_run_report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fleet.quality import values
from fleet.quality.folder import MIB, Folder, State
from fleet.quality.jsonsafe import Problem, parse
from fleet.quality.readers.pilot2 import Lists
from fleet.quality.readers.run_report import RunReport, run_report_of

CAP = 64 * MIB
_FLAT = ("resolved", "tests_status", "patch_successfully_applied", "patch_exists", "patch_is_None")


@dataclass(frozen=True)
class Report:
    """What a report says about one instance."""

    path: str
    state: State
    detail: str = ""
    found: bool = False
    """The file speaks of the instance that was asked for."""
    ids: tuple[str, ...] = ()
    """Whom the file speaks of; empty for a flat report."""
    resolved: bool | None = None
    applied: bool | None = None
    lists: Lists = field(default_factory=Lists)
    infra: str | None = None
    """Why the harness itself calls this a failure of the infrastructure (SWE-bench 5)."""
    twofold: bool = False
    """A run report lists the instance as resolved and as something that excludes it."""
    problems: tuple[Problem, ...] = ()


def read_report(folder: Folder, path: str, instance_id: str | None) -> Report:
    """Read a report of any kind and return what it says about `instance_id`."""
    file = folder.read(path, CAP)
    if not file.ok:
        return Report(path, file.state, file.detail)
    document = parse(file.data)
    problems = list(document.problems)
    body = document.values[0] if document.values else None
    if not file.data.strip():
        problems.append(Problem("is empty"))
    elif len(document.values) > 1:
        problems.append(Problem(f"holds {len(document.values)} JSON values instead of one object", 1))
    elif document.values and not isinstance(body, dict):
        problems.append(Problem(f"holds a JSON {values.kind(body)} instead of an object", 1))
    if not isinstance(body, dict):
        return Report(path, State.OK, problems=tuple(problems))
    return _of(body, path, instance_id, problems)


def _of(body: dict[str, Any], path: str, instance_id: str | None, problems: list[Problem]) -> Report:
    if (run := run_report_of(body)) is not None:
        return _run_report(run, path, instance_id, problems)
    keyed = {key: value for key, value in body.items() if isinstance(value, dict) and any(name in value for name in _FLAT)}
    if instance_id is not None and isinstance(body.get(instance_id), dict):
        return _entry(body[instance_id], path, tuple(body), problems)
    if any(name in body for name in _FLAT):
        return _entry(body, path, (), problems)
    if instance_id is None and len(keyed) == 1:
        return _entry(next(iter(keyed.values())), path, tuple(keyed), problems)
    return Report(path, State.OK, ids=tuple(keyed), problems=tuple(problems))


def _entry(entry: dict[str, Any], path: str, ids: tuple[str, ...], problems: list[Problem]) -> Report:
    status = values.mapping(entry.get("tests_status"))
    for name in ("resolved", "patch_successfully_applied"):
        if entry.get(name) is not None and values.flag(entry[name]) is None:
            said = values.kind(entry[name])
            problems.append(Problem(f"says {name} is a {said}, not true or false"))
    if values.flag(entry.get("resolved")) is None and not problems:
        problems.append(Problem("does not say whether the instance is resolved"))
    f2p, p2p = values.mapping(status.get("FAIL_TO_PASS")), values.mapping(status.get("PASS_TO_PASS"))
    return Report(
        path,
        State.OK,
        found=True,
        ids=ids,
        resolved=values.flag(entry.get("resolved")),
        applied=values.flag(entry.get("patch_successfully_applied")),
        lists=Lists(*(_listed(part, name, problems) for part in (f2p, p2p) for name in ("success", "failure"))),
        infra=_infra(entry),
        problems=tuple(problems),
    )


def _infra(entry: dict[str, Any]) -> str | None:
    flagged = entry.get("infra_failure")
    if not flagged:
        return None
    return values.text(entry.get("infra_failure_reason")) or (flagged if isinstance(flagged, str) else "no reason given")


def _listed(part: dict[str, Any], name: str, problems: list[Problem]) -> tuple[str, ...] | None:
    found = values.strings(part.get(name))
    if part.get(name) is not None and found is None:
        problems.append(Problem(f"has a {values.kind(part[name])} in tests_status instead of a list of test ids"))
    return found


def _run_report(run: RunReport, path: str, instance_id: str | None, problems: list[Problem]) -> Report:
    """Read a run report: it lists ids by outcome and has no list of tests."""
    if instance_id is None and len(run.instances) == 1:
        instance_id = next(iter(run.instances))
    said = run.instances.get(instance_id) if instance_id is not None else None
    return Report(
        path,
        State.OK,
        found=said is not None,
        ids=tuple(sorted(run.instances)),
        resolved=said if isinstance(said, bool) else None,
        twofold=instance_id in run.twofold,
        problems=tuple(problems),
    )
