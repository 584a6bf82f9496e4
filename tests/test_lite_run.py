"""swebench_lite on a real Docker engine and real releases: four statuses, each from evidence, and nothing left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.lite import (
    FLASK,
    FOLDER,
    SLOW_MACHINE,
    added,
    commit_all,
    containers,
    flask_task,
    lite,
    lite_cache,
    lite_image,
    local_task,
    orphans,
    result,
    verified_task,
    write_task,
)
from tests.support.operator import wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture
def run(docker: Engine, tmp_path: Path) -> Any:
    """Return a function that runs one task and returns its result."""

    def call(row: dict[str, Any], *words: str | Path) -> dict[str, Any]:
        return result(lite(docker, "run", write_task(tmp_path / "task.json", row), *words, cwd=tmp_path))

    return call


def patch_file(directory: Path, text: str) -> str:
    (directory / "given.diff").write_text(text)
    return f"--patch={directory / 'given.diff'}"


def replaced(path: str, old: str, new: str, at: int = 1) -> str:
    """Return a patch that replaces one line."""
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -{at} +{at} @@\n-{old}\n+{new}\n"


def test_without_a_patch_f2p_fails_and_with_the_gold_patch_the_task_is_resolved(run: Any, docker: Engine) -> None:
    null = run(flask_task(), "--null")
    assert (null["status"], null["resolved"]) == ("fail", False)
    assert null["tests"]["FAIL_TO_PASS"]["failure"] == ["tests/test_blueprints.py::test_empty_name_not_allowed"]
    assert null["tests"]["PASS_TO_PASS"]["failure"] == []
    gold = run(flask_task(), "--gold")
    assert (gold["status"], gold["resolved"], gold["patch"]["way"]) == ("pass", True, "git apply")
    assert len(gold["tests"]["PASS_TO_PASS"]["success"]) == 57
    assert gold["before"]["FAIL_TO_PASS"] == null["tests"]["FAIL_TO_PASS"]
    assert "FAILED tests/test_blueprints.py::test_empty_name_not_allowed" in gold["before"]["tail"]
    assert "FAILED" not in gold["tail"]
    assert gold["cached"] and "install" not in gold["stages"]
    assert gold["image_id"] == null["image_id"] == lite_image(docker)
    assert orphans(docker) == []
    kept = Path(gold["directory"])
    assert json.loads((kept / "result.json").read_text())["status"] == "pass"
    assert (kept / "pytest_tail.txt").read_text() == gold["tail"]
    assert (kept / "pytest_tail_before.txt").read_text() == gold["before"]["tail"]


def test_a_patch_that_does_not_apply_and_an_empty_one_are_two_things(run: Any, tmp_path: Path, docker: Engine) -> None:
    broken = run(flask_task(), patch_file(tmp_path, replaced("src/flask/blueprints.py", "not there", "x = 1")))
    assert (broken["status"], broken["stage"], broken["patch"]["state"]) == ("error", "patch", "unapplied")
    empty = run(flask_task(), patch_file(tmp_path, " \n"))
    assert (empty["status"], empty["patch"]["state"], empty["reason"]) == ("error", "refused", "patch refused: it is empty")
    own = flask_task()["test_patch"]
    tests = run(flask_task(), patch_file(tmp_path, own))
    assert tests["patch"]["state"] == "refused" and "tests/test_blueprints.py" in tests["reason"]
    assert broken["image_id"] == empty["image_id"] == lite_image(docker)


def test_a_test_that_hangs_is_ended_at_its_own_limit(run: Any, tmp_path: Path, docker: Engine) -> None:
    hang = added("src/flask/hang.py", "import time", "time.sleep(600)")
    hang += added("conftest.py", "import flask.hang")
    done = run(flask_task(timeouts={**SLOW_MACHINE, "tests": 1.5}), patch_file(tmp_path, hang))
    assert (done["status"], done["stage"], done["resolved"]) == ("timeout", "tests", None)
    assert 1.5 <= done["stages"]["tests"] < 10
    capped = run(flask_task(timeouts={**SLOW_MACHINE, "cap": 8}), patch_file(tmp_path, hang), "--no-before")
    assert (capped["status"], capped["stage"]) == ("timeout", "tests")
    assert capped["stages"]["tests"] < 8 and capped["before"] is None
    assert orphans(docker) == []


def test_words_in_the_output_decide_nothing(run: Any, tmp_path: Path) -> None:
    loud = added("conftest.py", "def pytest_unconfigure():", "    print('=== 99 passed in 0.1s ===')")
    done = run(flask_task(), patch_file(tmp_path, loud))
    assert "99 passed" in done["tail"]
    assert (done["status"], done["resolved"]) == ("fail", False)


def test_tests_have_no_network_and_only_the_given_commit(run: Any, tmp_path: Path) -> None:
    probe = added(
        "tests/test_probe.py",
        "import pathlib, socket, subprocess",
        "def test_alone():",
        "    assert [n for _, n in socket.if_nameindex()] == ['lo']",
        "def test_one_commit():",
        "    assert subprocess.run(['git', 'log', '--all', '--oneline'], capture_output=True).stdout.count(b'\\n') == 1",
    )
    row = {"task_id": "probe", "repo": "pypi:toolz==1.0.0", "tests": ["tests/test_probe.py"], "timeouts": SLOW_MACHINE}
    done = run(row, patch_file(tmp_path, probe))
    assert done["status"] == "pass", done["tail"]
    # The first run has been on the network to install: after that it is as alone as the second, from the kept environment.
    assert run(row, patch_file(tmp_path, probe))["cached"]


def test_a_git_repository_runs_at_its_pinned_commit_and_later_ones_are_not_there(run: Any, tmp_path: Path) -> None:
    repository = tmp_path / "project"
    for number, body in enumerate(("def test_a():\n    assert True\n", "def test_a():\n    assert False\n"), 1):
        repository.mkdir(exist_ok=True)
        (repository / "test_a.py").write_text(body)
        words = f"git init -q . && git add -A && git -c user.name=t -c user.email=t@localhost commit -qm c{number}"
        subprocess.run(["sh", "-c", words], cwd=repository, check=True, timeout=20)
    log = subprocess.run(
        ["git", "log", "--format=%H"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.split()
    row = {"task_id": "local", "repo": str(repository), "install_project": False, "timeouts": SLOW_MACHINE}
    assert run({**row, "ref": log[1]})["status"] == "pass"
    assert run({**row, "ref": log[0]})["status"] == "fail"
    bundle = tmp_path / "project.bundle"
    subprocess.run(["git", "bundle", "create", "-q", str(bundle), "--all"], cwd=repository, check=True, timeout=20)
    assert run({**row, "repo": str(bundle), "ref": log[1]})["status"] == "pass"
    missing = run({**row, "ref": "0" * 40})
    assert (missing["status"], missing["stage"]) == ("error", "clone")


def test_a_project_that_is_built_with_what_the_image_does_not_have_fetches_it(run: Any, tmp_path: Path) -> None:
    row = {**local_task(tmp_path / "project", poetic="x = 1\n", test_a="import poetic\ndef test_a():\n    assert poetic.x\n")}
    (tmp_path / "project" / "pyproject.toml").write_text(
        '[tool.poetry]\nname = "poetic"\nversion = "1"\ndescription = ""\nauthors = []\n'
        '[build-system]\nrequires = ["poetry-core<2"]\nbuild-backend = "poetry.core.masonry.api"\n'
    )
    commit_all(tmp_path / "project")
    done = run({**row, "install_project": True})
    assert (done["status"], done["cached"]) == ("pass", False), done["tail"]
    assert "Successfully installed poetic-1" in Path(done["directory"], "install_tail.txt").read_text()


@pytest.mark.parametrize(
    ("instance", "source", "requirements"),
    [
        ("pydata__xarray-7393", "pypi:xarray==2022.12.0", ("numpy<1.25", "pandas<2", "cftime<1.6.4")),
        ("pydata__xarray-7229", "pypi:xarray==2022.11.0", ("numpy<1.25", "pandas<2", "cftime<1.6.4", "dask<2023")),
    ],
)
def test_verified_instances_of_a_project_on_numpy_and_pandas_can_be_graded(
    docker: Engine, tmp_path: Path, instance: str, source: str, requirements: tuple[str, ...]
) -> None:
    limits = {"clone": 60, "install": 240, "tests": 180, "cap": 660}  # three hundred tests, twice, on a machine that is busy
    row = {**verified_task(instance, source, *requirements), "timeouts": limits}
    said = lite(docker, "validate", write_task(tmp_path / "task.json", row), cwd=tmp_path, timeout_s=700)
    assert said.returncode == 0, said.stdout
    assert result(said)["gradable"] == 1


def test_the_tasks_that_are_shipped_pass_within_their_own_limits(docker: Engine, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (FOLDER / "seed_tasks.jsonl").read_text().splitlines()]
    warm = result(lite(docker, "batch", FOLDER / "seed_tasks.jsonl", "--parallel=2", cwd=tmp_path))
    if warm["passed"] < len(rows):  # nothing is installed yet, and the machine is too busy to do it within the limits
        slow = write_task(tmp_path / "slow.jsonl", *[{**row, "timeouts": SLOW_MACHINE} for row in rows])
        assert result(lite(docker, "batch", slow, cwd=tmp_path, timeout_s=600))["passed"] == len(rows)
        warm = result(lite(docker, "batch", FOLDER / "seed_tasks.jsonl", cwd=tmp_path))
    assert warm["passed"] == len(rows), warm
    assert max(row["duration_s"] for row in warm["results"]) < 30


def test_a_run_that_is_told_to_end_leaves_no_container(docker: Engine, tmp_path: Path) -> None:
    hang = tmp_path / "hang.diff"
    hang.write_text(added("conftest.py", "import time", "time.sleep(600)"))
    path = write_task(tmp_path / "task.json", flask_task())
    argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "run", str(path), f"--patch={hang}"]
    env = docker.env | {"LITE_CACHE": lite_cache()}
    process = subprocess.Popen(argv, env=env, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: process.pid in containers(docker).values())
    process.terminate()
    assert process.wait(30) == 143
    assert orphans(docker) == []


def test_parallel_runs_do_not_disturb_each_other(docker: Engine, tmp_path: Path) -> None:
    rows = [flask_task(instance_id=f"flask-{number}") for number in range(3)]
    path = write_task(tmp_path / "tasks.jsonl", *rows)
    with ThreadPoolExecutor(2) as pool:
        batch = pool.submit(lite, docker, "batch", path, "--gold", "--parallel=3", cwd=tmp_path)
        null = pool.submit(lite, docker, "run", path, "--task-id=flask-1", cwd=tmp_path)
    document = result(batch.result())
    assert (document["passed"], document["pass_rate"]) == (3, 1.0)
    assert result(null.result())["status"] == "fail"
    assert len({row["directory"] for row in document["results"]}) == 3
    kept = Path(document["directory"])
    assert [json.loads(line)["status"] for line in (kept / "results.jsonl").read_text().splitlines()] == ["pass"] * 3
    assert "pass_rate" in (kept / "summary.csv").read_text()
    assert orphans(docker) == []


def test_the_outputs_of_the_pipeline_are_a_result_that_is_accepted(docker: Engine, tmp_path: Path) -> None:
    row = flask_task(model_patches={"gpt": flask_task()["patch"]})
    said = lite(docker, "pipeline", write_task(tmp_path / "task.json", row), "gpt", "1", tmp_path / "out", cwd=tmp_path)
    assert said.returncode == 0, said.stdout + said.stderr
    report = json.loads((tmp_path / "out" / "eval_outputs" / FLASK / "report.json").read_text())
    assert report[FLASK]["resolved"] is True


def test_without_docker_a_virtual_environment_gives_the_same_statuses(docker: Engine, tmp_path: Path) -> None:
    row = {"task_id": "inflection", "repo": "pypi:inflection==0.5.1", "tests": ["test_inflection.py"], "timeouts": SLOW_MACHINE}
    path = write_task(tmp_path / "task.json", {**row, "pytest_k": "pluralize"})
    good = result(lite(docker, "run", path, "--sandbox=venv", cwd=tmp_path))
    assert (good["status"], good["sandbox"], good["image_id"]) == ("pass", "venv", None), good["tail"]
    (tmp_path / "bad.diff").write_text(added("conftest.py", "import inflection", "inflection.pluralize = str.upper"))
    bad = result(lite(docker, "run", path, "--sandbox=venv", f"--patch={tmp_path / 'bad.diff'}", cwd=tmp_path))
    assert (bad["status"], bad["cached"], bad["patch"]["state"]) == ("fail", True, "applied")
    assert result(lite(docker, "run", path, "--sandbox=venv", cwd=tmp_path))["status"] == "pass"
