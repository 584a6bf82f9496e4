"""`fleet lite agent`: progress on stderr, one document as published or a page on stdout, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.lite import write_task
from tests.support.lite_agent import MODEL, RIGHT, SUBMIT, WRONG, environment, hidden_task, project, step, use
from tests.support.operator import Operator
from tests.support.scripted_model import scripted_model
from tests.test_lite_commands import assert_published

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture
def operator(docker: Engine, tmp_path: Path) -> Operator:
    found = Operator(tmp_path, tmp_path / "hosts.yaml")
    found.env.update(environment(docker, tmp_path))
    return found


def test_the_document_is_as_published_and_progress_goes_to_stderr(operator: Operator) -> None:
    path = write_task(operator.directory / "task.json", hidden_task(project(operator.directory)))
    with scripted_model(**{MODEL: [step(use("swe_apply_patch", patch=RIGHT), say="So."), SUBMIT]}) as (url, _):
        words = ["lite", "agent", path, "--model", MODEL, "--base-url", url, "--price=1,2", "--max-minutes=5"]
        said = operator.run(*words, "--json")
    assert said.code == 0, said.err
    assert_published(said, "lite-agent")
    assert said.json["limits"] == {"turns": 50, "tokens": 1000000, "minutes": 5.0}
    assert said.json["cost_usd"] == pytest.approx(0.00024)


def test_a_person_reads_how_it_ended_what_was_judged_and_what_it_used(operator: Operator) -> None:
    path = write_task(operator.directory / "task.json", hidden_task(project(operator.directory)))
    steps = [step(use("swe_apply_patch", patch=WRONG)), step(use("swe_list"), usage=None)]
    with scripted_model(**{MODEL: steps}) as (url, _):
        said = operator.run("lite", "agent", path, "--model", MODEL, "--base-url", url, "--max-turns=3", "--framework=autogen")
    assert said.code == 2
    lines = said.out.splitlines()
    assert lines[0] == "calc by scripted: fail"
    assert lines[1] == "  the agent ended: max-turns, maximum iterations: the agent used up its 3 turns"
    assert lines[2].startswith("  3 turns, 3 tool calls, at least 100 + 10 tokens, ")
    assert "✗ test_hidden.py::test_hidden_sum" in said.out
    assert "swe_apply_patch  applied (git apply): calc.py" in said.err


def test_what_an_agent_needs_is_said_before_anything_starts(operator: Operator) -> None:
    path = write_task(operator.directory / "task.json", hidden_task(project(operator.directory)))
    nobody = operator.run("lite", "agent", path)
    assert nobody.code == 1 and "which model?" in nobody.err
    for words, told in (
        (["--base-url", "https://me:secret@example.org/v1"], "holds a user or password"),
        (["--price", "cheap"], "is not PROMPT,COMPLETION"),
        (["--key-file", "nowhere"], "nowhere: No such file"),
        (["--sandbox", "venv"], "an agent needs Docker"),
    ):
        said = operator.run("lite", "agent", path, "--model", "m", *words)
        assert said.code == 1 and told in said.err and "secret" not in said.err, said
    assert not (operator.directory / "sandbox").exists()
