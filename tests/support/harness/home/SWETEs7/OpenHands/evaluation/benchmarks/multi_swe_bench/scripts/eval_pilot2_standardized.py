"""Stand-in for the patch evaluation: writes eval_pilot2_output.jsonl and eval_outputs/. Exit 0 resolved, 3 not."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness_standin import Switches, be_stubborn, container, load_dataset, model_of

LOG_LIMIT = 50_000


def main(output, dataset_path, model):
    """Evaluate the patch of one instance."""
    dataset = load_dataset(dataset_path)
    switches = Switches(dataset, model_of(model))
    be_stubborn(switches)
    instance = str(dataset["instance_id"])
    records = [json.loads(line) for line in Path(output).read_text().splitlines()]
    record = next((r for r in reversed(records) if r["instance_id"] == instance), records[-1])
    container(f"sweb.eval.x86_64.{instance}.{os.getpid()}", switches.seconds * 0.4)
    outcome = judge(dataset, switches)
    write(Path(output).parent, record, instance, outcome)
    print(f"{instance}: {outcome['passed']} passed, {outcome['failed']} failed, resolved: {outcome['resolved']}", flush=True)
    return 0 if outcome["resolved"] else 3


def judge(dataset, switches):
    """Return which tests passed and the log that shows it."""
    f2p, p2p = dataset["f2p"], dataset["p2p"]
    if switches.has("env-broken"):
        return result(f2p, p2p, [], "+ cd /testbed\n+ pytest -rA\n/eval.sh: line 12: pytest: command not found\n")
    if switches.has("zero-tests"):
        return result(f2p, p2p, [], session([], [], "collected 0 items") + "no tests ran in 0.02s\n")
    failing = f2p[:1] if switches.has("unresolved", "exit-1-when-unresolved") else []
    passing = [test for test in f2p + p2p if test not in failing]
    return result(f2p, p2p, passing, session(passing, failing, f"collected {len(f2p) + len(p2p)} items"))


def result(f2p, p2p, passing, log):
    """Sort the tests into the four lists of a report."""
    ran = bool(passing) or " FAILED" in log
    outcome = {
        "F2P": ([t for t in f2p if t in passing], [t for t in f2p if t not in passing]),
        "P2P": ([t for t in p2p if t in passing], [t for t in p2p if t not in passing]),
        "log": log,
        "passed": len(passing),
        "failed": len(f2p) + len(p2p) - len(passing) if ran else 0,
    }
    outcome["resolved"] = not outcome["F2P"][1] and not outcome["P2P"][1] and bool(f2p)
    return outcome


def session(passing, failing, collected):
    """Return the output of `pytest -rA -v` as it would be for these tests."""
    total = max(1, len(passing) + len(failing))
    lines = ["============================= test session starts ==============================",
             "platform linux -- Python 3.11.2, pytest-8.4.1, pluggy-1.6.0", "rootdir: /testbed", collected, ""]  # fmt: skip
    for number, (test, word) in enumerate([(t, "PASSED") for t in passing] + [(t, "FAILED") for t in failing], 1):
        lines.append(f"{test} {word} [{100 * number // total:3d}%]")
    for test in failing:
        lines += ["", "=================================== FAILURES ===================================",
                  f"_________________ {test.rpartition('::')[2]} _________________", ">       assert value == expected",
                  "E       AssertionError: assert 4 == 5"]  # fmt: skip
    lines += ["", "=========================== short test summary info ============================"]
    lines += [f"PASSED {test}" for test in passing]
    lines += [f"FAILED {test} - AssertionError: assert 4 == 5" for test in failing]
    counts = ", ".join(f"{count} {word}" for count, word in ((len(failing), "failed"), (len(passing), "passed")) if count)
    return "\n".join([*lines, f"========================= {counts or 'no tests ran'} in 0.41s =========================", ""])


def write(directory, record, instance, outcome):
    """Write every file of the evaluation."""
    patch = record["test_result"]["git_patch"]
    f2p, p2p = outcome["F2P"], outcome["P2P"]
    details = {
        "instance_id": instance, "resolved": outcome["resolved"], "failed_apply_patch": False,
        "failed_apply_test_patch": False, "error_eval": False, "test_timeout": False,
        "tests_passed": outcome["passed"], "tests_failed": outcome["failed"], "tests_error": 0,
        "fail_to_pass_success": f2p[0], "fail_to_pass_failed": f2p[1],
        "pass_to_pass_success": p2p[0], "pass_to_pass_failed": p2p[1],
        "test_output": outcome["log"][:LOG_LIMIT], "error_message": "",
    }  # fmt: skip
    report = {
        instance: {
            "patch_is_None": False, "patch_exists": bool(patch), "patch_successfully_applied": True,
            "resolved": outcome["resolved"],
            "tests_status": {
                "FAIL_TO_PASS": {"success": f2p[0], "failure": f2p[1]},
                "PASS_TO_PASS": {"success": p2p[0], "failure": p2p[1]},
                "FAIL_TO_FAIL": {"success": [], "failure": []},
                "PASS_TO_FAIL": {"success": [], "failure": []},
            },
        }
    }  # fmt: skip
    evaluated = {**record, "resolved": outcome["resolved"], "pilot2_eval_details": details}
    (directory / "eval_pilot2_output.jsonl").write_text(json.dumps(evaluated) + "\n")
    folder = directory / "eval_outputs" / instance
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=4)
    (directory / "eval_outputs" / "report.json").write_text(text)
    (folder / "report.json").write_text(text)
    (folder / "patch.diff").write_text(patch)
    (folder / "test_output.txt").write_text(outcome["log"])
    (folder / "run_instance.log").write_text(f"INFO - Applied patch to {instance}\nINFO - Evaluated {instance}\n")
    (folder / "eval.sh").write_text("#!/bin/bash\nset -x\ncd /testbed\npytest -rA -v\n")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
