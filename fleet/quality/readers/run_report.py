"""The report of a whole SWE-bench harness run: which instances were resolved, which were not, which say nothing.

Two shapes: `schema_version` 2 with `*_ids` lists, and the older one with bare lists (`resolved`, `applied`, `generated`, …).
Source: swebench/harness/reporting.py of the releases 2 to 4, and the reports of experiments before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fleet.quality import values
from fleet.quality.jsonsafe import parse

_SAYS_NOTHING = ("error_ids", "infra_failure_ids", "incomplete_ids")
_OLD_SAYS_NOTHING = ("install_fail", "reset_failed", "no_logs", "test_timeout", "test_errored")
_OLD_UNRESOLVED = ("no_generation", "no_apply", "generated", "applied")


@dataclass(frozen=True)
class RunReport:
    """What a run report says of each instance: True resolved, False not resolved, a word why nothing is known."""

    instances: dict[str, bool | str]


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
