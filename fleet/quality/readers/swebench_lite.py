"""One run of the swebench_lite runner: result.json and pytest_tail.txt.

`{task_id, status: pass|fail|error|timeout, stage, reason, resolved, patch: {state}, tests: {counts, exit_code, FAIL_TO_PASS,
PASS_TO_PASS: {success, failure}}, image_id, …}` (`fleet schema lite-run`). The patch itself is not kept beside it.
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

RESULT, LOG = "result.json", "pytest_tail.txt"
CAP = 16 * MIB
_BEFORE_TESTS = frozenset({"image", "clone", "install"})
"""Stages that say nothing about the patch."""
_SAYS = {"pass": True, "fail": False}


def read_swebench_lite(folder: Folder, _name: str, expected: Expected | None) -> list[Evidence]:
    """Read the directory of one run."""
    found = read_values(folder, RESULT)
    body = found.values[0][1] if len(found.values) == 1 and isinstance(found.values[0][1], dict) else {}
    own = values.identity(body.get("task_id"))
    instance_id = expected.instance_id if expected else own
    log, _ = folder.read_ends(LOG, CAP)
    tests = values.mapping(body.get("tests"))
    lists = _lists(tests)
    return [
        Evidence(
            kind=Kind.SWEBENCH_LITE,
            instance_id=instance_id,
            expected=expected,
            output=RowFile(RESULT, found.state, detail=found.detail),
            record=None,
            evaluated=RowFile(RESULT, found.state),
            evaluation=_evaluation(body, tests, lists) if body else None,
            report=Report(
                RESULT,
                found.state,
                found.detail,
                found=bool(body) and (own is None or own == instance_id),
                ids=(own,) if own else (),
                resolved=values.flag(body.get("resolved")),
                lists=lists,
                infra=_infra(body),
                problems=_problems(body, found.problems),
            ),
            test_output=log,
            # It is the tail of the output and never the whole of it.
            test_output_cut=True,
            model=expected.model if expected else None,
            excused=frozenset() if tests and lists.f2p else frozenset({Part.LISTS, Part.LOG, Part.TEST_OUTPUT}),
        )
    ]


def _lists(tests: dict[str, Any]) -> Lists:
    f2p, p2p = values.mapping(tests.get("FAIL_TO_PASS")), values.mapping(tests.get("PASS_TO_PASS"))
    return Lists(*(values.strings(part.get(name)) for part in (f2p, p2p) for name in ("success", "failure")))


def _evaluation(body: dict[str, Any], tests: dict[str, Any], lists: Lists) -> Evaluation:
    status, stage = values.text(body.get("status")), values.text(body.get("stage"))
    counts = values.mapping(tests.get("counts"))
    patch = values.text(values.mapping(body.get("patch")).get("state"))
    here = stage not in _BEFORE_TESTS
    return Evaluation(
        resolved=_SAYS.get(status or "") if lists.f2p else None,
        failed_apply_patch=True if patch in ("unapplied", "refused") else None,
        failed_apply_test_patch=True if values.mapping(body.get("patch")).get("test_patch") == "unapplied" else None,
        error_eval=True if status == "error" and here and patch not in ("unapplied", "refused") else None,
        test_timeout=True if status == "timeout" and here else None,
        tests_passed=values.count(counts.get("passed")), tests_failed=values.count(counts.get("failed")),
        tests_error=values.count(counts.get("error")), lists=lists,
        error_message=values.text(body.get("reason")),
    )  # fmt: skip


def _infra(body: dict[str, Any]) -> str | None:
    stage = values.text(body.get("stage"))
    if body.get("status") not in ("error", "timeout") or stage not in _BEFORE_TESTS:
        return None
    return f"{stage}: {values.shown(body.get('reason') or body.get('status'))}"


def _problems(body: dict[str, Any], problems: list[Problem]) -> tuple[Problem, ...]:
    if not body:
        return tuple(problems) or (Problem("is not one JSON object"),)
    if body.get("status") not in ("pass", "fail", "error", "timeout"):
        return (*problems, Problem("does not say pass, fail, error or timeout"))
    return tuple(problems)
