"""The demo's eval is real: each recorded patch gives what the demo says it gives, and the outputs are complete."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.demo.scenario import STORY, pytest_places
from fleet.inventory.pipelines import Pipelines
from fleet.model.dataset import read_dataset
from fleet.model.verdict import Outcome, Severity
from fleet.quality import Expected, judge

FOLDER = Pipelines().folder("demo")
COMPLETE = ["output.jsonl", "metadata.json", "eval_pilot2_output.jsonl", "eval_outputs/report.json"]
PER_INSTANCE = ["report.json", "patch.diff", "test_output.txt"]


def evaluate(home: Path, instance: str, model: str, **env: str) -> Path:
    output, dataset = home / "out", FOLDER / "datasets" / f"{instance}.json"
    subprocess.run(
        [sys.executable, "-B", str(FOLDER / "run_eval.py"), str(dataset), model, "1", str(output)],
        cwd=home, check=True, timeout=60, capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "DEMO_PYTEST": pytest_places(), **env},
    )  # fmt: skip
    return output


def expected(instance: str, model: str) -> Expected:
    dataset = read_dataset((FOLDER / "datasets" / f"{instance}.json").read_bytes(), instance)
    return Expected(instance_id=instance, model=model, fail_to_pass=dataset.fail_to_pass, pass_to_pass=dataset.pass_to_pass)


def record(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(path.read_text())
    return row


@pytest.mark.parametrize("light", [False, True], ids=["pytest", "light"])
@pytest.mark.parametrize(
    ("instance", "model", "f2p", "p2p", "resolved"),
    [
        ("spans-17", "demo-strong", (3, 0), (5, 0), True),
        ("spans-23", "demo-strong", (3, 0), (14, 0), True),
        ("spans-31", "demo-strong", (3, 0), (22, 0), True),
        ("spans-17", "demo-weak", (1, 2), (5, 0), False),
        ("spans-31", "demo-weak", (3, 0), (18, 4), False),
    ],
)
def test_a_recorded_patch_gives_what_the_tests_say(
    tmp_path: Path, instance: str, model: str, f2p: tuple[int, int], p2p: tuple[int, int], resolved: bool, light: bool
) -> None:
    output = evaluate(tmp_path, instance, model, **({"DEMO_LIGHT": "0.01"} if light else {}))
    details = record(output / "eval_pilot2_output.jsonl")["pilot2_eval_details"]
    assert details["error_message"] == ""
    assert (len(details["fail_to_pass_success"]), len(details["fail_to_pass_failed"])) == f2p
    assert (len(details["pass_to_pass_success"]), len(details["pass_to_pass_failed"])) == p2p
    assert details["resolved"] is resolved
    report = record(output / "eval_outputs" / "report.json")
    assert report == record(output / "eval_outputs" / instance / "report.json")
    assert report[instance]["resolved"] is resolved
    assert all((output / name).stat().st_size for name in COMPLETE)
    assert all((output / "eval_outputs" / instance / name).stat().st_size for name in PER_INSTANCE)
    assert len(list((output / "llm_completions" / instance).glob("*.json"))) == 1
    first = record(output / "output.jsonl")
    assert first["test_result"]["git_patch"] == (output / "eval_outputs" / instance / "patch.diff").read_text()
    assert 20 <= len(first["history"]) <= 200
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the scratch directory stays behind"
    verdict = judge(output, expected(instance, model), Pipelines().get("demo").quality)
    small = instance == "spans-31" and model == "demo-strong"
    assert (verdict.verdict, [reason.code for reason in verdict.reasons if reason.severity is not Severity.INFO]) == (
        (Outcome.FLAGGED, ["patch-small"]) if small else (Outcome.ACCEPTED, [])
    )
    assert verdict.facts.resolved is resolved


def test_an_empty_answer_ends_with_exit_0_and_no_evaluation(tmp_path: Path) -> None:
    output = evaluate(tmp_path, "spans-23", "demo-weak")
    assert record(output / "output.jsonl")["test_result"]["git_patch"] == ""
    assert len(record(output / "output.jsonl")["history"]) >= 20
    assert not (output / "eval_pilot2_output.jsonl").exists()
    assert not (output / "eval_outputs").exists()
    verdict = judge(output, expected("spans-23", "demo-weak"), Pipelines().get("demo").quality)
    assert verdict.verdict is Outcome.REJECTED
    assert "patch-missing" in {reason.code for reason in verdict.reasons}


def test_the_trajectory_holds_what_was_really_run(tmp_path: Path) -> None:
    history = record(evaluate(tmp_path, "spans-17", "demo-strong") / "output.jsonl")["history"]
    ran = {event["extras"]["command"]: event for event in history if event.get("observation") == "run"}
    assert all(event["extras"]["metadata"]["exit_code"] == 0 for event in ran.values())
    log = ran["git log --oneline"]["content"]
    assert log.endswith("Merge, total and gaps of intervals\n")
    tests = next(event["content"] for command, event in ran.items() if "-m pytest" in command)
    assert "5 passed" in tests


def test_the_datasets_are_what_fleet_reads() -> None:
    for name in ("spans-17", "spans-23", "spans-31"):
        dataset = read_dataset((FOLDER / "datasets" / f"{name}.json").read_bytes(), name)
        assert dataset.instance_id == name
        assert dataset.fail_to_pass
        assert not set(dataset.fail_to_pass) & set(dataset.pass_to_pass)


def test_the_gold_patch_is_the_strong_models_answer() -> None:
    for name in ("spans-17", "spans-23", "spans-31"):
        gold = json.loads((FOLDER / "datasets" / f"{name}.json").read_text())["patch"]
        assert (FOLDER / "patches" / "demo-strong" / f"{name}.diff").read_text() == gold


def test_every_file_of_the_eval_is_shipped() -> None:
    here = {str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    own = {name for name in here if not name.startswith("datasets/")} - {"pipeline.yaml", "README.md"}
    assert set(Pipelines().get("demo").ship) == own


def test_the_story_uses_every_recorded_answer() -> None:
    told = {(task.instance_id, task.model) for task in STORY}
    recorded = {(path.stem, path.parent.name) for path in (FOLDER / "patches").glob("*/*.diff")}
    assert told == recorded | {("spans-23", "demo-weak")}
