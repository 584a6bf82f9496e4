"""The demo's eval is real: each recorded patch gives what the demo says it gives, and the outputs are complete."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from fleet.checks.reference import shipped_files
from fleet.demo.scenario import DRIFT, DRIFTED, STORY, pytest_places
from fleet.inventory.pipelines import Pipelines
from fleet.model.dataset import read_dataset
from fleet.model.pipeline import fill
from fleet.model.verdict import Cause, Outcome, Severity
from fleet.quality import Expected, judge

FOLDER = Pipelines().folder("demo")
COMPLETE = ["output.jsonl", "metadata.json", "eval_pilot2_output.jsonl", "eval_outputs/report.json"]
PER_INSTANCE = ["report.json", "patch.diff", "test_output.txt"]


def evaluate(home: Path, instance: str, model: str) -> Path:
    """Run the command of pipeline.yaml as a host does, where everything is in one directory."""
    pipeline = Pipelines().get("demo")
    workdir, output = home / "work", home / "out"
    workdir.mkdir()
    for file in shipped_files(pipeline, FOLDER):
        (workdir / file.key).write_bytes(file.body)
    words = {"dataset": str(FOLDER / "datasets" / f"{instance}.json"), "model": model, "run": "1", "output_dir": str(output)}
    subprocess.run(
        [fill(word, words, "demo") for word in pipeline.command],
        cwd=workdir, check=True, timeout=60, capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LITE_PYTEST": pytest_places()},
    )  # fmt: skip
    return output


def expected(instance: str, model: str) -> Expected:
    dataset = read_dataset((FOLDER / "datasets" / f"{instance}.json").read_bytes(), instance)
    return Expected(instance_id=instance, model=model, fail_to_pass=dataset.fail_to_pass, pass_to_pass=dataset.pass_to_pass)


def record(path: Path) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(path.read_text())
    return row


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
    tmp_path: Path, instance: str, model: str, f2p: tuple[int, int], p2p: tuple[int, int], resolved: bool
) -> None:
    output = evaluate(tmp_path, instance, model)
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
    first = record(output / "output.jsonl")
    assert first["test_result"]["git_patch"] == (output / "eval_outputs" / instance / "patch.diff").read_text()
    assert first["metadata"]["sandbox"] == "venv"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "work", ".cache"}, "the scratch directory stays behind"
    verdict = judge(output, expected(instance, model), Pipelines().get("demo").quality)
    small = instance == "spans-31" and model == "demo-strong"
    assert (verdict.verdict, [reason.code for reason in verdict.reasons if reason.severity is not Severity.INFO]) == (
        (Outcome.FLAGGED, ["patch-small"]) if small else (Outcome.ACCEPTED, [])
    )
    assert verdict.facts.resolved is resolved


def test_an_empty_answer_is_refused_and_rejected(tmp_path: Path) -> None:
    output = evaluate(tmp_path, "spans-23", "demo-weak")
    assert record(output / "output.jsonl")["test_result"]["git_patch"] == ""
    report = record(output / "eval_outputs" / "report.json")["spans-23"]
    assert (report["patch_is_None"], report["resolved"]) == (True, False)
    verdict = judge(output, expected("spans-23", "demo-weak"), Pipelines().get("demo").quality)
    assert verdict.verdict is Outcome.REJECTED
    assert verdict.reasons[0].code == "patch-missing"
    assert verdict.cause is Cause.MODEL


def test_the_bug_is_there_without_the_patch(tmp_path: Path) -> None:
    output = evaluate(tmp_path, "spans-17", "demo-strong")
    (result,) = [record(path) for path in (output / "lite" / "runs").glob("*/result.json")]
    assert result["before"]["FAIL_TO_PASS"]["success"] == []
    assert result["before"]["PASS_TO_PASS"]["failure"] == []


def test_the_datasets_are_what_fleet_reads() -> None:
    for name in ("spans-17", "spans-23", "spans-31"):
        dataset = read_dataset((FOLDER / "datasets" / f"{name}.json").read_bytes(), name)
        assert dataset.instance_id == name
        assert dataset.fail_to_pass
        assert not set(dataset.fail_to_pass) & set(dataset.pass_to_pass)


def test_the_gold_patch_is_the_strong_models_answer() -> None:
    for name in ("spans-17", "spans-23", "spans-31"):
        row = json.loads((FOLDER / "datasets" / f"{name}.json").read_text())
        assert row["model_patches"]["demo-strong"] == row["patch"]


def test_both_pipelines_of_the_demo_run_the_files_of_swebench_lite_and_judge_alike() -> None:
    plain, docker, lite = (Pipelines().get(name) for name in ("demo", "demo_docker", "swebench_lite"))
    assert set(plain.ship) == set(docker.ship) == {*lite.ship, "spans.bundle"}
    assert {path.name for path in FOLDER.iterdir()} == {"pipeline.yaml", "README.md", "datasets", "spans.bundle"}
    assert plain.quality == docker.quality
    assert (plain.readiness.docker, docker.readiness.docker) == (False, True)
    assert docker.images == lite.images
    assert docker.busy == lite.busy


def test_the_readme_shows_the_file_that_differs_as_it_is() -> None:
    body = next(file.body for file in shipped_files(Pipelines().get("demo"), FOLDER) if file.key == DRIFTED)
    as_shipped, as_edited = (hashlib.sha256(one).hexdigest()[:12] for one in (body, body + DRIFT.encode()))
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    assert readme.count(f"~/.fleet/pipelines/demo/{DRIFTED} is {as_edited}, not {as_shipped}") == 2


def test_the_story_uses_every_recorded_answer() -> None:
    told = {(task.instance_id, task.model) for task in STORY}
    rows = [json.loads(path.read_text()) for path in (FOLDER / "datasets").glob("*.json")]
    recorded = {(row["instance_id"], model) for row in rows for model in row["model_patches"]}
    assert told == recorded | {("spans-23", "demo-weak")}
