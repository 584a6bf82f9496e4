"""Results in the OpenHands layout, so that collect, validate and the dashboard treat them like those of any other pipeline.

No model is called here: the patch is the one that the dataset gives for this model (`model_patches`), or its gold patch for the
model `gold`. The history has one entry per step that was really taken.
"""

import json
import time

from result import write
from run import Run, Settings

MAX_TEST_OUTPUT = 50000
WORDS = {
    "clone": "Clone the project at its base commit",
    "start": "Start the sandbox",
    "install": "Install the project",
    "before": "Run the tests without the patch",
    "patch": "Apply the patch, then the test patch",
    "tests": "Run the tests with the patch",
}


def run_pipeline(task, model, number, output, settings, say):
    """Run one task of an assignment and write its outputs; return 0 when there is a result, else 2."""
    patch = task.patch_of(model)
    say("%s by %s, run %s: a patch of %d bytes" % (task.task_id, model, number, len(patch.encode("utf-8", "replace"))))
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    kept = Settings(str(output / "lite"), settings.kind, settings.image, before=bool(task.fail_to_pass))
    run = Run(task, kept, patch)
    result = run.execute()
    for stage, seconds in result["stages"].items():
        say("  %-8s %6.2f s" % (stage, seconds))
    say("%s%s" % (result["status"], ": " + result["reason"] if result["reason"] else ""))
    _write_outputs(task, model, number, output, run, result, patch, started)
    return 0 if judged(run, result) else 2


def _write_outputs(task, model, number, output, run, result, patch, started):
    details = details_of(task, run, result)
    valid = judged(run, result)
    metadata = {
        "agent_class": "GivenPatch",
        "llm_config": {"model": model, "note": "a given patch, no model was called"},
        "max_iterations": 1,
        "dataset": task.repo,
        "run": int(number),
        "start_time": started,
        "image_id": result["image_id"],
        "sandbox": result["sandbox"],
    }
    record = {
        "instance_id": task.task_id,
        "test_result": {"git_patch": patch},
        "instruction": task.problem_statement,
        "metadata": metadata,
        "history": history_of(task, result, patch),
        "metrics": {
            "accumulated_cost": 0.0,
            "accumulated_token_usage": {"model": model, "prompt_tokens": 0, "completion_tokens": 0},
        },
        "error": None if valid else "%s in stage %s: %s" % (result["status"], result["stage"], result["reason"]),
        "instance": {"instance_id": task.task_id, "repo": task.repo, "base_commit": task.ref},
    }
    folder = output / "eval_outputs" / task.task_id
    report = {task.task_id: report_of(details, result, patch)}
    write(folder / "patch.diff", patch)
    write(folder / "test_output.txt", run.test_output or result["tail"])
    if valid:  # of an evaluation that did not take place there is nothing to report
        write(folder / "report.json", json.dumps(report, indent=2))
        write(output / "eval_outputs" / "report.json", json.dumps(report, indent=2))
    write(output / "metadata.json", json.dumps(metadata, indent=2))
    row = dict(record, resolved=details["resolved"], pilot2_eval_details=details)
    write(output / "eval_pilot2_output.jsonl", json.dumps(row) + "\n")
    write(output / "output.jsonl", json.dumps(record) + "\n")


def details_of(task, run, result):
    """Return the details of eval_pilot2_output.jsonl."""
    report = run.report
    f2p = report.fail_to_pass if report else {"success": [], "failure": list(task.fail_to_pass)}
    p2p = report.pass_to_pass if report else {"success": [], "failure": list(task.pass_to_pass)}
    unapplied = result["patch"]["state"] in ("refused", "unapplied")
    timeout = ended_in_tests(run, result)
    return {
        "instance_id": task.task_id,
        "resolved": bool(result["resolved"]),
        "failed_apply_patch": unapplied,
        "failed_apply_test_patch": result["patch"]["test_patch"] == "unapplied",
        "error_eval": result["status"] in ("error", "timeout") and not unapplied and not timeout,
        "test_timeout": timeout,
        "tests_passed": report.count("passed") if report else 0,
        "tests_failed": report.count("failed") if report else 0,
        "tests_error": report.count("error") if report else 0,
        "fail_to_pass_success": f2p["success"],
        "fail_to_pass_failed": f2p["failure"],
        "pass_to_pass_success": p2p["success"],
        "pass_to_pass_failed": p2p["failure"],
        "test_output": (run.test_output or result["tail"])[:MAX_TEST_OUTPUT],
        "error_message": result["reason"] or "",
    }


def report_of(details, result, patch):
    """Return the harness's report, from the same numbers."""
    return {
        "patch_is_None": not patch,
        "patch_exists": bool(patch),
        "patch_successfully_applied": result["patch"]["state"] == "applied",
        "resolved": details["resolved"],
        "tests_status": {
            "FAIL_TO_PASS": {"success": details["fail_to_pass_success"], "failure": details["fail_to_pass_failed"]},
            "PASS_TO_PASS": {"success": details["pass_to_pass_success"], "failure": details["pass_to_pass_failed"]},
            "FAIL_TO_FAIL": {"success": [], "failure": []},
            "PASS_TO_FAIL": {"success": [], "failure": []},
        },
    }


def history_of(task, result, patch):
    """Return what happened: the issue, the given patch, and every stage with its time."""
    events = [
        {"source": "user", "action": "message", "args": {"content": task.problem_statement or task.task_id}},
        {"source": "agent", "action": "message", "args": {"content": "A given patch; no model was called.\n\n" + patch}},
    ]
    for stage, seconds in result["stages"].items():
        events.append({"source": "agent", "action": "run", "args": {"command": WORDS.get(stage, stage)}})
        content = "%.3f s" % seconds + ("\n" + str(result["reason"]) if result["stage"] == stage else "")
        events.append({"source": "agent", "observation": "run", "cause": len(events) - 1, "content": content, "extras": {}})
    return [dict({"id": number}, **event) for number, event in enumerate(events)]


def judged(run, result):
    """Tell whether the result is the patch's own, and not that of this machine or of the task."""
    unapplied = result["patch"]["state"] in ("refused", "unapplied")
    return result["status"] in ("pass", "fail") or unapplied or ended_in_tests(run, result)


def ended_in_tests(run, result):
    """Tell whether the tests had the whole of their limit; what a slow installation left of the cap is no fault of it."""
    return result["status"] == "timeout" and result["stage"] == "tests" and not run.capped
