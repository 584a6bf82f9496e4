"""The openhands pipeline and the example assignment are what the users' hosts and harness expect."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fleet.inventory.pipelines import Pipelines
from fleet.model.assignment import read_assignment
from fleet.model.dataset import read_dataset
from fleet.model.pipeline import fill
from tests.support import harness

ROOT = Path(__file__).resolve().parent.parent
OPENHANDS = Pipelines([ROOT / "remote_scripts"]).get("openhands")


def test_the_command_is_the_users_script_with_its_five_arguments() -> None:
    values = {"model": "gpt", "dataset": "/d/x; rm -rf y.json", "eval_limit": "1", "max_iterations": "200", "num_workers": "1"}
    argv = [fill(item, values, "openhands") for item in OPENHANDS.command]
    assert argv == [f"./{harness.SCRIPT}", "llm.gpt", "/d/x; rm -rf y.json", "1", "200", "1"]


def test_the_stand_in_has_every_critical_file_where_the_pipeline_says() -> None:
    assert OPENHANDS.workdir == f"~/{harness.WORKDIR}"
    assert len(OPENHANDS.critical) == 4
    for file in OPENHANDS.critical:
        path = harness.HOME / harness.WORKDIR / file.path
        assert path.is_file()
        assert bool(path.stat().st_mode & 0o100) == file.executable


def test_outputs_are_looked_for_where_both_layouts_are() -> None:
    root = fill(OPENHANDS.outputs.root, {"workdir": "/w"}, "openhands")
    assert root == f"/w/{harness.OUTPUTS}"


def test_thresholds_are_the_documented_defaults() -> None:
    quality = OPENHANDS.quality
    assert (quality.min_patch_bytes, quality.small_patch_bytes, quality.large_patch_bytes) == (100, 1024, 102_400)
    assert (quality.min_history, quality.max_history, quality.severities) == (20, 200, {})


def test_the_example_assignment_is_the_seed_case_and_every_dataset_is_its_tasks() -> None:
    path = ROOT / "assignments" / "phase8.json"
    raw = path.read_bytes()
    assignment = read_assignment(raw, str(path), hashlib.sha256(raw).hexdigest())
    assert len(assignment.entries) == 8
    assert {place for place, _ in assignment.entries} == {"eval1", "eval2", "eval3", "eval4"}
    assert len({entry.model for _, entry in assignment.entries}) == 2
    for _, entry in assignment.entries:
        file = path.parent / entry.dataset_file
        dataset = read_dataset(file.read_bytes(), str(file))
        assert dataset.instance_id == entry.instance_id
        assert dataset.fail_to_pass
        assert dataset.pass_to_pass
        assert len(dataset.test_patches) == 1
