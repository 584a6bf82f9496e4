"""Results as the users' evaluation script writes them: what is valid stays valid, and what it only guessed is found out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause, Outcome, Verdict
from fleet.quality import judge
from tests.support.evaluated import NO_CONDA, evaluated
from tests.support.results import F2P, INSTANCE, P2P, make_log, make_patch

ACCEPTED, FLAGGED, REJECTED = Outcome.ACCEPTED, Outcome.FLAGGED, Outcome.REJECTED
DIFF = f"eval_outputs/{INSTANCE}/patch.diff"
GOOD = make_log([*P2P, *F2P])
START = "============================= test session starts ==============================\nrootdir: /testbed\n"


def judged(directory: Path) -> Verdict:
    return judge(directory, None, Quality())


def codes(verdict: Verdict) -> list[str]:
    return [reason.code for reason in verdict.reasons]


CR_LF = make_patch().replace("\n", "\r\n")
TALK = "git diff --no-color --cached 895f28f9\n0\n"
PICTURE = "diff --git a/x.png b/x.png\nnew file mode 100644\nindex 000..111\nBinary files /dev/null and b/x.png differ\n"
BLOB = "diff --git a/x.bin b/x.bin\nnew file mode 100644\nGIT binary patch\nliteral 3\nKcmZQzU|?WiVq{\n\n"
NOTE = "diff --git a/exit_code b/exit_code\nnew file mode 100644\n--- /dev/null\n+++ b/exit_code\n@@ -0,0 +1 @@\n+0\n"
# The agent's patch, the one that was evaluated, and whether they are the same.
PATCHES: dict[str, tuple[str, str, Outcome]] = {
    "no newline at the end": (make_patch(), make_patch().rstrip("\n"), ACCEPTED),
    "blanks at the end": (make_patch() + "\n  \n", make_patch(), ACCEPTED),
    "line ends": (make_patch(), CR_LF, ACCEPTED),
    "talk before it": (TALK + make_patch(), make_patch(), ACCEPTED),
    "a picture left out": (PICTURE + make_patch(), make_patch(), ACCEPTED),
    "a blob left out": (make_patch() + BLOB, make_patch(), ACCEPTED),
    "a text file left out": (make_patch() + NOTE, make_patch(), REJECTED),
    "cut off": (make_patch(), make_patch()[:900], REJECTED),
    "nothing": (make_patch(), "", REJECTED),
    "nothing but a picture": (PICTURE * 20, "", REJECTED),
    "another": (make_patch(), make_patch(1501), REJECTED),
}


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_that_the_harness_tidied_up_is_the_same_patch(name: str, tmp_path: Path) -> None:
    mine, theirs, outcome = PATCHES[name]
    verdict = judged(evaluated(tmp_path, GOOD, patch=mine, files={DIFF: theirs}))
    assert (verdict.verdict is REJECTED) is (outcome is REJECTED), verdict.reasons
    assert [reason.severity for reason in verdict.reasons if reason.code == "patch-disagrees"] == {
        "a picture left out": ["info"], "a blob left out": ["info"],
    }.get(name, ["reject"] if outcome is REJECTED else [])  # fmt: skip


SKIPPED = (
    START
    + "".join(f"{test} PASSED\n" for test in [*P2P, F2P[0]])
    + f"{F2P[1]} SKIPPED (no net)\n= 4 passed, 1 skipped in 1s =\n"
)
CLAIM = {"resolved": True, "fail_to_pass_success": list(F2P), "fail_to_pass_failed": []}
SUBSTRING = make_log(["tests/a.py::test_one_more", "tests/a.py::test_p"], ["tests/a.py::test_one"])
# Log, what is laid over the evaluation, the verdict, and codes that must be there.
CLAIMS: dict[str, tuple[str, dict[str, Any], Outcome, tuple[str, ...]]] = {
    "all there": (GOOD, {}, ACCEPTED, ()),
    "a shell's complaint behind it": (GOOD + NO_CONDA, {}, ACCEPTED, ()),
    "resolved withheld for that": (GOOD + NO_CONDA, {"details": {"resolved": False}}, ACCEPTED, ("report-disagrees",)),
    "missing taken for passed": (make_log([*P2P, F2P[0]]), {"assumes": True}, REJECTED, ("resolved-unsupported",)),
    "missing, and a shell's complaint": (make_log(P2P) + NO_CONDA, {}, FLAGGED, ("log-disagrees",)),
    "skipped taken for passed": (SKIPPED, {"details": CLAIM}, REJECTED, ("resolved-unsupported", "log-disagrees")),
    "matched by a part of its name": (
        SUBSTRING,
        {"f2p": ["tests/a.py::test_one"], "p2p": ["tests/a.py::test_p"]},
        REJECTED,
        ("resolved-unsupported",),
    ),
    "another key for the details": (GOOD, {"key": "evaluation_details"}, ACCEPTED, ()),
    "time is up": (
        "Command timed out after 600 seconds",
        {"details": {"test_timeout": True}},
        REJECTED,
        ("no-tests-executed", "test-timeout"),
    ),
    "a patch that may not have applied": (
        GOOD,
        {"files": {f"eval_outputs/{INSTANCE}/run_instance.log": "WARNING - Patch application may have failed\n"}},
        FLAGGED,
        ("patch-not-applied",),
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_is_held_against_its_log(name: str, tmp_path: Path) -> None:
    log, over, outcome, wanted = CLAIMS[name]
    verdict = judged(evaluated(tmp_path, log, **over))
    assert verdict.verdict is outcome, verdict.reasons
    assert set(wanted) <= set(codes(verdict))
    assert "environment-broken" not in codes(verdict)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("Failed to start container", Cause.ENVIRONMENT),
        ("[Errno 28] No space left on device", Cause.ENVIRONMENT),
        ("Command '['docker', 'cp', '/tmp/a', 'b:/tmp/a']' timed out after 30 seconds", Cause.ENVIRONMENT),
        ("Expecting value: line 1 column 1 (char 0)", Cause.HARNESS),
    ],
)
def test_an_evaluation_that_failed_itself_says_why(message: str, cause: Cause, tmp_path: Path) -> None:
    verdict = judged(evaluated(tmp_path, "", details={"error_eval": True, "error_message": message}))
    assert codes(verdict)[0] == "eval-error"
    assert verdict.cause is cause


def test_the_sdks_row_names_its_model_and_its_events(tmp_path: Path) -> None:
    events = [{"kind": kind, "source": "agent"} for _ in range(15) for kind in ("ActionEvent", "ObservationEvent")]
    row = {"history": events, "metadata": {"llm": {"model": "lab/m-1"}, "dataset": "d"}, "attempt": 1, "runtime_runs": None}
    verdict = judged(evaluated(tmp_path, GOOD, row=row, files={"metadata.json": '{"llm": {"model": "lab/m-1"}}'}))
    assert (verdict.verdict, verdict.model, verdict.facts.history_entries) == (ACCEPTED, "lab/m-1", 30)
