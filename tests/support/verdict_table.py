"""The fixture table of the verdict rules: for every code what makes it speak, and what is nearly the same without reason to."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from fleet.model.verdict import Cause, Severity
from tests.support.results import F2P, INSTANCE, P2P, TOUCHED, make_log, make_patch

INFO, WARN, REJECT = Severity.INFO, Severity.WARN, Severity.REJECT
EVALS = f"eval_outputs/{INSTANCE}"
LOG = f"{EVALS}/test_output.txt"
CUT_OFF = '{"instance_id": "' + INSTANCE + '", "history": [{'
NOTHING_RAN = {"tests_passed": 0, "tests_failed": 0, "tests_error": 0}
UNRESOLVED = {"resolved": False, "fail_to_pass_success": [], "fail_to_pass_failed": list(F2P)}
SYNTAX_ERROR = f"""============================= test session starts ==============================
collected 0 items / 1 error

==================================== ERRORS ====================================
____________________ ERROR collecting tests/test_parser.py _____________________
tests/test_parser.py:1: in <module>
    from src.parser import parse
E     File "/testbed/{TOUCHED}", line 2
E       def parse(text)
E                      ^
E   SyntaxError: expected ':'
=========================== short test summary info ============================
ERROR tests/test_parser.py
!!!!!!!!!!!!!!!!!!!! Interrupted: 1 error during collection !!!!!!!!!!!!!!!!!!!!
=============================== 1 error in 0.10s ===============================
"""
REPORTED_FAILED = {"FAIL_TO_PASS": {"success": [], "failure": list(F2P)}, "PASS_TO_PASS": {"success": list(P2P), "failure": []}}


def unresolved_log(log: str, **changes: Any) -> dict[str, Any]:
    """Return the changes that make a consistent unresolved result with this log."""
    counts = {**NOTHING_RAN, **changes}
    report = {"resolved": False, "tests_status": REPORTED_FAILED}
    return {
        "resolved": False,
        "details": {**UNRESOLVED, **counts},
        "report": report,
        "run_report": report,
        "test_output": log,
    }


def both(**details: Any) -> dict[str, Any]:
    """Return changes of the lists in the evaluation that both reports follow."""
    names = {
        "fail_to_pass_success": ("FAIL_TO_PASS", "success"),
        "fail_to_pass_failed": ("FAIL_TO_PASS", "failure"),
        "pass_to_pass_success": ("PASS_TO_PASS", "success"),
        "pass_to_pass_failed": ("PASS_TO_PASS", "failure"),
    }
    status: dict[str, dict[str, Any]] = {
        "FAIL_TO_PASS": {"success": list(F2P), "failure": []},
        "PASS_TO_PASS": {"success": list(P2P), "failure": []},
    }
    for name, value in details.items():
        if name in names:
            outer, inner = names[name]
            status[outer][inner] = value
    return {"details": details, "report": {"tests_status": status}, "run_report": {"tests_status": status}}


class Row(NamedTuple):
    """One fixture: `speaks` are the changes that make the rule speak, `silent` nearly the same without reason to."""

    code: str
    severity: Severity
    speaks: dict[str, Any]
    silent: dict[str, Any] = {}  # noqa: RUF012 - read only
    cause: Cause | None = None
    measured: Any = None


def lacking(name: str) -> dict[str, Any]:
    """Return the changes that take one file away."""
    return {"files": {name: None}}


def error_row(text: str, cause: Cause, measured: str, *, good: bool = False) -> Row:
    """Return a row for an agent error with a good or without a good patch."""
    patch = {} if good else {"patch": "x" * 150}
    return Row("agent-error", WARN if good else REJECT, {"error": text, **patch}, {"error": ""}, cause, measured)


TABLE = [
    Row("output-missing", REJECT, lacking("output.jsonl"), {}, Cause.HARNESS),
    Row("output-empty", REJECT, {"files": {"output.jsonl": ""}}, {}, Cause.HARNESS, 0),
    Row("output-empty", REJECT, {"files": {"output.jsonl": "\n\r\n"}}, {"files": {}}),
    Row("output-malformed", REJECT, {"files": {"output.jsonl": CUT_OFF}}, {}, Cause.HARNESS),
    Row("output-malformed", REJECT, {"files": {"output.jsonl": "[1, 2]\n"}}, {"row": {"extra": [1, 2]}}),
    Row("output-malformed", REJECT, {"row": {"metrics": {"accumulated_cost": float("nan")}}}, {"row": {"metrics": None}}),
    Row(
        "instance-mismatch", REJECT, {"row": {"instance_id": ...}}, {"row": {"instance_id": ..., "id": INSTANCE}}, Cause.HARNESS
    ),
    Row("instance-mismatch", REJECT, {"row": {"instance_id": ""}}, {"row": {"instance_id": int(INSTANCE)}}),
    Row("instance-mismatch", REJECT, {"row": {"instance_id": "77"}}, {}),
    Row("instance-mismatch", REJECT, {"row": {"instance_id": ["77"]}}, {}),
    Row("instance-mismatch", REJECT, {"row": {"instance_id": True}}, {}),
    Row("instance-mismatch", REJECT, {"row": {"instance": {"instance_id": "77"}}}, {"row": {"instance": {}}}),
    Row("instance-mismatch", REJECT, {"evaluation": {"instance_id": "77"}}, {}),
    Row("instance-mismatch", REJECT, {"details": {"instance_id": "77"}}, {"details": {"instance_id": ...}}),
    Row("instance-mismatch", REJECT, {"files": {f"{EVALS}/report.json": json.dumps({"77": {"resolved": True}})}}, {}),
    Row("patch-missing", REJECT, {"row": {"test_result": {}}}, {}, Cause.MODEL),
    Row(
        "patch-missing",
        REJECT,
        {"row": {"test_result": {"git_patch": None}}},
        {"row": {"test_result": None, "git_patch": make_patch()}},
    ),
    Row("patch-missing", REJECT, {"row": {"test_result": {"git_patch": ["x"]}}}, {}),
    Row("patch-missing", REJECT, {"patch": " \n"}, {}),
    Row("patch-too-small", REJECT, {"patch": "x" * 99}, {"patch": "x" * 100}, Cause.MODEL, 99),
    Row("patch-small", WARN, {"patch": make_patch(1023)}, {"patch": make_patch(1024)}, None, 1023),
    Row("patch-small", WARN, {"patch": "x" * 100}, {"patch": "x" * 99}, Cause.MODEL, 100),
    Row("patch-large", WARN, {"patch": make_patch(102_401)}, {"patch": make_patch(102_400)}, None, 102_401),
    Row(
        "patch-malformed",
        WARN,
        {"patch": make_patch().replace("@@ -1,2", "@@ -1,3")},
        {"patch": make_patch()[:-1]},
        Cause.MODEL,
    ),
    Row("patch-malformed", WARN, {"patch": "no diff at all " * 100}, {"patch": make_patch(path="a b/ü.py")}),
    Row("history-missing", REJECT, {"row": {"history": ...}}, {}, Cause.HARNESS),
    Row("history-missing", REJECT, {"history": []}, {"history": 1}, Cause.HARNESS, 0),
    Row("history-missing", REJECT, {"history": {"events": []}}, {}),
    Row("history-short", WARN, {"history": 19}, {"history": 20}, None, 19),
    Row("history-long", WARN, {"history": 201}, {"history": 200}, None, 201),
    error_row("litellm.AuthenticationError: invalid x-api-key", Cause.PROVIDER, "provider"),
    error_row("litellm.RateLimitError: Error code: 429", Cause.PROVIDER, "provider"),
    error_row("litellm.InternalServerError: status code 503", Cause.PROVIDER, "provider", good=True),
    error_row("Agent reached maximum iteration. Current iteration: 500, max iteration: 500", Cause.MODEL, "limit", good=True),
    error_row("LLM budget exceeded: 5.00 USD", Cause.MODEL, "limit"),
    error_row(
        "openhands.core.exceptions.AgentRuntimeBuildError: Docker image build failed", Cause.ENVIRONMENT, "runtime-build"
    ),
    error_row("AgentRuntimeBuildError: docker buildx build returned 1", Cause.OPERATOR, "runtime-build"),
    error_row("HTTPError: 500 Server Error for url: http://localhost:35123/execute_action", Cause.ENVIRONMENT, "runtime"),
    error_row("openai.BadRequestError: prompt is too long: 210000 tokens", Cause.MODEL, "limit"),
    error_row("AgentStuckInLoopError: Agent got stuck in a loop", Cause.MODEL, "limit"),
    error_row("KeyError: 'tool_calls'", Cause.HARNESS, "other"),
    Row("metadata-missing", WARN, lacking("metadata.json"), {"files": {"metadata.json": "{}"}}),
    Row("metadata-missing", WARN, {"files": {"metadata.json": "[]"}}, {}),
    Row("completions-missing", WARN, lacking(f"llm_completions/{INSTANCE}/gpt-1.json"), {}),
    Row("eval-missing", REJECT, lacking("eval_pilot2_output.jsonl"), {}, Cause.HARNESS),
    Row("eval-malformed", REJECT, {"files": {"eval_pilot2_output.jsonl": ""}}, {}, Cause.HARNESS),
    Row("eval-malformed", REJECT, {"files": {"eval_pilot2_output.jsonl": "{"}}, {}),
    Row("eval-malformed", REJECT, {"evaluation": {"pilot2_eval_details": ...}}, {"evaluation": {"resolved": ...}}),
    Row("eval-malformed", REJECT, {"details": {"failed_apply_patch": "no"}}, {"details": {"failed_apply_patch": None}}),
    Row("eval-malformed", REJECT, {"details": {"tests_passed": "5"}}, {"details": {"tests_passed": 5.0}}),
    Row("report-missing", REJECT, lacking(f"{EVALS}/report.json"), {}, Cause.HARNESS),
    Row("report-missing", REJECT, {"files": {f"{EVALS}/report.json": "{}"}}, {}),
    Row("report-missing", REJECT, {"files": {f"{EVALS}/report.json": "not json"}}, {}),
    Row("report-missing", INFO, lacking("eval_outputs/report.json"), {}),
    Row("patch-diff-missing", REJECT, lacking(f"{EVALS}/patch.diff"), {}, Cause.HARNESS),
    Row("test-output-missing", REJECT, lacking(LOG), {}, Cause.HARNESS),
    Row("test-output-empty", REJECT, {"files": {LOG: " \n"}}, {}, Cause.HARNESS),
    Row(
        "no-tests-executed", REJECT, {"details": NOTHING_RAN}, {"details": {**NOTHING_RAN, "tests_passed": 1}}, Cause.HARNESS, 0
    ),
    Row(
        "no-tests-executed", REJECT, unresolved_log("collected 0 items\n\n=== no tests ran in 0.01s ===\n"), {"resolved": False}
    ),
    Row("no-tests-executed", INFO, unresolved_log(SYNTAX_ERROR, tests_error=1), {}, Cause.MODEL),
    Row("model-broke-tests", INFO, unresolved_log(SYNTAX_ERROR, tests_error=1), {}, Cause.MODEL),
    Row(
        "model-broke-tests",
        INFO,
        unresolved_log(SYNTAX_ERROR),
        unresolved_log(SYNTAX_ERROR.replace(TOUCHED, "src/other.py")),
        Cause.MODEL,
    ),
    Row(
        "environment-broken",
        REJECT,
        unresolved_log("bash: pytest: command not found\n"),
        {},
        Cause.ENVIRONMENT,
        "command-not-found",
    ),
    Row(
        "environment-broken", REJECT, unresolved_log("python: can't open file '/x': [Errno 2] No such file or directory\n"), {}
    ),
    Row(
        "environment-broken",
        REJECT,
        unresolved_log("Unable to find image 'sweb.eval:latest' locally\n"),
        {},
        None,
        "missing-image",
    ),
    Row(
        "environment-broken",
        REJECT,
        unresolved_log("ImportError: libGL.so.1: cannot open shared object file: No such file or directory\n"),
        {},
        None,
        "shared-library",
    ),
    Row("environment-broken", REJECT, unresolved_log("OSError: [Errno 28] No space left on device\n"), {}, None, "no-space"),
    Row("environment-broken", REJECT, unresolved_log("tests/test_parser.py ..\nKilled\n"), {}, None, "killed"),
    Row(
        "environment-broken",
        REJECT,
        unresolved_log(make_log(P2P) + "/eval.sh: line 9: tox: command not found\n", tests_passed=3),
        unresolved_log(make_log(P2P, F2P) + "/eval.sh: line 9: tox: command not found\n", tests_passed=3, tests_failed=2),
        Cause.ENVIRONMENT,
    ),
    Row("eval-error", REJECT, {"details": {"error_eval": True}}, {"details": {"error_eval": None}}, Cause.HARNESS),
    Row("test-patch-failed", REJECT, {"details": {"failed_apply_test_patch": True}}, {}, Cause.HARNESS),
    Row("test-timeout", WARN, {"details": {"test_timeout": True}}, {}),
    Row(
        "patch-not-applied",
        WARN,
        {
            "resolved": False,
            "details": {"failed_apply_patch": True},
            "report": {"patch_successfully_applied": False},
            "run_report": {"patch_successfully_applied": False},
        },
        {},
        Cause.MODEL,
    ),
    Row("f2p-empty", REJECT, {"resolved": False, "f2p": ()}, {}, Cause.HARNESS),
    Row("f2p-empty", REJECT, both(fail_to_pass_success=[], resolved=False), {}),
    Row("p2p-empty", WARN, {"p2p": ()}, {}),
    Row(
        "resolved-unsupported",
        REJECT,
        both(fail_to_pass_success=[F2P[0]], fail_to_pass_failed=[F2P[1]]),
        {"resolved": False},
        Cause.HARNESS,
    ),
    Row("resolved-unsupported", REJECT, both(fail_to_pass_success=[F2P[0]]), {}),
    Row("resolved-unsupported", REJECT, both(fail_to_pass_success=[]), {}),
    Row("resolved-unsupported", REJECT, both(pass_to_pass_success=list(P2P[1:]), pass_to_pass_failed=[P2P[0]]), {}),
    Row(
        "resolved-unsupported",
        REJECT,
        {"test_output": make_log([*P2P, F2P[0]], [F2P[1]])},
        {"test_output": make_log([*P2P, *F2P])},
    ),
    Row("resolved-unsupported", REJECT, {"test_output": make_log([*P2P, F2P[0]])}, {}),
    Row("report-disagrees", REJECT, {"report": {"resolved": False}}, {}, Cause.HARNESS),
    Row("report-disagrees", REJECT, {"run_report": {"resolved": False}}, {}),
    Row("report-disagrees", REJECT, {"details": {"resolved": False}}, {"details": {"resolved": ...}}),
    Row("report-disagrees", REJECT, {"details": {"pass_to_pass_success": list(P2P[1:])}}, {"report": {"tests_status": {}}}),
    Row(
        "report-disagrees",
        REJECT,
        {"report": {"patch_successfully_applied": False}},
        {"report": {"patch_successfully_applied": ...}},
    ),
    Row(
        "report-disagrees",
        INFO,
        {
            "details": {"resolved": False},
            "evaluation": {"resolved": False},
            "report": {"resolved": False},
            "run_report": {"resolved": False},
        },
        {},
    ),
    Row(
        "patch-disagrees",
        REJECT,
        {"files": {f"{EVALS}/patch.diff": make_patch(1501)}},
        {"files": {f"{EVALS}/patch.diff": make_patch() + "\n"}},
    ),
    Row(
        "patch-disagrees",
        REJECT,
        {"evaluation": {"test_result": {"git_patch": make_patch(1501)}}},
        {"evaluation": {"test_result": {}}},
    ),
    Row("patch-disagrees", REJECT, {"row": {"git_patch": make_patch(1501)}}, {"row": {"git_patch": make_patch()}}),
    Row("log-disagrees", WARN, {"test_output": make_log([*F2P, *P2P[1:]], [P2P[0]])}, {}),
    Row("log-disagrees", WARN, {"resolved": False, "test_output": make_log([*F2P, *P2P])}, {"resolved": False}, Cause.HARNESS),
    Row(
        "log-disagrees",
        WARN,
        {"test_output": make_log(["tests/other.py::test_a"])},
        {"test_output": "unknown runner: test_empty_input ok\n"},
    ),
    Row(
        "dataset-disagrees",
        WARN,
        {"row": {"instance": {"FAIL_TO_PASS": [*F2P[:1]]}}},
        {"row": {"instance": None}},
        Cause.OPERATOR,
    ),
    Row("dataset-disagrees", WARN, {"row": {"instance": {"PASS_TO_PASS": "['x::y']"}}}, {}),
    Row(
        "dataset-disagrees",
        WARN,
        {"row": {"instance": None}, "provenance": {"dataset": {"fail_to_pass": [*F2P, "t::n"]}}, "resolved": False},
        {},
    ),
]
