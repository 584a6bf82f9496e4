"""The report of a whole SWE-bench harness run: which instances were resolved, which were not, which say nothing.

Two shapes: `schema_version` 2 with `*_ids` lists, and the older one with bare lists (`resolved`, `applied`, `generated`, …).
Source: swebench/harness/reporting.py of the releases 2 to 4, and the reports of experiments before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.quality import values
from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import MIB, Folder, State
from fleet.quality.jsonsafe import parse
from fleet.quality.kinds import Kind
from fleet.quality.readers.pilot2 import Evaluation
from fleet.quality.readers.report import Report
from fleet.quality.readers.rows import RowFile

_SAYS_NOTHING = ("error_ids", "infra_failure_ids", "incomplete_ids")
_OLD_SAYS_NOTHING = ("install_fail", "reset_failed", "no_logs", "test_timeout", "test_errored")
_OLD_UNRESOLVED = ("no_generation", "no_apply", "generated", "applied")


CAP = 256 * MIB


@dataclass(frozen=True)
class RunReport:
    """What a run report says of each instance: True resolved, False not resolved, a word why nothing is known."""

    instances: dict[str, bool | str]


def read_claims(folder: Folder, name: str, expected: Expected | None) -> list[Evidence]:
    """Return one piece of evidence per instance that the report speaks of: its word, and nothing to check it by."""
    file = folder.read(name, CAP)
    report = read_run_report(file.data) if file.ok else None
    said = report.instances if report is not None else {}
    wanted = expected.instance_id if expected else None
    chosen = {key: value for key, value in said.items() if wanted is None or key == wanted}
    state = file.state if not file.ok or report is not None else State.UNREADABLE
    if not chosen:
        empty = Report(name, state, file.detail or "is not a run report that can be read", ids=tuple(said))
        return [Evidence(wanted, expected, RowFile(name, state), None, kind=Kind.RUN_REPORT, report=empty)]
    return [_claim(name, instance, value, expected) for instance, value in chosen.items()]


def _claim(name: str, instance: str, said: bool | str, expected: Expected | None) -> Evidence:
    known = said if isinstance(said, bool) else None
    failed = Evaluation(error_eval=True, error_message=f"the report lists it under {said}")
    infra = said if isinstance(said, str) and "infra" in said else None
    return Evidence(
        instance_id=instance,
        expected=expected,
        output=RowFile(name, State.OK),
        record=None,
        kind=Kind.RUN_REPORT,
        evaluated=RowFile(name, State.OK),
        evaluation=failed if isinstance(said, str) and infra is None else None,
        report=Report(name, State.OK, found=True, ids=(instance,), resolved=known, infra=infra),
    )


def read_run_report(raw: bytes) -> RunReport | None:
    """Return the report in `raw`, None when it is not one; a document that cannot be trusted is not one."""
    document = parse(raw)
    if len(document.values) != 1 or any(problem.fatal for problem in document.problems):
        return None
    body = document.values[0]
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("resolved_ids"), list):
        return _current(body)
    if isinstance(body.get("resolved"), list) and any(isinstance(body.get(key), list) for key in _OLD_UNRESOLVED):
        return _older(body)
    return None


def _current(body: dict[str, Any]) -> RunReport:
    found: dict[str, bool | str] = {}
    for key in ("submitted_ids", "completed_ids", "unresolved_ids", "empty_patch_ids"):
        found |= dict.fromkeys(_ids(body, key), False)
    for key in _SAYS_NOTHING:
        found |= dict.fromkeys(_ids(body, key), key.removesuffix("_ids").replace("_", " "))
    return RunReport(found | dict.fromkeys(_ids(body, "resolved_ids"), True))


def _older(body: dict[str, Any]) -> RunReport:
    found: dict[str, bool | str] = {}
    for key in _OLD_UNRESOLVED:
        found |= dict.fromkeys(_ids(body, key), False)
    for key in _OLD_SAYS_NOTHING:
        found |= dict.fromkeys(_ids(body, key), key.replace("_", " "))
    return RunReport(found | dict.fromkeys(_ids(body, "resolved"), True))


def _ids(body: dict[str, Any], key: str) -> tuple[str, ...]:
    return values.strings(body.get(key)) or ()
