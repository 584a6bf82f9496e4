"""One instance's directory of the Multi-SWE-bench harness: report.json, fix-patch-run.log, fix.patch.

`report.json`: `{org, repo, number, valid, error_msg, fixed_tests, p2p_tests, f2p_tests, s2p_tests, n2p_tests,
run_result, test_patch_result, fix_patch_result: {passed_count, failed_count, skipped_count, …}}`. `valid` means resolved.
Source: multi_swe_bench/harness/report.py.
"""

from __future__ import annotations

from typing import Any

from fleet.quality import values
from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import MIB, Folder
from fleet.quality.jsonsafe import Problem
from fleet.quality.kinds import Kind, Part
from fleet.quality.readers.pilot2 import Evaluation, Lists
from fleet.quality.readers.report import Report
from fleet.quality.readers.rows import RowFile, read_values
from fleet.quality.readers.swebench_log import record_of_patch

REPORT, LOG, PATCH = "report.json", "fix-patch-run.log", "fix.patch"
CAP = 64 * MIB
_FIXED = ("f2p_tests", "s2p_tests", "n2p_tests")


def read_multi_swe_bench(folder: Folder, _name: str, expected: Expected | None) -> list[Evidence]:
    """Read one instance's directory."""
    found = read_values(folder, REPORT)
    body = found.values[0][1] if len(found.values) == 1 and isinstance(found.values[0][1], dict) else {}
    own = _own_id(body)
    instance_id = expected.instance_id if expected else own
    log, cut = folder.read_ends(LOG, CAP)
    patch = folder.read(PATCH, CAP)
    return [
        Evidence(
            kind=Kind.MULTI_SWE_BENCH,
            instance_id=instance_id,
            expected=expected,
            output=RowFile(PATCH, patch.state, patch.size, detail=patch.detail),
            record=record_of_patch(patch),
            evaluated=RowFile(REPORT, found.state),
            evaluation=_evaluation(body) if body else None,
            report=Report(
                REPORT,
                found.state,
                found.detail,
                found=bool(body) and (own is None or own == instance_id),
                ids=(own,) if own else (),
                resolved=values.flag(body.get("valid")),
                lists=_lists(body),
                problems=_problems(body, found.problems),
            ),
            test_output=log,
            test_output_cut=cut,
            model=expected.model if expected else None,
            excused=frozenset({Part.LISTS})
            if values.flag(body.get("valid")) is False and not _lists(body).f2p
            else frozenset(),
        )
    ]


def _own_id(body: dict[str, Any]) -> str | None:
    org, repo = values.text(body.get("org")), values.text(body.get("repo"))
    number = values.identity(body.get("number"))
    return f"{org}__{repo}-{number}" if org and repo and number else None


def _lists(body: dict[str, Any]) -> Lists:
    """Return the tests that the patch mended and those it kept; the report has no list of those that it did not mend."""
    fixed = [name for key in _FIXED for name in values.mapping(body.get(key))]
    kept = tuple(values.mapping(body.get("p2p_tests")))
    if not fixed and not kept and not values.flag(body.get("valid")):
        return Lists()
    return Lists(f2p_success=tuple(dict.fromkeys(fixed)), f2p_failed=(), p2p_success=kept, p2p_failed=())


def _evaluation(body: dict[str, Any]) -> Evaluation:
    counts = values.mapping(body.get("fix_patch_result"))
    return Evaluation(
        resolved=values.flag(body.get("valid")),
        tests_passed=values.count(counts.get("passed_count")),
        tests_failed=values.count(counts.get("failed_count")),
        lists=_lists(body),
        error_message=values.text(body.get("error_msg")),
    )


def _problems(body: dict[str, Any], problems: list[Problem]) -> tuple[Problem, ...]:
    if body and values.flag(body.get("valid")) is None:
        return (*problems, Problem("does not say whether the instance is resolved (valid)"))
    return tuple(problems) if body or problems else (Problem("is not one JSON object"),)
