"""`fleet validate-task` says why a task cannot be graded: flaky, broken before, an environment that cannot be made."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.lite import write_task
from tests.support.operator import Operator

pytestmark = pytest.mark.timeout(600)
PROJECT = {
    "thing.py": "def double(x):\n    return x\n",
    "test_thing.py": (
        "import thing\n\n\ndef test_double():\n    assert thing.double(2) == 4\n\n\n"
        "def test_zero():\n    assert thing.double(0) == 0\n"
    ),
    "test_broken.py": "def test_broken():\n    assert False\n",
    "test_coins.py": (
        "import os\n\nimport pytest\n\n\n"
        "@pytest.mark.parametrize('n', range(24))\ndef test_coin(n):\n    assert os.urandom(1)[0] % 2\n"
    ),
}
GOLD = "--- a/thing.py\n+++ b/thing.py\n@@ -1,2 +1,2 @@\n def double(x):\n-    return x\n+    return 2 * x\n"


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path, tmp_path / "hosts.yaml", {"LITE_CACHE": str(tmp_path / "cache")})


@pytest.fixture
def repository(tmp_path: Path) -> tuple[str, str]:
    directory = tmp_path / "project"
    directory.mkdir()
    for name, body in PROJECT.items():
        (directory / name).write_text(body)
    words = "git init -q . && git add -A && git -c user.name=t -c user.email=t@localhost commit -qm one && git rev-parse HEAD"
    done = subprocess.run(["sh", "-c", words], cwd=directory, check=True, timeout=20, capture_output=True, text=True)
    return str(directory), done.stdout.strip()


def row(repository: tuple[str, str], name: str, **more: Any) -> dict[str, Any]:
    task = {"task_id": name, "repo": repository[0], "ref": repository[1], "install_project": False, "patch": GOLD}
    return {**task, "FAIL_TO_PASS": ["test_thing.py::test_double"], "PASS_TO_PASS": ["test_thing.py::test_zero"], **more}


def test_each_reason_why_a_task_cannot_be_graded_is_told_by_name(operator: Operator, repository: tuple[str, str]) -> None:
    coins = [f"test_coins.py::test_coin[{number}]" for number in range(24)]
    rows = [
        row(repository, "good"),
        row(repository, "flaky", FAIL_TO_PASS=coins),
        row(repository, "broken", PASS_TO_PASS=["test_broken.py::test_broken"]),
        row(repository, "solved", FAIL_TO_PASS=["test_thing.py::test_zero"], PASS_TO_PASS=[]),
        row(repository, "moved", patch=GOLD.replace("return x", "return y")),
        row(repository, "nowhere", ref="0" * 40),
    ]
    paths = [write_task(operator.directory / f"{one['task_id']}.json", one) for one in rows]
    said = operator.run("validate-task", *paths, "--sandbox", "venv", "--times", "2", "--json")
    assert said.code == 2
    found = {one["task_id"]: one for one in said.json["tasks"]}
    assert found["good"]["gradable"] and found["good"]["runs"] == 2
    reasons = {name: one["reason"] for name, one in found.items()}
    assert reasons["flaky"] == "flaky: 2 runs disagree"
    assert set(found["flaky"]["tests"]) <= set(coins)
    assert (reasons["broken"], found["broken"]["tests"]) == (
        "PASS_TO_PASS fails without the patch", ["test_broken.py::test_broken"],
    )  # fmt: skip
    assert reasons["solved"] == "FAIL_TO_PASS passes without the patch"
    assert "stage" in reasons["moved"] and "patch" in reasons["moved"]
    assert "error in stage clone" in reasons["nowhere"]
    page = operator.run("validate-task", paths[2], "--sandbox", "venv")
    assert page.out.splitlines() == [f"✗ broken: {reasons['broken']}", "    test_broken.py::test_broken"]
