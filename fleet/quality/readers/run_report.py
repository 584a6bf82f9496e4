"""The report of a whole SWE-bench harness run: which instances were resolved, which were not, which say nothing.

Two shapes: `schema_version` 2 with `*_ids` lists, and the older one with bare lists (`resolved`, `applied`, `generated`, …).
Source: swebench/harness/reporting.py of the releases 2 to 4, and the reports of experiments before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from fleet.quality import values
from fleet.quality.jsonsafe import parse

_UNRESOLVED = ("submitted_ids", "completed_ids", "unresolved_ids", "empty_patch_ids")
_SAYS_NOTHING = ("error_ids", "infra_failure_ids", "incomplete_ids")
_AGAINST = ("unresolved_ids", "empty_patch_ids", "error_ids", "incomplete_ids")
_OLD_UNRESOLVED = ("no_generation", "no_apply", "generated", "applied")
_OLD_SAYS_NOTHING = ("install_fail", "reset_failed", "no_logs", "test_timeout", "test_errored")
_OLD_AGAINST = ("no_generation", "no_apply", *_OLD_SAYS_NOTHING)


@dataclass(frozen=True)
class RunReport:
    """What a run report says of each instance: True resolved, False not resolved, a word why nothing is known."""

    instances: dict[str, bool | str]
    twofold: frozenset[str] = frozenset()
    """Instances listed as resolved and as something that excludes it."""


def read_run_report(raw: bytes) -> RunReport | None:
    """Return the report in `raw`, None when it is not one; a document that cannot be trusted is not one."""
    document = parse(raw)
    if len(document.values) != 1 or any(problem.fatal for problem in document.problems):
        return None
    return run_report_of(document.values[0])


def run_report_of(body: Any) -> RunReport | None:
    """Return the report that a JSON value is, None when it is none."""
    if not isinstance(body, dict):
        return None
    if isinstance(body.get("resolved_ids"), list):
        return _report(body, "resolved_ids", _UNRESOLVED, _SAYS_NOTHING, _AGAINST)
    if isinstance(body.get("resolved"), list) and any(isinstance(body.get(key), list) for key in _OLD_UNRESOLVED):
        return _report(body, "resolved", _OLD_UNRESOLVED, _OLD_SAYS_NOTHING, _OLD_AGAINST)
    return None


def _report(
    body: dict[str, Any], resolved: str, unresolved: Iterable[str], silent: Iterable[str], against: Iterable[str]
) -> RunReport:
    found: dict[str, bool | str] = {}
    for key in unresolved:
        found |= dict.fromkeys(_ids(body, key), False)
    for key in silent:
        found |= dict.fromkeys(_ids(body, key), key.removesuffix("_ids").replace("_", " "))
    good = _ids(body, resolved)
    twofold = frozenset(good) & {one for key in against for one in _ids(body, key)}
    return RunReport(found | dict.fromkeys(good, True), twofold)


def _ids(body: dict[str, Any], key: str) -> tuple[str, ...]:
    return values.strings(body.get(key)) or ()
