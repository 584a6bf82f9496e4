"""What is typed almost right: the answer names what was probably meant, as a command that can be typed as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.dispatch.answers.find import find_task
from fleet.dispatch.resolve import resolve_assignment
from fleet.errors import InputError
from fleet.inventory import Inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.hosts import Defaults
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
