"""Result directories in the OpenHands layout, good by default, with a knob for everything that can be wrong."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

INSTANCE = "1319603449576684"
MODEL = "gpt"
F2P = ("tests/test_parser.py::test_empty_input", "tests/test_parser.py::test_quotes[a - b]")
P2P = ("tests/test_parser.py::test_words", "tests/test_parser.py::TestLines::test_one", "tests/test_lines.py::test_two[x y]")
TOUCHED = "src/parser.py"


def make_patch(size: int = 1500, path: str = TOUCHED) -> str:
    """Return a well-formed git diff of `path` with exactly `size` bytes (at least 200)."""
    head = f"diff --git a/{path} b/{path}\nindex 1111111..2222222 100644\n--- a/{path}\n+++ b/{path}\n"
    context = " def parse(text):\n"
    for lines in range(1, 100_000):
        hunk = f"@@ -1,2 +1,{2 + lines} @@\n{context}"
        tail = "     return text.split()\n"
        room = size - len(head) - len(hunk) - len(tail)
        if room <= 120 * lines:
            sizes = [room // lines + (1 if number < room % lines else 0) for number in range(lines)]
            return head + hunk + "".join("+    #" + "x" * (length - 7) + "\n" for length in sizes) + tail
    raise ValueError(size)


def make_history(entries: int = 60) -> list[dict[str, Any]]:
    """Return a history of event dicts."""
    return [{"id": number, "source": "agent", "action": "run", "args": {"command": "pytest"}} for number in range(entries)]


def make_log(passed: Sequence[str], failed: Sequence[str] = (), errors: Sequence[str] = ()) -> str:
    """Return what `pytest -rA` prints for these outcomes."""
    words = [(len(failed), "failed"), (len(passed), "passed"), (len(errors), "errors" if len(errors) != 1 else "error")]
    total = ", ".join(f"{number} {word}" for number, word in words if number) or "no tests ran"
    return "\n".join(
        [
            "============================= test session starts ==============================",
            "platform linux -- Python 3.11.7, pytest-8.3.4, pluggy-1.5.0",
            f"collected {len(passed) + len(failed) + len(errors)} items",
            "",
            "=========================== short test summary info ============================",
            *(f"PASSED {test}" for test in passed),
            *(f"ERROR {test} - RuntimeError: boom" for test in errors),
            *(f"FAILED {test} - AssertionError: assert 1 - 1 == 1" for test in failed),
            f"========================= {total} in 1.23s =========================",
            "",
        ]
    )


def build_result(
    directory: Path,
    instance_id: str = INSTANCE,
    model: str = MODEL,
    *,
    resolved: bool = True,
    f2p: Sequence[str] = F2P,
    p2p: Sequence[str] = P2P,
    patch: Any = None,
    history: Any = 60,
    error: Any = None,
    row: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    details: Mapping[str, Any] | None = None,
    report: Mapping[str, Any] | None = None,
    run_report: Mapping[str, Any] | None = None,
    test_output: str | None = None,
    files: Mapping[str, bytes | str | None] | None = None,
    provenance: Mapping[str, Any] | None = None,
    manifest: bool = False,
) -> Path:
    """Write a result that is accepted, changed by the given knobs, and return its directory.

    `row`, `evaluation`, `details`, `report` and `run_report` are laid over the records of output.jsonl,
    eval_pilot2_output.jsonl, its details and the two reports; a value of `...` takes a key away. `files` are written last,
    None removes one. `provenance` writes a fleet.json (laid over the task's), `manifest` a manifest.json of all files.
    """
    passed_f2p, failed_f2p = (tuple(f2p), ()) if resolved else (tuple(f2p[:-1]), tuple(f2p[-1:]))
    diff = make_patch() if patch is None else patch
    record = _laid_over(
        {
            "instance_id": instance_id,
            "test_result": {"git_patch": diff},
            "instruction": "Please fix the issue.",
            "metadata": {"agent_class": "CodeActAgent", "llm_config": {"model": model}, "max_iterations": 200},
            "history": make_history(history) if isinstance(history, int) else history,
            "metrics": {
                "accumulated_cost": 0.42,
                "accumulated_token_usage": {"prompt_tokens": 90_000, "completion_tokens": 4_000},
            },
            "error": error,
            "instance": {"instance_id": instance_id, "FAIL_TO_PASS": json.dumps(list(f2p)), "PASS_TO_PASS": list(p2p)},
        },
        row,
    )
    log = make_log([*p2p, *passed_f2p], failed_f2p) if test_output is None else test_output
    judged = _laid_over(
        {
            "instance_id": instance_id,
            "resolved": resolved,
            "failed_apply_patch": False,
            "failed_apply_test_patch": False,
            "error_eval": False,
            "test_timeout": False,
            "tests_passed": len(p2p) + len(passed_f2p),
            "tests_failed": len(failed_f2p),
            "tests_error": 0,
            "fail_to_pass_success": list(passed_f2p),
            "fail_to_pass_failed": list(failed_f2p),
            "pass_to_pass_success": list(p2p),
            "pass_to_pass_failed": [],
            "test_output": log[:50_000],
            "error_message": None,
        },
        details,
    )
    graded = _laid_over({**record, "resolved": resolved, "pilot2_eval_details": judged}, evaluation)
    entry = {
        "patch_is_None": False,
        "patch_exists": True,
        "patch_successfully_applied": True,
        "resolved": resolved,
        "tests_status": {
            "FAIL_TO_PASS": {"success": list(passed_f2p), "failure": list(failed_f2p)},
            "PASS_TO_PASS": {"success": list(p2p), "failure": []},
            "FAIL_TO_FAIL": {"success": [], "failure": []},
            "PASS_TO_FAIL": {"success": [], "failure": []},
        },
    }
    written: dict[str, bytes | str | None] = {
        "output.jsonl": json.dumps(record) + "\n",
        "metadata.json": json.dumps({"agent_class": "CodeActAgent", "llm_config": {"model": model}}),
        f"llm_completions/{instance_id}/gpt-1.json": json.dumps({"response": {}}),
        "eval_pilot2_output.jsonl": json.dumps(graded) + "\n",
        "eval_outputs/report.json": json.dumps({instance_id: _laid_over(entry, run_report)}),
        f"eval_outputs/{instance_id}/report.json": json.dumps({instance_id: _laid_over(entry, report)}),
        f"eval_outputs/{instance_id}/patch.diff": diff if isinstance(diff, str) else "",
        f"eval_outputs/{instance_id}/test_output.txt": log,
    }
    written.update(files or {})
    for name, body in written.items():
        if body is not None:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body)
    if manifest:
        write_manifest(directory)
    if provenance is not None:
        (directory / "fleet.json").write_text(json.dumps(_provenance(instance_id, model, f2p, p2p, provenance)))
    return directory


def write_manifest(directory: Path) -> None:
    """Write a manifest.json that knows every file below `directory`."""
    found = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "manifest.json")
    entries = [
        {
            "path": path.relative_to(directory).as_posix(),
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in found
    ]
    (directory / "manifest.json").write_text(json.dumps({"root": "/out", "files": entries}))


def _provenance(
    instance_id: str, model: str, f2p: Sequence[str], p2p: Sequence[str], over: Mapping[str, Any]
) -> dict[str, Any]:
    known = {
        "schema": "fleet.provenance/1",
        "task": {"instance_id": instance_id, "model": model, "run": 1, "task_name": ""},
        "host": "eval1",
        "dataset": {"sha256": "0" * 64, "fail_to_pass": list(f2p), "pass_to_pass": list(p2p)},
    }
    return _laid_over(known, over)


def _laid_over(base: Mapping[str, Any], over: Mapping[str, Any] | None) -> dict[str, Any]:
    merged = {**base, **(over or {})}
    return {key: value for key, value in merged.items() if value is not ...}
