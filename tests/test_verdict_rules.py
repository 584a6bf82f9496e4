"""Every rule speaks when it should, with the right severity, and is silent on what is nearly wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import InputError
from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause, Outcome, Severity, Verdict
from fleet.quality import RULES, Expected, judge
from tests.support.results import F2P, INSTANCE, P2P, TOUCHED, build_result, make_patch, write_manifest
from tests.support.verdict_table import EVALS, INFO, LOG, NOTHING_RAN, REJECT, SYNTAX_ERROR, TABLE, WARN, Row, unresolved_log

OF_OTHER_KINDS = {"claim-only", "not-evaluated"}
"""Codes that no OpenHands result can get; tests/test_result_kinds.py has them."""


def verdict_of(directory: Path, changes: dict[str, Any], **quality: Any) -> Verdict:
    build_result(directory, **changes)
    return judge(directory, None, Quality(**quality))


def severities(verdict: Verdict, code: str) -> set[Severity]:
    return {reason.severity for reason in verdict.reasons if reason.code == code}


def ids(row: Row) -> str:
    return row.code


def test_a_good_result_is_accepted_without_a_word(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, {"manifest": True, "provenance": {}})
    assert (verdict.verdict, verdict.cause, verdict.reasons) == (Outcome.ACCEPTED, None, ())
    assert verdict.facts.model_dump() == {
        "patch_bytes": 1500,
        "history_entries": 60,
        "error": None,
        "tests_passed": 5,
        "tests_failed": 0,
        "tests_error": 0,
        "f2p_success": 2,
        "f2p_total": 2,
        "p2p_success": 3,
        "p2p_total": 3,
        "resolved": True,
        "cost_usd": 0.42,
        "tokens": 94_000,
        "image_id": None,
    }


def test_an_unresolved_result_is_as_good_as_a_resolved_one(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, {"resolved": False})
    assert (verdict.verdict, verdict.reasons, verdict.facts.resolved) == (Outcome.ACCEPTED, (), False)


@pytest.mark.parametrize("row", TABLE, ids=ids)
def test_the_rule_speaks(row: Row, tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, row.speaks)
    assert severities(verdict, row.code) == {row.severity}
    reason = next(reason for reason in verdict.reasons if reason.code == row.code)
    assert reason.message.endswith((".", ")", "…")) or row.code == "agent-error"
    assert len(reason.message) > 20
    if row.measured is not None:
        assert reason.measured == row.measured
    if row.cause is not None:
        assert verdict.cause is row.cause
    expected = {REJECT: Outcome.REJECTED, WARN: Outcome.FLAGGED}.get(row.severity)
    if expected is Outcome.REJECTED:
        assert verdict.verdict is Outcome.REJECTED


@pytest.mark.parametrize("row", TABLE, ids=ids)
def test_the_rule_is_silent_where_it_has_no_reason(row: Row, tmp_path: Path) -> None:
    assert severities(verdict_of(tmp_path, row.silent), row.code) == set()


def spoil(change: Callable[[Path], object]) -> Callable[[Path], Verdict]:
    """Return a judge of a collected result that `change` spoils after its manifest was written."""

    def run(directory: Path) -> Verdict:
        build_result(directory, manifest=True)
        change(directory)
        return judge(directory, None, Quality())

    return run


MANIFEST_FAULTS = {
    "changed": lambda d: (d / "output.jsonl").write_bytes((d / "output.jsonl").read_bytes().replace(b"0.42", b"0.43")),
    "longer": lambda d: (d / LOG).write_text((d / LOG).read_text() + "x"),
    "gone": lambda d: (d / f"llm_completions/{INSTANCE}/gpt-1.json").unlink(),
    "foreign": lambda d: write_listing(d, lambda files: [f for f in files if f["path"] != f"{EVALS}/patch.diff"]),
    "outside": lambda d: write_listing(d, lambda files: [*files, {"path": "../x", "size": 1, "sha256": "0" * 64}]),
    "no digest": lambda d: write_listing(d, lambda files: [{"path": "output.jsonl"}, *files]),
    "not json": lambda d: (d / "manifest.json").write_text("{"),
    "no list": lambda d: (d / "manifest.json").write_text("[]"),
    "link": lambda d: ((d / LOG).unlink(), (d / LOG).symlink_to("/etc/hostname")),
}


def write_listing(directory: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({"files": change(json.loads(path.read_text())["files"])}))


@pytest.mark.parametrize("fault", MANIFEST_FAULTS)
def test_a_file_that_the_host_did_not_have_rejects(fault: str, tmp_path: Path) -> None:
    verdict = spoil(MANIFEST_FAULTS[fault])(tmp_path)
    assert severities(verdict, "manifest-mismatch") == {REJECT}
    assert verdict.cause is Cause.TRANSFER


def test_files_of_fleet_itself_are_not_missed_in_the_manifest(tmp_path: Path) -> None:
    build_result(tmp_path, manifest=True, provenance={})
    for name in ("verdict.json", "fleet.log", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert judge(tmp_path, None, Quality()).reasons == ()
    write_manifest(tmp_path)
    assert judge(tmp_path, None, Quality()).reasons == ()


def test_every_code_has_a_row_in_the_table() -> None:
    assert {row.code for row in TABLE} | {"manifest-mismatch", "image-mismatch", "host-failed"} | OF_OTHER_KINDS == {
        rule.code for rule in RULES
    }


def test_every_rule_has_its_default_severity_in_the_table() -> None:
    shown = {(row.code, row.severity) for row in TABLE}
    shown |= {("manifest-mismatch", REJECT), ("image-mismatch", REJECT), ("host-failed", REJECT)}
    mine = [rule for rule in RULES if rule.code not in OF_OTHER_KINDS]
    assert [rule.code for rule in mine if (rule.code, rule.severity) not in shown] == []


@pytest.mark.parametrize("row", [row for row in TABLE if row.severity is REJECT], ids=ids)
def test_a_rejected_result_says_whether_it_may_be_graded_or_tried_again(row: Row, tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, row.speaks)
    assert verdict.grade is (verdict.cause is Cause.MODEL)
    assert verdict.retry is (verdict.cause not in (Cause.MODEL, Cause.TRANSFER))


def test_a_model_that_broke_the_tests_gave_a_valid_result(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, unresolved_log(SYNTAX_ERROR, tests_error=1))
    assert (verdict.verdict, verdict.cause) == (Outcome.ACCEPTED, Cause.MODEL)
    assert {reason.code for reason in verdict.reasons} == {"model-broke-tests", "no-tests-executed"}


MISSING_MODULE = SYNTAX_ERROR.replace(
    f'E     File "/testbed/{TOUCHED}", line 2\n', f"{TOUCHED}:LINE: in <module>\n    import yaml\n"
).replace("SyntaxError: expected ':'", "ModuleNotFoundError: No module named 'yaml'")
IMPORTS = (
    f"diff --git a/{TOUCHED} b/{TOUCHED}\n--- a/{TOUCHED}\n+++ b/{TOUCHED}\n"
    "@@ -1,2 +1,3 @@\n import os\n+import yaml\n def parse(text):\n"
)


@pytest.mark.parametrize(("patch", "line", "model"), [(IMPORTS, "2", True), (make_patch(), "99", False)])
def test_a_missing_module_is_the_models_fault_only_where_the_patch_asks_for_it(
    patch: str, line: str, model: bool, tmp_path: Path
) -> None:
    verdict = verdict_of(tmp_path, {**unresolved_log(MISSING_MODULE.replace("LINE", line)), "patch": patch})
    assert bool(severities(verdict, "model-broke-tests")) is model
    assert severities(verdict, "no-tests-executed") == {INFO if model else REJECT}


def test_a_severity_may_be_changed_by_the_pipeline(tmp_path: Path) -> None:
    changes = {"patch": make_patch(500)}
    assert verdict_of(tmp_path / "a", changes, severities={"patch-small": "reject"}).verdict is Outcome.REJECTED
    assert verdict_of(tmp_path / "b", changes, severities={"patch-small": "info"}).verdict is Outcome.ACCEPTED


def test_a_threshold_may_be_changed_by_the_pipeline(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, {}, min_patch_bytes=2000, small_patch_bytes=3000)
    assert [(reason.code, reason.measured, reason.threshold) for reason in verdict.reasons] == [("patch-too-small", 1500, 2000)]


def test_an_unknown_code_or_layout_in_the_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"patch-smal\b.*patch-small"):
        verdict_of(tmp_path, {}, severities={"patch-smal": "info"})
    with pytest.raises(InputError, match="openhand"):
        verdict_of(tmp_path, {}, layout="openhand")


def test_the_task_that_is_expected_decides(tmp_path: Path) -> None:
    build_result(tmp_path)
    other = judge(tmp_path, Expected("77", "gpt"), Quality())
    assert severities(other, "instance-mismatch") == {REJECT}
    assert other.instance_id == "77"
    more = judge(tmp_path, Expected(INSTANCE, "gpt", (*F2P, "tests/new.py::test_n"), P2P), Quality())
    assert {reason.code for reason in more.reasons} == {"dataset-disagrees", "resolved-unsupported"}


def test_the_gravest_reason_comes_first_and_the_first_fault_is_the_cause(tmp_path: Path) -> None:
    verdict = verdict_of(
        tmp_path,
        {"patch": "", "history": 5, "error": "litellm.RateLimitError: 429", "files": {"eval_pilot2_output.jsonl": None}},
    )
    assert [reason.severity for reason in verdict.reasons] == sorted(
        (r.severity for r in verdict.reasons), key=[REJECT, WARN, INFO].index
    )
    assert verdict.cause is Cause.PROVIDER


def test_fixes_can_be_typed_as_they_stand(tmp_path: Path) -> None:
    verdict = verdict_of(
        tmp_path, {"provenance": {}, "files": {LOG: "bash: pytest: command not found\n"}, "details": NOTHING_RAN}
    )
    fixes = {reason.code: reason.fix for reason in verdict.reasons}
    assert fixes["no-tests-executed"] == f"fleet retry {INSTANCE}/gpt/run1"


@pytest.mark.parametrize(
    ("error", "fix"),
    [
        ("RuntimeError: Agent reached maximum iteration", "dispatch the task with another run and a higher max_iterations"),
        ("litellm.RateLimitError: 429", "dispatch the task with another run later, or with fewer hosts"),
    ],
)
def test_a_result_that_counts_is_not_told_to_be_retried_which_would_be_refused(tmp_path: Path, error: str, fix: str) -> None:
    verdict = verdict_of(tmp_path, {"provenance": {}, "error": error})
    assert verdict.verdict is Outcome.FLAGGED
    assert [reason.fix for reason in verdict.reasons] == [fix]


def test_no_fix_leads_back_to_the_command_that_showed_it() -> None:
    assert [rule.code for rule in RULES if "fleet why" in rule.fix] == []


def test_a_fix_names_the_batch_whose_task_it_is(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, {"provenance": {"batch": "phase8"}, "patch": ""})
    fixes = {reason.code: reason.fix for reason in verdict.reasons}
    assert fixes["patch-missing"] == f"fleet retry {INSTANCE}/gpt/run1 --batch phase8"


def test_what_was_not_there_is_null_and_never_zero(tmp_path: Path) -> None:
    verdict = verdict_of(
        tmp_path, {"files": {"output.jsonl": None, "eval_pilot2_output.jsonl": None, f"{EVALS}/report.json": None}}
    )
    assert set(verdict.facts.model_dump().values()) == {None}


def test_secrets_in_an_error_are_not_repeated(tmp_path: Path) -> None:
    verdict = verdict_of(tmp_path, {"error": "AuthenticationError: key sk-abcdefghijklmnop1234 \x1b[31mrefused\nat line 2"})
    assert "sk-abcdef" not in verdict.model_dump_json()
    assert verdict.facts.error == "AuthenticationError: key [redacted] refused at line 2"
