"""The tools of an agent on a real sandbox: confined to the project, offline, within limits; the patch is the agent's alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.quality.agent_errors import agent_error
from tests.support.engine import Engine
from tests.support.lite import FOLDER, SLOW_MACHINE, containers, write_task
from tests.support.lite_agent import (
    CALC,
    HIDDEN,
    MODEL,
    RIGHT,
    SUBMIT,
    Ran,
    agent,
    commit,
    diff,
    environment,
    git,
    hidden_task,
    new_file,
    project,
    step,
    use,
    visible_task,
)
from tests.support.operator import wait_until
from tests.support.scripted_model import scripted_model

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture
def told(docker: Engine, tmp_path: Path) -> Any:
    """Return a function that has tools called, and returns what each answered."""

    def call(row: dict[str, Any], *calls: dict[str, Any]) -> list[str]:
        return agent(docker, tmp_path, row, step(*calls), step(), SUBMIT).told[: len(calls)]

    return call


def test_reading_and_searching_stay_inside_the_project(told: Any, tmp_path: Path) -> None:
    outside = ("/etc/passwd", "../etc/passwd", "a/../../etc/passwd", ".git/config", ".GIT/config", "-n", "~/x", "")
    calls = [use("swe_read", path=path) for path in outside]
    calls += [use("swe_search", pattern="root", path=path) for path in outside]
    calls += [use("swe_list", path=path) for path in outside]
    calls += [use("swe_pytest", tests=[path]) for path in ("/etc", "../x.py::test", "--collect-only", "-pno:terminal")]
    calls += [use("swe_read", path="outside"), use("swe_search", pattern="root:x"), use("swe_pytest", k="--collect-only")]
    answers = told(visible_task(project(tmp_path)), *calls)
    assert len(answers) == len(calls)
    for call, answer in zip(calls, answers, strict=True):
        assert answer.startswith("error: ") or answer == "nothing found", (call, answer)
        assert "root:x:0" not in answer
    assert "leads out of the project" in answers[-3]


def test_reading_searching_and_listing_show_what_is_there(told: Any, tmp_path: Path) -> None:
    read, part, found, listed, nothing, option = told(
        visible_task(project(tmp_path)),
        use("swe_read", path="calc.py"),
        use("swe_read", path="calc.py", start=5, lines=1),
        use("swe_search", pattern="^def (add|double)"),
        use("swe_list"),
        use("swe_search", pattern="not there"),
        use("swe_search", pattern="--open-files-in-pager=id"),
    )
    assert read.startswith("     1  def add(a, b):\n     2      return a - b\n") and read.endswith("(6 lines in all)\n")
    assert part == "     5  def double(a):\n(6 lines in all)\n"
    assert found == "calc.py:1:def add(a, b):\ncalc.py:5:def double(a):"
    assert listed == "calc.py\noutside\ntest_calc.py"
    assert nothing == option == "nothing found"


def test_answers_are_cut_to_what_a_model_can_use(told: Any, tmp_path: Path) -> None:
    loud = "def test_loud():\n    print('x' * 2_000_000)\n    assert False\n"
    row = visible_task(project(tmp_path, **{"long.txt": "word\n" * 5000, "test_calc.py": loud}))
    answers = told(row, use("swe_read", path="long.txt"), use("swe_search", pattern="word"), use("swe_pytest"))
    assert all(len(answer) < 8300 for answer in answers)
    assert answers[1].endswith("(4900 more)")
    assert answers[2].startswith("pytest ended with 1: 0 passed, 1 failed") and "FAILED test_calc.py::test_loud" in answers[2]


def test_the_agent_works_offline_and_later_commits_and_hidden_tests_are_nowhere(told: Any, tmp_path: Path) -> None:
    repository = project(tmp_path)
    row = hidden_task(repository)
    (repository / "calc.py").write_text(CALC.replace("a - b", "a + b  # the fix"))
    commit(repository)
    probe = (
        "import pathlib, socket, subprocess\n\n\ndef test_alone():\n"
        "    assert [name for _, name in socket.if_nameindex()] == ['lo']\n\n\ndef test_past():\n"
        "    log = subprocess.run(['git', 'log', '--all', '--oneline'], capture_output=True, text=True).stdout\n"
        "    assert log.count('\\n') == 1\n    assert not list(pathlib.Path('/cache').glob('*/*'))\n"
        "    words = ['grep', '-rlE', 'the fi[x]|hidden_su[m]', '/workspace', '/tmp', '/root']\n"
        "    found = subprocess.run(words, capture_output=True)\n"
        "    assert found.stdout == b''\n"
    )
    assert git(repository, "log", "--oneline").count("\n") == 2
    applied, ran = told(
        row, use("swe_apply_patch", patch=new_file("test_probe.py", probe)), use("swe_pytest", tests=["test_probe.py"])
    )
    assert applied.startswith("applied")
    assert ran.startswith("pytest ended with 0: 2 passed"), ran


def test_a_test_that_hangs_is_ended_at_its_limit_with_what_it_started(told: Any, tmp_path: Path) -> None:
    hang = "import subprocess, time\n\n\ndef test_hang():\n    subprocess.Popen(['sleep', '777'])\n    time.sleep(600)\n"
    look = (
        "import pathlib\n\n\ndef test_nobody():\n"
        "    lines = [path.read_bytes() for path in pathlib.Path('/proc').glob('[0-9]*/cmdline')]\n"
        "    assert not any(b'777' in line or b'test_hang' in line for line in lines)\n"
    )
    row = visible_task(project(tmp_path, **{"test_hang.py": hang, "test_look.py": look}), timeouts={**SLOW_MACHINE, "tests": 6})
    late, after = told(row, use("swe_pytest", tests=["test_hang.py"]), use("swe_pytest", tests=["test_look.py"]))
    assert late.startswith("error: tests was ended after 6.0 s")
    assert after.startswith("pytest ended with 0: 1 passed"), after


def test_the_patch_is_what_the_agent_changed_and_nothing_that_tests_left_or_guardrails_refuse(
    docker: Engine, tmp_path: Path
) -> None:
    link = "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n"
    littering = "import pathlib\npathlib.Path('litter.txt').write_text('x')\n"
    row = hidden_task(project(tmp_path, **{".gitignore": "*.cfg\n"}))
    ran = agent(
        docker, tmp_path, row,
        step(use("swe_apply_patch", patch=RIGHT + new_file("sub/helper.py", "A = 1") + new_file("kept.cfg", "[a]"))),
        step(use("swe_apply_patch", patch=new_file("test_hidden.py", "def test_hidden_sum(): pass"))),
        step(use("swe_apply_patch", patch=new_file("conftest.py", littering))),
        step(use("swe_apply_patch", patch=diff("sub/helper.py", "-A = 1", "+A = 2"))),
        step(use("swe_apply_patch", patch=link)),
        step(use("swe_pytest"), expect="symbolic link"),
        SUBMIT,
    )  # fmt: skip
    assert ran.document["resolved"] is True, ran.document
    patch = (ran.directory / "eval_outputs/calc/patch.diff").read_text()
    changed = [line.split(" b/")[1] for line in patch.splitlines() if line.startswith("diff --git")]
    assert changed == ["calc.py", "conftest.py", "kept.cfg", "sub/helper.py"]
    assert "+A = 2" in patch and "litter" not in patch.replace(littering.splitlines()[1], "")
    assert ran.document["left_out"] == {"test_hidden.py": "the task's tests decide what it holds"}
    assert HIDDEN.splitlines()[4] not in json.dumps(ran.script.requests[-1]["body"])


def test_what_was_changed_can_be_thrown_away_and_an_agent_that_changes_nothing_has_no_patch(
    docker: Engine, tmp_path: Path
) -> None:
    def hand_in() -> Ran:
        steps = (step(use("swe_apply_patch", patch=RIGHT + new_file("new.py", "A = 1"))), step(use("swe_clone", reset=True)))
        return agent(docker, tmp_path, hidden_task(project(tmp_path)), *steps, step(use("swe_list")), SUBMIT)

    ran = hand_in()
    assert "new.py" not in ran.told[-1]
    assert (ran.document["ending"], ran.document["status"], ran.document["patch_bytes"]) == ("submitted", "error", 0)
    assert ran.document["run"]["patch"]["state"] == "refused"
    argv = [sys.executable, "-m", "fleet", "validate", str(ran.directory), "--json"]
    said = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout)
    assert (said["results"][0]["verdict"], said["results"][0]["cause"]) == ("rejected", "model")


def test_a_project_that_cannot_be_prepared_is_no_fault_of_the_model(docker: Engine, tmp_path: Path) -> None:
    ran = agent(docker, tmp_path, hidden_task(project(tmp_path), ref="0" * 40), SUBMIT)
    assert (ran.code, ran.document["ending"], ran.document["turns"], ran.script.requests) == (2, "sandbox", 0, [])
    argv = [sys.executable, "-m", "fleet", "validate", str(ran.directory), "--json"]
    said = json.loads(subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout)
    assert (said["results"][0]["verdict"], said["results"][0]["cause"]) == ("rejected", "environment")


@pytest.mark.parametrize("framework", ["plain", "autogen"])
def test_a_container_that_dies_under_the_agent_is_no_fault_of_the_model(docker: Engine, tmp_path: Path, framework: str) -> None:
    task = write_task(tmp_path / "task.json", hidden_task(project(tmp_path)))
    later = {"status": 503, "retry_after": 5}
    with scripted_model(**{MODEL: [step(use("swe_list")), later, step(use("swe_list")), SUBMIT]}) as (url, script):
        argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent", str(task), "--model", MODEL, "--base-url", url]
        argv += ["--framework", framework]
        process = subprocess.Popen(
            argv, env=environment(docker, tmp_path), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: len(script.requests) == 2)
        docker.run("rm", "-f", next(name for name, pid in containers(docker).items() if pid == process.pid))
        document = json.loads(process.communicate(timeout=120)[0])
    assert (process.returncode, document["ending"]) == (2, "sandbox"), document["error"]
    assert agent_error(document["error"]).cause == "environment"


@pytest.mark.parametrize("framework", ["plain", "autogen"])
def test_an_agent_that_is_told_to_end_leaves_no_container_and_its_transcript(
    docker: Engine, tmp_path: Path, framework: str
) -> None:
    task = write_task(tmp_path / "task.json", hidden_task(project(tmp_path)))
    with scripted_model(**{MODEL: [step(use("swe_list")), {"trickle": 60}]}) as (url, script):
        argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent", str(task), "--model", MODEL, "--base-url", url]
        argv += ["--framework", framework]
        process = subprocess.Popen(
            argv, env=environment(docker, tmp_path), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(lambda: len(script.requests) == 2)
        assert process.pid in containers(docker).values()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 143
    assert process.pid not in containers(docker).values()
    lines = next((tmp_path / "sandbox/agents").glob("*/transcript.jsonl")).read_text().splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["start", "answer", "tool"]
