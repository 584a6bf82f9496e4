"""Results in the layouts of other harnesses and agents, good by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.results import F2P, P2P, make_log, make_patch

INSTANCE = "pallets__flask-5014"
APPLIED = "2026-11-20 12:00:00,000 - INFO - >>>>> Applied Patch:\nok\n"
NOT_APPLIED = "2026-11-20 12:00:00,000 - INFO - >>>>> Patch Apply Failed:\nerror: patch failed: src/parser.py:1\n"


def swebench_log(
    directory: Path,
    *,
    resolved: bool = True,
    log: str | None = None,
    report: Any = None,
    run: str = APPLIED,
    patch: str | None = None,
    leave_out: tuple[str, ...] = (),
) -> Path:
    """Write what the SWE-bench harness leaves of one instance."""
    failed = [] if resolved else [F2P[0]]
    lists = {
        "FAIL_TO_PASS": {"success": [test for test in F2P if test not in failed], "failure": failed},
        "PASS_TO_PASS": {"success": list(P2P), "failure": []},
        "FAIL_TO_FAIL": {"success": [], "failure": []},
        "PASS_TO_FAIL": {"success": [], "failure": []},
    }
    entry = {
        "patch_is_None": False, "patch_exists": True, "patch_successfully_applied": True, "resolved": resolved,
        "infra_failure": False, "tests_status": lists,
    }  # fmt: skip
    body = make_log([*lists["FAIL_TO_PASS"]["success"], *P2P], failed)
    files = {
        "report.json": json.dumps({INSTANCE: entry} if report is None else report, indent=4),
        "test_output.txt": f"+ setup\n>>>>> Start Test Output\n{body}>>>>> End Test Output\n" if log is None else log,
        "patch.diff": make_patch() if patch is None else patch,
        "run_instance.log": run,
        "eval.sh": "#!/bin/bash\npytest -rA\n",
    }
    directory.mkdir(parents=True)
    for name, text in files.items():
        if name not in leave_out:
            (directory / name).write_text(text)
    return directory


def predictions(count: int = 3) -> list[dict[str, Any]]:
    """Return rows of a predictions file."""
    return [{"instance_id": f"i-{n}", "model_name_or_path": "gpt", "model_patch": make_patch()} for n in range(count)]


def multi_swe_bench(directory: Path, **changes: Any) -> Path:
    """Write what the Multi-SWE-bench harness leaves of one instance; `changes` are laid over its report."""
    counts = {
        "passed_count": 12,
        "failed_count": 0,
        "skipped_count": 0,
        "passed_tests": [],
        "failed_tests": [],
        "skipped_tests": [],
    }
    states = {"run": "NONE", "test": "FAIL", "fix": "PASS"}
    body = {
        "org": "clap-rs", "repo": "clap", "number": 3775, "valid": True, "error_msg": "", "fixed_tests": {"t::a": states},
        "p2p_tests": {"t::b": states}, "f2p_tests": {"t::a": states}, "s2p_tests": {}, "n2p_tests": {},
        "run_result": counts, "test_patch_result": counts, "fix_patch_result": counts,
    } | changes  # fmt: skip
    directory.mkdir(parents=True)
    (directory / "report.json").write_text(json.dumps(body))
    (directory / "fix-patch-run.log").write_text("test t::a ... ok\ntest t::b ... ok\n")
    (directory / "fix.patch").write_text(make_patch())
    return directory


def trajectory(version: str = "mini-swe-agent-1", **info: Any) -> dict[str, Any]:
    """Return a trajectory of mini-swe-agent that submitted a patch; `info` is laid over its info."""
    told = {"exit_status": "Submitted", "submission": make_patch(), "model_stats": {"instance_cost": 0.31, "api_calls": 40}}
    told["config"] = {"model": {"model_name": "gpt"}}
    return {"info": {**told, **info}, "messages": [{"role": "user", "content": "x"}] * 50, "trajectory_format": version}


def run_report() -> dict[str, Any]:
    """Return the report of a run with one instance of every outcome."""
    return {
        "submitted_ids": ["a", "b", "c", "d"],
        "completed_ids": ["a", "b", "c"],
        "resolved_ids": ["a"],
        "unresolved_ids": ["b", "c"],
        "infra_failure_ids": ["c"],
        "error_ids": ["d"],
        "schema_version": 2,
    }


def lite_run(directory: Path, **changes: Any) -> Path:
    """Write what a run of swebench_lite leaves; `changes` are laid over its result."""
    split = {"FAIL_TO_PASS": {"success": list(F2P), "failure": []}, "PASS_TO_PASS": {"success": list(P2P), "failure": []}}
    body = {
        "schema": "fleet.lite-run/1", "task_id": INSTANCE, "status": "pass", "stage": None, "reason": None, "resolved": True,
        "patch": {"state": "applied", "way": "git apply", "test_patch": "applied"},
        "tests": {"counts": {"passed": 5, "failed": 0}, "exit_code": 0, **split},
    } | changes  # fmt: skip
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(json.dumps(body))
    (directory / "pytest_tail.txt").write_text(make_log([*F2P, *P2P]))
    return directory
