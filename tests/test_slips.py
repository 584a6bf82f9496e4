"""What is typed almost right: the answer names what was probably meant, as a command that can be typed as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fleet.cli.main import run
from fleet.dispatch.answers.find import find_task
from fleet.dispatch.answers.why import why_host
from fleet.dispatch.resolve import resolve_assignment
from fleet.errors import InputError
from fleet.inventory import Inventory, load_inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.assignment import read_assignment
from fleet.model.dataset import read_dataset
from fleet.model.hosts import Defaults
from fleet.quality.environment import ENVIRONMENT
from tests.support.batches import Batch, task


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("phase8", "fleet dispatch {top}/assignments/phase8.json"),
        ("phase8.json", "fleet dispatch {top}/assignments/phase8.json"),
        ("assignments/phase.json", "fleet dispatch {top}/assignments/phase8.json"),
        ("nowhere/other.json", "fleet plan --datasets DIR --models NAME --out FILE"),
    ],
)
def test_an_assignment_that_is_not_there_is_answered_with_the_nearest_one(tmp_path: Path, typed: str, hint: str) -> None:
    (tmp_path / "assignments").mkdir()
    (tmp_path / "assignments/phase8.json").write_text("{}")
    with pytest.raises(InputError, match="No such file") as caught:
        resolve_assignment(tmp_path / typed, Inventory(tmp_path / "hosts.yaml", [], Defaults(), {}), Pipelines([]))
    assert caught.value.hint == hint.format(top=tmp_path)


def test_why_knows_that_a_slip_may_have_been_a_host() -> None:
    state = Batch([task("t1")]).ready().state
    with pytest.raises(InputError, match="no host or task evl1 in batch phase8, did you mean eval1"):
        find_task(state, "evl1", hosts=state.hosts)
    with pytest.raises(InputError, match=r"no task evl1 in batch phase8$"):
        find_task(state, "evl1")


def test_a_host_of_the_inventory_that_has_no_task_is_no_slip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Batch([task("t1")]).ready().write(tmp_path / "collected")
    (tmp_path / "hosts.yaml").write_text("hosts: {eval1: {address: 10.0.0.1}, eval9: {address: 10.0.0.9}}")
    monkeypatch.chdir(tmp_path)
    assert run(["why", "eval9"]) == 1
    assert capsys.readouterr().err == "error: batch phase8 has no task for eval9\n  → fleet check eval9\n"
    assert run(["why", "evl9"]) == 1
    assert "no host or task evl9" in capsys.readouterr().err


def test_a_host_is_named_once_in_what_is_said_of_it() -> None:
    state = Batch([task("t1")]).ready().unreachable("eval1", "eval1: port 22 refuses connections").state
    assert why_host(state, state.hosts["eval1"]).sentence.endswith(": port 22 refuses connections")
    assert state.tasks["t1/gpt/run1"].reason == "eval1: port 22 refuses connections"


def test_all_wrong_entries_of_an_assignment_are_named_at_once_with_where_to_read_on() -> None:
    good = {"instance_id": "a", "model": "gpt", "dataset_file": "a.json"}
    document = {"eval1": [good, {**good, "max_iteration": 3}], "eval2": [good, {"model": "gpt"}]}
    with pytest.raises(InputError) as caught:
        read_assignment(json.dumps(document).encode(), "x.json", "")
    assert caught.value.message.splitlines() == [
        "x.json: eval1[1]: unknown key max_iteration, did you mean 'max_iterations'?",
        "  x.json: eval2[0]: a/gpt/run1 is already assigned at eval1[0]",
        "  x.json: eval2[1]: missing key instance_id; missing key dataset_file",
    ]
    assert "docs/formats.md" in caught.value.hint


def test_a_file_that_is_no_dataset_or_inventory_says_where_the_format_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="instance_id is missing") as caught:
        read_dataset(b'{"eval1": []}', "phase8.json")
    assert "docs/formats.md" in caught.value.hint
    (tmp_path / "hosts.yaml").write_text("hosts:\n\teval1:\n")
    with pytest.raises(InputError, match=r"hosts.yaml:2:1") as wrong:
        load_inventory(tmp_path / "hosts.yaml")
    assert "docs/set-up-hosts.md" in wrong.value.hint


def test_what_repairs_an_environment_ends_in_a_command() -> None:
    assert [name for name, _, fix, *_ in ENVIRONMENT if not re.search(r"\b(?:fleet|docker) \w+", fix)] == []
