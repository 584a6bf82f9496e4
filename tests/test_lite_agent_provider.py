"""What a provider can do to an agent, over real HTTP: refuse, limit, fail, break off, never end. Each ends in its own words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.quality.agent_errors import agent_error
from tests.support.engine import Engine
from tests.support.lite import FOLDER, write_task
from tests.support.lite_agent import (
    KEY,
    RIGHT,
    SUBMIT,
    Ran,
    agent,
    environment,
    hidden_task,
    new_file,
    project,
    step,
    use,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
PATCH = step(use("swe_apply_patch", patch=RIGHT))


@pytest.fixture(params=["plain", "autogen"])
def play(request: Any, docker: Engine, tmp_path: Path) -> Any:
    """Return a function that lets a scripted model work on the small project, with each framework in turn."""
    row = hidden_task(project(tmp_path))

    def call(*steps: dict[str, Any], words: tuple[str | Path, ...] = ()) -> Ran:
        return agent(docker, tmp_path, row, *steps, framework=request.param, words=words)

    return call


def verdict(directory: Path) -> dict[str, Any]:
    """Return what fleet says of a result."""
    argv = [sys.executable, "-m", "fleet", "validate", str(directory), "--json"]
    said = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    found: dict[str, Any] = json.loads(said.stdout)["results"][0]
    return found


def test_a_key_that_is_refused_ends_the_run_at_once_and_is_the_providers_cause(play: Any) -> None:
    ran = play({"status": 401, "body": {"error": {"message": "Incorrect API key provided: KEY", "code": "invalid_api_key"}}})
    assert (ran.code, ran.document["ending"], ran.document["turns"]) == (2, "provider", 0)
    assert ran.document["error"].startswith("openai.AuthenticationError: HTTP 401: ")
    assert len(ran.script.requests) == 1
    found = verdict(ran.directory)
    assert (found["verdict"], found["cause"]) == ("rejected", "provider")
    assert "agent-error" in {reason["code"] for reason in found["reasons"]}


def test_a_limited_rate_is_waited_out_as_long_as_the_provider_says(play: Any) -> None:
    limited = {"status": 429, "retry_after": 2, "body": {"error": {"message": "too many requests"}}}
    ran = play(limited, PATCH, {"status": 503}, SUBMIT)
    assert (ran.document["ending"], ran.document["resolved"], ran.document["turns"]) == ("submitted", True, 2)
    times = [request["t"] for request in ran.script.requests]
    assert len(times) == 4 and times[1] - times[0] >= 2


@pytest.mark.parametrize(
    ("answer", "words", "cause"),
    [
        (
            {"status": 429, "retry_after": 0, "body": {"error": {"message": "quota"}}},
            "openai.RateLimitError: HTTP 429",
            "provider",
        ),
        ({"status": 500, "retry_after": 0}, "openai.InternalServerError: HTTP 500", "provider"),
        ({"status": 404, "body": {"error": {"message": "no such model"}}}, "openai.NotFoundError: HTTP 404", "provider"),
        ({"cut": True, "say": "I begin to say something long"}, "openai.APIConnectionError: ", "provider"),
        (
            {"status": 400, "body": {"error": {"message": "This model's maximum context length is 8 tokens"}}},
            "openai.BadRequestError: context window",
            "model",
        ),
    ],
)
def test_a_provider_that_fails_for_good_is_told_apart(play: Any, answer: Any, words: str, cause: str) -> None:
    ran = play(PATCH, answer)
    assert ran.document["ending"] == ("context" if cause == "model" else "provider")
    assert ran.document["error"].startswith(words)
    assert agent_error(ran.document["error"]).cause == cause
    # What the model had done until then is judged, and stands beside the error.
    assert ran.document["resolved"] is True
    assert json.loads((ran.directory / "output.jsonl").read_text())["error"] == ran.document["error"]


def test_an_answer_that_breaks_off_is_asked_for_again_and_is_no_turn(play: Any) -> None:
    ran = play(PATCH | {"cut": True}, {"cut": True, "say": "Once more, and still"}, PATCH, SUBMIT)
    assert (ran.document["ending"], ran.document["resolved"], ran.document["turns"]) == ("submitted", True, 2)
    # What was used by the two that broke off is not known, so no sum is given as the whole.
    assert ran.document["usage"] == {"calls": 4, "known": 2, "prompt_tokens": 200, "completion_tokens": 20}
    metrics = json.loads((ran.directory / "output.jsonl").read_text())["metrics"]
    assert metrics["accumulated_token_usage"]["prompt_tokens"] is None


def test_what_is_no_answer_ends_in_words(play: Any) -> None:
    ran = play({"raw": "<html>a login page</html>"})
    assert (ran.document["ending"], ran.document["turns"]) == ("provider", 0)
    assert (verdict(ran.directory)["verdict"], verdict(ran.directory)["cause"]) == ("rejected", "provider")


def test_the_key_is_in_nothing_that_is_written_or_said_whatever_the_provider_sends_back(
    docker: Engine, tmp_path: Path, play: Any
) -> None:
    from tests.support.canary import Watch, forms, new_canaries

    canaries = new_canaries()
    with Watch(canaries) as watch:
        for framework in ("plain", "autogen"):
            place = tmp_path / framework
            place.mkdir()
            told = step(use("swe_read", path="calc.py"), say="The key is", echo_key=True)
            patch = step(use("swe_apply_patch", patch=RIGHT + new_file("notes.txt", canaries.task)))
            end = {"status": 403, "body": {"error": {"message": "KEY may not"}}}
            ran = agent(docker, place, hidden_task(project(place)), told, patch, end, framework=framework, key=canaries.task)
            assert ran.document["error"].startswith("openai.PermissionDeniedError: HTTP 403")
            assert {request["key"] for request in ran.script.requests} == {canaries.task}
            written = {path: path.read_bytes() for path in ran.directory.rglob("*") if path.is_file()}
            assert len(written) > 10
            needles = forms(canaries.task)
            assert [path for path, data in written.items() if any(needle in data for needle in needles)] == []
            said = (ran.err + json.dumps(ran.document)).encode()
            assert not any(needle in said for needle in needles)
            assert "[the provider's key]" in (ran.directory / "transcript.jsonl").read_text()
            assert "[the provider's key]" in (ran.directory / "eval_outputs/calc/patch.diff").read_text()
    assert watch.looks > 100
    assert watch.leaks == set()


def test_a_key_comes_from_a_file_that_nobody_else_can_read(docker: Engine, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    task = write_task(tmp_path / "task.json", hidden_task(project(tmp_path)))
    argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent", str(task), "--model=m", "--base-url=http://127.0.0.1:9/v1"]
    env = environment(docker, tmp_path, None)
    for mode, words in ((0o644, "can be read by others"), (0o640, "chmod 600")):
        file.chmod(mode)
        said = subprocess.run([*argv, f"--key-file={file}"], env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
        assert said.returncode == 1 and words in said.stderr and KEY not in said.stderr
    nothing = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert nothing.returncode == 1 and "there is no key for 127.0.0.1" in nothing.stderr
    ready = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent-ready", "key"]
    assert subprocess.run(ready, env=env, capture_output=True, timeout=60).returncode == 1
    kept = tmp_path / ".config/swebench-lite/key"
    kept.parent.mkdir(parents=True)
    kept.write_text(KEY)
    kept.chmod(0o600)
    found = subprocess.run(ready, env=env, capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
    file.chmod(0o600)
    ran = agent(docker, tmp_path, json.loads(task.read_text()), PATCH, SUBMIT, words=(f"--key-file={file}",), key=None)
    assert ran.document["resolved"] and ran.script.requests[0]["key"] == KEY


def test_a_key_goes_only_to_the_provider_that_it_is_for(docker: Engine, tmp_path: Path) -> None:
    env = environment(docker, tmp_path, None) | {"OPENAI_API_KEY": KEY, "CHUTES_API_KEY": KEY}
    ready = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent-ready", "key", "--base-url"]
    for url, code in (
        ("https://api.openai.com/v1", 0),
        ("https://llm.chutes.ai/v1", 0),
        ("https://chutes.ai.example.org/v1", 1),
        ("https://notopenai.com/v1", 1),
    ):
        assert subprocess.run([*ready, url], env=env, capture_output=True, timeout=60).returncode == code, url


def test_no_agent_works_where_nothing_isolates_it(docker: Engine, tmp_path: Path) -> None:
    task = write_task(tmp_path / "task.json", hidden_task(project(tmp_path)))
    argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent", str(task), "--model=m", "--sandbox=venv"]
    said = subprocess.run(argv, env=environment(docker, tmp_path), capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert said.returncode == 1 and "an agent needs Docker" in said.stderr
