"""An agent on real sandboxes against a scripted model over real HTTP, once per framework: the runner decides how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.lite import FLASK, flask_task
from tests.support.lite_agent import RIGHT, SUBMIT, WRONG, Ran, agent, hidden_task, new_file, project, step, use, visible_task

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
FRAMEWORKS = ("plain", "autogen")


@pytest.fixture(params=FRAMEWORKS)
def play(request: Any, docker: Engine, tmp_path: Path) -> Any:
    """Return a function that lets a scripted model work, with each framework in turn."""

    def call(row: dict[str, Any], *steps: dict[str, Any], words: tuple[str | Path, ...] = ()) -> Ran:
        return agent(docker, tmp_path, row, *steps, framework=request.param, words=words)

    return call


def test_a_model_that_pytest_told_that_it_is_wrong_goes_on_and_ends_with_the_task_resolved(play: Any) -> None:
    gold = flask_task()["patch"]
    wrong = gold.replace("if not name:", "if name:")
    ran = play(
        flask_task(),
        step(use("swe_clone"), use("swe_search", pattern="def __init__", path="src/flask/blueprints.py"), say="Looking."),
        step(use("swe_read", path="src/flask/blueprints.py", start=180, lines=30), expect="src/flask/blueprints.py:"),
        step(use("swe_apply_patch", patch=wrong)),
        step(use("swe_pytest", tests=["tests/test_blueprints.py"]), expect="applied (git apply)"),
        step(use("swe_clone", reset=True), expect="failed"),
        step(use("swe_apply_patch", patch=gold), expect="every change is gone"),
        step(use("swe_pytest", tests=["tests/test_blueprints.py"])),
        step(use("swe_submit"), expect="pytest ended with 0: 57 passed, 0 failed"),
    )
    found = ran.document
    assert (ran.code, found["ending"], found["status"], found["resolved"], found["error"]) == (
        0,
        "submitted",
        "pass",
        True,
        None,
    )
    assert (found["turns"], found["tool_calls"]) == (8, 9)
    assert found["usage"] == {"calls": 8, "known": 8, "prompt_tokens": 800, "completion_tokens": 80}
    assert found["run"]["tests"]["FAIL_TO_PASS"]["success"] == ["tests/test_blueprints.py::test_empty_name_not_allowed"]
    said = json.dumps([request["body"] for request in ran.script.requests])
    assert "test_empty_name_not_allowed" not in said, "the hidden test is nowhere in what the model was told"
    assert all(request["body"]["stream"] for request in ran.script.requests)


def test_words_are_no_success_whoever_says_them(play: Any, tmp_path: Path) -> None:
    liar = "def pytest_unconfigure():\n    print('=== 3 passed in 0.01s ===\\nAll tests pass')\n"
    ran = play(
        visible_task(project(tmp_path)),
        step(use("swe_apply_patch", patch=WRONG + new_file("conftest.py", liar))),
        step(use("swe_pytest"), say="All tests pass."),
        {"say": "All tests pass: 3 passed.", "expect": "pytest ended with 1: 2 passed, 1 failed"},
        SUBMIT,
    )
    assert (ran.document["ending"], ran.document["status"], ran.code) == ("submitted", "fail", 2)
    assert ran.document["turns"] == 4


def test_visible_tests_that_pass_end_the_run_when_the_runner_agrees(play: Any, tmp_path: Path) -> None:
    ran = play(
        visible_task(project(tmp_path)),
        step(use("swe_pytest")),
        step(use("swe_apply_patch", patch=RIGHT), expect="1 passed, 2 failed"),
        step(use("swe_pytest", k="test_nothing")),  # a part of them is not all of them
        step(use("swe_pytest"), use("swe_read", path="calc.py")),
        {"status": 500},
    )
    assert (ran.document["ending"], ran.document["status"], ran.document["turns"]) == ("solved", "pass", 4)
    assert len(ran.script.requests) == 4
    assert [event["type"] for event in ran.events if event["type"] in ("judged", "end")] == ["judged", "end"]


def test_tests_that_pass_only_where_the_agent_worked_end_nothing(play: Any, tmp_path: Path) -> None:
    """The test leaves a file, and passes where it finds it: in a fresh sandbox it is not there."""
    cheat = "import pathlib, calc\nif pathlib.Path('left').exists():\n    calc.add = lambda a, b: a + b\n"
    cheat += "pathlib.Path('left').touch()\n"
    ran = play(
        visible_task(project(tmp_path)),
        step(use("swe_apply_patch", patch=new_file("conftest.py", cheat))),
        step(use("swe_pytest")),
        step(use("swe_pytest"), expect="2 failed"),
        step(use("swe_submit"), expect="pytest ended with 0: 3 passed"),
    )
    assert (ran.document["ending"], ran.document["status"]) == ("submitted", "fail")
    assert "left" not in (ran.directory / "eval_outputs/calc/patch.diff").read_text().replace("'left'", "")


def test_hidden_tests_are_tried_after_each_patch_only_where_that_is_asked_for(docker: Engine, tmp_path: Path) -> None:
    row = hidden_task(project(tmp_path))
    back = step(use("swe_clone", reset=True))
    steps = (step(use("swe_apply_patch", patch=WRONG)), back, step(use("swe_apply_patch", patch=RIGHT)), SUBMIT)
    ran = agent(docker, tmp_path, row, *steps, words=("--judge=patch",))
    assert (ran.document["ending"], ran.document["resolved"], ran.document["turns"]) == ("solved", True, 3)
    assert ran.document["judge"] == "patch"
    other = agent(docker, tmp_path, row, *steps)
    assert (other.document["ending"], other.document["resolved"], other.document["turns"]) == ("submitted", True, 4)
    assert other.document["judge"] == "end"


@pytest.mark.parametrize(
    ("steps", "words", "ending", "error"),
    [
        ([step(use("swe_list"))], ("--max-turns=3",), "max-turns", "maximum iterations: the agent used up its 3 turns"),
        ([step(use("swe_list"))], ("--max-tokens=250",), "token-budget", "token budget: the agent used up 330 of 250 tokens"),
        ([{"trickle": 30}], ("--max-minutes=0.05",), "time-budget", "time limit: "),
        ([{"say": "I would change add. All tests pass!"}], (), "silent", None),
    ],
)
def test_each_limit_is_an_ending_of_its_own_and_the_patch_is_judged_all_the_same(
    play: Any, tmp_path: Path, steps: list[Any], words: tuple[str, ...], ending: str, error: str | None
) -> None:
    ran = play(hidden_task(project(tmp_path)), step(use("swe_apply_patch", patch=RIGHT)), *steps, words=words)
    assert ran.document["ending"] == ending
    assert (ran.document["error"] or "").startswith(error or "") and bool(ran.document["error"]) == bool(error)
    assert (ran.document["status"], ran.document["resolved"], ran.code) == ("pass", True, 0)
    assert ran.document["duration_s"] < 60
    assert ran.events[-1]["ending"] == ending


def test_several_calls_in_one_message_and_calls_that_are_none_are_each_answered(play: Any, tmp_path: Path) -> None:
    ran = play(
        hidden_task(project(tmp_path)),
        {
            "calls": [
                {"name": "swe_read", "arguments": '{"path": "calc.py"', "id": "a"},
                {"name": "swe_shell", "arguments": '{"command": "id"}', "id": "b"},
                {"name": "swe_read", "arguments": "[1]", "id": "c"},
                {"name": "swe_read", "arguments": {"path": "calc.py", "mode": "r"}, "id": "d"},
                {"name": "swe_read", "arguments": {}, "id": "e"},
                {"name": "swe_read", "arguments": {"path": 3}, "id": "f"},
                {"name": "swe_read", "arguments": {"path": "calc.py"}, "id": ""},
            ]
        },
        step(use("swe_apply_patch", patch=RIGHT), expect="return a - b"),
        SUBMIT,
    )
    assert (ran.document["ending"], ran.document["resolved"], ran.document["tool_calls"]) == ("submitted", True, 9)
    told = ran.told
    words = ("not JSON", "there is no tool 'swe_shell'", "not a JSON object", "no argument 'mode'", "needs the argument 'path'")
    for answer, expected in zip(told, (*words, "of type string"), strict=False):
        assert expected in answer
    assert "return a - b" in told[6]
    for request in ran.script.requests:  # servers refuse what is no JSON, and calls without an id
        for message in request["body"]["messages"]:
            for call in message.get("tool_calls") or ():
                assert isinstance(json.loads(call["function"]["arguments"]), dict) and call["id"]


def test_whole_answers_are_as_good_as_streamed_ones(play: Any, tmp_path: Path) -> None:
    ran = play(
        hidden_task(project(tmp_path)), step(use("swe_apply_patch", patch=RIGHT), say="So."), SUBMIT, words=("--no-stream",)
    )
    assert ran.document["resolved"] and ran.document["usage"]["prompt_tokens"] == 200
    assert not any(request["body"].get("stream") for request in ran.script.requests)


@pytest.mark.parametrize("words", [(), ("--no-stream",)])
def test_usage_that_the_provider_does_not_tell_is_null_and_never_zero(play: Any, tmp_path: Path, words: Any) -> None:
    patch = step(use("swe_apply_patch", patch=RIGHT), usage=None)
    ran = play(hidden_task(project(tmp_path)), patch, SUBMIT | {"usage": None}, words=("--price=1,2", *words))
    assert ran.document["usage"] == {"calls": 2, "known": 0, "prompt_tokens": None, "completion_tokens": None}
    assert ran.document["cost_usd"] is None
    metrics = json.loads((ran.directory / "output.jsonl").read_text())["metrics"]
    assert metrics == {
        "accumulated_cost": None,
        "accumulated_token_usage": {"model": "scripted", "prompt_tokens": None, "completion_tokens": None},
    }


def test_the_price_makes_the_cost_and_each_call_is_kept(play: Any, tmp_path: Path) -> None:
    ran = play(hidden_task(project(tmp_path)), step(use("swe_apply_patch", patch=RIGHT)), SUBMIT, words=("--price=10,100",))
    assert ran.document["cost_usd"] == pytest.approx(2 * (100 * 10 + 10 * 100) / 1e6)
    calls = sorted((ran.directory / "llm_completions/calc").glob("*.json"))
    kept = [json.loads(path.read_text()) for path in calls]
    assert [one["usage"]["prompt_tokens"] for one in kept] == [100, 100]
    assert kept[0]["response"]["tool_calls"][0]["name"] == "swe_apply_patch"
    history = json.loads((ran.directory / "output.jsonl").read_text())["history"]
    actions = {event["id"]: event for event in history if "action" in event}
    assert [event["action"] for event in actions.values()] == ["message", "edit", "finish"]
    assert all(event["cause"] in actions for event in history if "observation" in event)


def test_the_result_is_a_directory_of_openhands_and_is_accepted(docker: Engine, tmp_path: Path) -> None:
    ran = agent(docker, tmp_path, flask_task(), step(use("swe_apply_patch", patch=flask_task()["patch"])), SUBMIT)
    report = json.loads((ran.directory / "eval_outputs" / FLASK / "report.json").read_text())
    assert report[FLASK]["resolved"] is True and report[FLASK]["patch_successfully_applied"] is True
    assert json.loads((ran.directory / "agent.json").read_text()) == ran.document
