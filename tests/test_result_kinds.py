"""Results of other harnesses and agents are recognised by what they hold, and judged by what such a result should have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause, Outcome, Verdict
from fleet.quality import Expected, Kind, find_sources
from fleet.quality.judge import judge_source
from tests.support.kinds import (
    INSTANCE,
    NOT_APPLIED,
    lite_run,
    multi_swe_bench,
    predictions,
    run_report,
    swebench_log,
    trajectory,
)
from tests.support.results import F2P, P2P, make_log, make_patch


def verdicts(path: Path, expected: Expected | None = None) -> list[Verdict]:
    (source,) = find_sources([path])
    return judge_source(source, expected, Quality())


def codes(verdict: Verdict) -> list[str]:
    return [reason.code for reason in verdict.reasons]


def logs_at(tmp_path: Path) -> Path:
    return tmp_path / "logs/run_evaluation/nightly/org__model" / INSTANCE


@pytest.mark.parametrize("resolved", [True, False])
def test_a_swebench_log_directory_is_judged_by_its_own_parts(tmp_path: Path, resolved: bool) -> None:
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), resolved=resolved))
    assert (verdict.kind, verdict.verdict, codes(verdict)) == (Kind.SWEBENCH_LOG, Outcome.ACCEPTED, [])
    assert (verdict.instance_id, verdict.model) == (INSTANCE, "org__model")
    facts = verdict.facts
    assert (facts.resolved, facts.f2p_total, facts.p2p_success, facts.patch_bytes) == (resolved, 2, 3, 1500)
    assert facts.history_entries is None


def test_a_short_patch_that_the_harness_evaluated_is_a_result(tmp_path: Path) -> None:
    patch = "--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-a = 1\n+a = 2\n"
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), patch=patch))
    assert (verdict.verdict, codes(verdict)) == (Outcome.FLAGGED, ["patch-small"])


def test_a_flat_report_is_the_directorys_instance(tmp_path: Path) -> None:
    directory = swebench_log(logs_at(tmp_path))
    keyed = json.loads((directory / "report.json").read_text())
    (directory / "report.json").write_text(json.dumps(keyed[INSTANCE]))
    (verdict,) = verdicts(directory)
    assert (verdict.verdict, verdict.instance_id, verdict.facts.resolved) == (Outcome.ACCEPTED, INSTANCE, True)


def test_a_patch_that_did_not_apply_is_the_models_and_excuses_the_report(tmp_path: Path) -> None:
    gone = ("report.json", "test_output.txt", "eval.sh")
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), run=NOT_APPLIED, leave_out=gone))
    assert (verdict.verdict, verdict.cause, codes(verdict)) == (Outcome.FLAGGED, Cause.MODEL, ["patch-not-applied"])
    assert verdict.facts.resolved is False


def test_tests_that_ran_into_the_timeout_are_a_flag(tmp_path: Path) -> None:
    log = ">>>>> Start Test Output\ncollecting ...\n\n\nTimeout error: 1800 seconds exceeded."
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), log=log, leave_out=("report.json",)))
    assert (verdict.verdict, codes(verdict)) == (Outcome.FLAGGED, ["test-timeout"])


def test_a_missing_report_without_a_reason_is_rejected(tmp_path: Path) -> None:
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), leave_out=("report.json",)))
    assert verdict.verdict is Outcome.REJECTED
    assert "report-missing" in codes(verdict)


def test_an_error_of_the_harness_is_quoted(tmp_path: Path) -> None:
    run = "EvaluationError pallets__flask-5014: Error creating container: no such image\nCheck (run_instance.log)"
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), run=run, leave_out=("report.json", "test_output.txt")))
    assert verdict.verdict is Outcome.REJECTED
    assert any(reason.code == "eval-error" and "Error creating container" in reason.message for reason in verdict.reasons)


def test_resolved_that_the_log_denies_is_rejected(tmp_path: Path) -> None:
    log = ">>>>> Start Test Output\n" + make_log([*F2P[1:], *P2P], [F2P[0]]) + ">>>>> End Test Output\n"
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), log=log))
    assert "resolved-unsupported" in codes(verdict)


def test_an_infrastructure_failure_by_the_harnesss_own_word_is_rejected(tmp_path: Path) -> None:
    entry = {"patch_exists": True, "patch_successfully_applied": False, "resolved": False, "infra_failure": True}
    entry["infra_failure_reason"] = "container_unavailable"
    log = "Error response from daemon: No such container: 3f2a\n"
    (verdict,) = verdicts(swebench_log(logs_at(tmp_path), log=log, report={INSTANCE: entry}))
    assert (verdict.verdict, verdict.cause) == (Outcome.REJECTED, Cause.ENVIRONMENT)
    assert any("container_unavailable" in reason.message for reason in verdict.reasons)


def test_another_instances_report_is_rejected(tmp_path: Path) -> None:
    directory = swebench_log(logs_at(tmp_path))
    (verdict,) = verdicts(directory, Expected("django__django-1"))
    assert "instance-mismatch" in codes(verdict)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(json.dumps(row) for row in predictions()) + "\n",
        json.dumps(predictions(), indent=1),
        json.dumps({row["instance_id"]: row for row in predictions()}),
        json.dumps(
            {row["instance_id"]: {"model_patch": row["model_patch"], "model_name_or_path": "gpt"} for row in predictions()}
        ),
    ],
    ids=["lines", "list", "object", "object-without-ids"],
)
def test_predictions_are_judged_row_by_row_in_every_shape(tmp_path: Path, text: str) -> None:
    (tmp_path / "anything.json").write_text(text)
    found = verdicts(tmp_path)
    assert [(one.kind, one.instance_id, one.model, one.verdict) for one in found] == [
        (Kind.PREDICTIONS, f"i-{n}", "gpt", Outcome.ACCEPTED) for n in range(3)
    ]
    assert {code for one in found for code in codes(one)} == {"not-evaluated"}
    assert all(one.facts.resolved is None for one in found)


def test_bad_predictions_are_told_apart_from_good_ones(tmp_path: Path) -> None:
    good, null, twice = predictions()
    lines = [good, {**null, "model_patch": None}, twice, {**twice, "model_patch": make_patch(900)}, {"model_patch": "x"}]
    (tmp_path / "p.jsonl").write_text("\n".join([*map(json.dumps, lines), '{"instance_id": "cut']))
    found = {one.instance_id: one for one in verdicts(tmp_path)}
    assert "patch-missing" in codes(found["i-1"])
    assert "output-malformed" in codes(found["i-2"])
    assert {"instance-mismatch", "patch-malformed"} <= set(codes(found[None]))
    # The line that was cut off may have been any of them.
    assert all(one.verdict is Outcome.REJECTED for one in found.values())


def test_a_prediction_under_anothers_key_is_nobodys(tmp_path: Path) -> None:
    rows = {"a__b-1": predictions(1)[0] | {"instance_id": "c__d-2"}}
    (tmp_path / "preds.json").write_text(json.dumps(rows))
    (verdict,) = verdicts(tmp_path)
    assert codes(verdict)[0] == "instance-mismatch"
    assert "a__b-1" in verdict.reasons[0].message and "c__d-2" in verdict.reasons[0].message


def test_a_run_report_that_lists_an_instance_twice_over_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps(run_report() | {"unresolved_ids": ["a", "b", "c"]}))
    told = {verdict.instance_id: verdict for verdict in verdicts(tmp_path)}
    assert told["a"].verdict is Outcome.REJECTED and "report-disagrees" in codes(told["a"])
    assert told["b"].verdict is Outcome.FLAGGED


def test_a_trajectory_that_never_had_a_container_blames_the_environment(tmp_path: Path) -> None:
    said = "Command '['docker', 'run', '-d', 'swebench/x:latest']' returned non-zero exit status 125."
    body = trajectory(exit_status="CalledProcessError", submission="", exception_str=said)
    (tmp_path / "a__b-1.traj.json").write_text(json.dumps(body))
    (verdict,) = verdicts(tmp_path)
    assert (verdict.verdict, verdict.cause) == (Outcome.REJECTED, Cause.ENVIRONMENT)
    assert "is not there" in next(reason.message for reason in verdict.reasons if reason.code == "patch-missing")


@pytest.mark.parametrize("version", ["mini-swe-agent-1", "mini-swe-agent-1.1"])
def test_a_mini_swe_agent_trajectory_is_judged(tmp_path: Path, version: str) -> None:
    path = tmp_path / INSTANCE / f"{INSTANCE}.traj.json"
    path.parent.mkdir()
    path.write_text(json.dumps(trajectory(version), indent=2))
    (verdict,) = verdicts(tmp_path)
    assert (verdict.kind, verdict.instance_id, verdict.model) == (Kind.MINI_SWE_AGENT, INSTANCE, "gpt")
    assert (verdict.verdict, codes(verdict)) == (Outcome.ACCEPTED, ["not-evaluated"])
    assert (verdict.facts.history_entries, verdict.facts.cost_usd) == (50, 0.31)


@pytest.mark.parametrize(
    ("status", "submission", "cause"),
    [("LimitsExceeded", "", Cause.MODEL), ("RateLimitError", "429 too many requests", Cause.PROVIDER)],
)
def test_a_trajectory_that_ended_otherwise_is_rejected_for_its_reason(
    tmp_path: Path, status: str, submission: str, cause: Cause
) -> None:
    body = trajectory(exit_status=status, submission=submission)
    (tmp_path / "x.traj.json").write_text(json.dumps(body))
    (verdict,) = verdicts(tmp_path)
    assert (verdict.verdict, verdict.cause) == (Outcome.REJECTED, cause)


def test_a_run_report_is_a_claim_for_each_instance(tmp_path: Path) -> None:
    (tmp_path / "gpt.nightly.json").write_text(json.dumps(run_report()))
    found = {one.instance_id: one for one in verdicts(tmp_path)}
    assert {name: (one.verdict, one.cause, one.facts.resolved) for name, one in found.items()} == {
        "a": (Outcome.FLAGGED, None, True),
        "b": (Outcome.FLAGGED, None, False),
        "c": (Outcome.REJECTED, Cause.ENVIRONMENT, None),
        "d": (Outcome.REJECTED, Cause.HARNESS, None),
    }
    assert "claim-only" in codes(found["a"])


def test_a_multi_swe_bench_directory_is_judged(tmp_path: Path) -> None:
    (verdict,) = verdicts(multi_swe_bench(tmp_path / "clap/evals/pr-3775"))
    assert (verdict.kind, verdict.instance_id) == (Kind.MULTI_SWE_BENCH, "clap-rs__clap-3775")
    assert (verdict.verdict, verdict.facts.resolved, verdict.facts.tests_passed) == (Outcome.ACCEPTED, True, 12)


def test_a_multi_swe_bench_run_without_tests_is_rejected(tmp_path: Path) -> None:
    none = {"passed_count": 0, "failed_count": 0, "skipped_count": 0}
    changes = {"valid": False, "f2p_tests": {}, "p2p_tests": {}, "fix_patch_result": none}
    (verdict,) = verdicts(multi_swe_bench(tmp_path / "x", **changes))
    assert "no-tests-executed" in codes(verdict)


def test_an_unresolved_multi_swe_bench_result_needs_no_lists(tmp_path: Path) -> None:
    changes = {"valid": False, "error_msg": "no test cases transitioned", "f2p_tests": {}, "p2p_tests": {}, "fixed_tests": {}}
    (verdict,) = verdicts(multi_swe_bench(tmp_path / "x", **changes))
    assert (verdict.verdict, verdict.facts.resolved) == (Outcome.ACCEPTED, False)


def test_a_whole_openhands_batch_in_one_directory_gets_a_verdict_each(tmp_path: Path) -> None:
    from tests.support.results import build_result

    joined: dict[str, list[str]] = {"output.jsonl": [], "eval_pilot2_output.jsonl": []}
    for name in ("i-1", "i-2"):
        one = build_result(tmp_path / "single" / name, name)
        for file, lines in joined.items():
            lines.append(json.dumps(json.loads((one / file).read_text())))
        for part in ("eval_outputs", "llm_completions"):
            (tmp_path / "batch" / part).mkdir(parents=True, exist_ok=True)
            (one / part / name).rename(tmp_path / "batch" / part / name)
    for file, lines in joined.items():
        (tmp_path / "batch" / file).write_text("\n".join(lines) + "\n")
    (tmp_path / "batch/metadata.json").write_text("{}")
    found = verdicts(tmp_path / "batch")
    assert [(one.instance_id, one.verdict) for one in found] == [("i-1", Outcome.ACCEPTED), ("i-2", Outcome.ACCEPTED)]


def test_files_that_are_no_results_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "x", "resolved": ["y"]}')
    (tmp_path / "eval_summary.json").write_text(
        '{"total_instances": 1, "resolved_instances": 1, "results": {"a": {"resolved": true}}}'
    )
    (tmp_path / "data.jsonl").write_text('{"instance_id": "a", "patch": "..."}\n')
    assert find_sources([tmp_path]) == []


@pytest.mark.parametrize(
    ("changes", "outcome", "cause", "found"),
    [
        ({}, Outcome.ACCEPTED, None, []),
        ({"status": "timeout", "stage": "tests", "resolved": None, "tests": None}, Outcome.FLAGGED, None, ["test-timeout"]),
        (
            {"status": "error", "stage": "install", "reason": "pip: no space", "resolved": None, "tests": None},
            Outcome.REJECTED, Cause.ENVIRONMENT, ["environment-broken"],
        ),
        (
            {"status": "error", "stage": "patch", "resolved": None, "tests": None, "patch": {"state": "unapplied"}},
            Outcome.FLAGGED, Cause.MODEL, ["patch-not-applied"],
        ),
        ({"status": "fail"}, Outcome.REJECTED, Cause.HARNESS, ["report-disagrees"]),
        ({"status": "splendid"}, Outcome.REJECTED, Cause.HARNESS, ["report-missing"]),
    ],
)  # fmt: skip
def test_a_lite_run_is_judged(
    tmp_path: Path, changes: dict[str, Any], outcome: Outcome, cause: Cause | None, found: list[str]
) -> None:
    (verdict,) = verdicts(lite_run(tmp_path / "run", **changes))
    assert (verdict.kind, verdict.instance_id) == (Kind.SWEBENCH_LITE, INSTANCE)
    assert (verdict.verdict, verdict.cause, list(dict.fromkeys(codes(verdict)))) == (outcome, cause, found)
