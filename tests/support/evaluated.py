"""What the users' evaluation script leaves of a run, from the test log that it saw: its counting, its guesses and its files.

The script pastes standard error behind standard output, counts by its own parser, matches ids by substring, and in some
versions takes a test that it does not find for passed. All of that is in real results, so it is done here as well.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.results import F2P, INSTANCE, MODEL, P2P, make_history, make_patch

NO_CONDA = "bash: line 1: /opt/miniconda3/etc/profile.d/conda.sh: No such file or directory\n"
"""What the script's own command says in an image without conda, before it goes on."""

_OUTCOMES = "PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS"
_LINE = re.compile(rf"^(?:({_OUTCOMES})\s+(\S+)|(\S*::.*?)\s+({_OUTCOMES})(?:\s|$))")
_GOOD = frozenset({"PASSED", "XFAIL", "XPASS", "SKIPPED"})


def details_of(log: str, f2p: Sequence[str], p2p: Sequence[str], *, assumes: bool = False) -> dict[str, Any]:
    """Return `pilot2_eval_details` as the script makes them of a log; `assumes`: what is not found counts as passed."""
    seen: dict[str, str] = {}
    for line in log.split("\n"):
        if match := _LINE.match(re.sub(r"\x1b?\[\d+m", "", line)):
            seen[match[2] or match[3]] = match[1] or match[4]

    def found(test: str) -> str | None:
        return next((word for name, word in seen.items() if test in name or name in test), "PASSED" if assumes else None)

    passed_f2p = [test for test in f2p if found(test) == "PASSED"]
    passed_p2p = [test for test in p2p if found(test) in _GOOD]
    return {
        "instance_id": INSTANCE,
        "resolved": bool(passed_f2p) and len(passed_f2p) == len(f2p) and len(passed_p2p) == len(p2p),
        "failed_apply_patch": False, "failed_apply_test_patch": False, "error_eval": False, "test_timeout": False,
        "tests_passed": sum(word in _GOOD for word in seen.values()),
        "tests_failed": sum(word == "FAILED" for word in seen.values()),
        "tests_error": sum(word == "ERROR" for word in seen.values()),
        "fail_to_pass_success": passed_f2p, "fail_to_pass_failed": [test for test in f2p if test not in passed_f2p],
        "pass_to_pass_success": passed_p2p, "pass_to_pass_failed": [test for test in p2p if test not in passed_p2p],
        "test_output": log[:50_000], "error_message": "",
    }  # fmt: skip


def evaluated(
    directory: Path,
    log: str,
    *,
    instance_id: str = INSTANCE,
    f2p: Sequence[str] = F2P,
    p2p: Sequence[str] = P2P,
    patch: str | None = None,
    row: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
    assumes: bool = False,
    key: str = "pilot2_eval_details",
    files: Mapping[str, bytes | str | None] | None = None,
) -> Path:
    """Write the result directory of a run whose tests printed `log`; `row` and `details` are laid over what is written."""
    diff = make_patch() if patch is None else patch
    record: dict[str, Any] = {
        "instance_id": instance_id,
        "test_result": {"git_patch": diff},
        "instruction": "Fix it.",
        "metadata": {"agent_class": "CodeActAgent", "llm_config": {"model": MODEL}, "max_iterations": 200},
        "history": make_history(60),
        "metrics": {"accumulated_cost": 0.4, "accumulated_token_usage": {"prompt_tokens": 90_000, "completion_tokens": 4_000}},
        "error": None,
        "instance": {"instance_id": instance_id, "FAIL_TO_PASS": list(f2p), "PASS_TO_PASS": list(p2p)},
        **(row or {}),
    }
    told = {**details_of(log, f2p, p2p, assumes=assumes), "instance_id": instance_id, **(details or {})}
    lists = {
        "FAIL_TO_PASS": {"success": told["fail_to_pass_success"], "failure": told["fail_to_pass_failed"]},
        "PASS_TO_PASS": {"success": told["pass_to_pass_success"], "failure": told["pass_to_pass_failed"]},
        "FAIL_TO_FAIL": {"success": [], "failure": []},
        "PASS_TO_FAIL": {"success": [], "failure": []},
    }
    entry = {
        "patch_is_None": False, "patch_exists": True, "patch_successfully_applied": not told["failed_apply_patch"],
        "resolved": told["resolved"], "tests_status": lists,
    }  # fmt: skip
    evals = f"eval_outputs/{instance_id}"
    written: dict[str, bytes | str | None] = {
        "output.jsonl": json.dumps(record) + "\n",
        "metadata.json": json.dumps({"agent_class": "CodeActAgent", "llm_config": {"model": MODEL}}),
        f"llm_completions/{instance_id}/1.json": "{}",
        "eval_pilot2_output.jsonl": json.dumps({**record, key: told, "resolved": told["resolved"]}) + "\n",
        "eval_outputs/report.json": json.dumps({instance_id: entry}, indent=4),
        f"{evals}/report.json": json.dumps({instance_id: entry}, indent=4),
        f"{evals}/patch.diff": diff,
        f"{evals}/test_output.txt": log[:50_000],
        f"{evals}/run_instance.log": "=== Evaluation Run Log ===\n",
        f"{evals}/eval.sh": "#!/bin/bash\npytest -rA\n",
        **(files or {}),
    }
    for name, body in written.items():
        if body is not None:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body)
    return directory
