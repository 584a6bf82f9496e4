"""`fleet demo` as a user types it: it shows everything it is meant to show, and leaves nothing behind but the results."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.demo_document import DemoDocument
from fleet.demo.scenario import STORY
from fleet.demo.shown import read_batch, story_points
from fleet.inventory.pipelines import Pipelines
from fleet.model.states import TaskState


def fleet(*words: str, temporary: Path, timeout: float = 110, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fleet", *words],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=temporary,
        env=environment(temporary) | env,
    )


def environment(temporary: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(temporary), "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    temporary = tmp_path_factory.mktemp("demo")
    return fleet("demo", "--json", "--keep", "kept", temporary=temporary), temporary


def document(played: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, Any]:
    done, _ = played
    assert done.stdout, done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


def test_the_demo_shows_what_it_is_meant_to_show_within_a_minute(played: Any) -> None:
    told = document(played)
    assert told["missing"] == [], told["shown"]
    assert played[0].returncode == 0
    assert told["schema"] == "fleet.demo/1"
    assert told["seconds"] < 60
    assert told["sandbox"] == "venv"
    assert DemoDocument.model_validate(told).model_dump(mode="json", by_alias=True) == told
    assert {point["subject"] for point in told["shown"]} == {task.label for task in STORY} | {"demo4"}


def test_the_demo_runs_the_commands_that_an_operator_types(played: Any) -> None:
    steps = document(played)["steps"]
    assert [step["command"].split()[1] for step in steps] == ["sync", "check", "dispatch"]
    codes = {step["command"].split()[1]: step["exit_code"] for step in steps}
    assert codes["sync"] == 0
    assert codes["check"] == 2
    assert codes["dispatch"] & 2


def test_the_results_stay_and_can_be_judged_again_without_hosts(played: Any) -> None:
    kept = played[1] / "kept"
    points = story_points(read_batch(kept / "collected", "demo"))
    assert all(point.ok for point in points)
    done = fleet("validate", str(kept / "collected" / "demo"), "--json", temporary=played[1])
    verdicts = [result["verdict"] for result in json.loads(done.stdout)["results"]]
    counted = {state: sum(task.state is state for task in STORY) for state in TaskState}
    assert verdicts.count("accepted") == counted[TaskState.ACCEPTED]
    assert verdicts.count("flagged") == counted[TaskState.FLAGGED]
    assert verdicts.count("rejected") == counted[TaskState.REJECTED]


def test_the_hosts_leave_neither_homes_nor_processes(played: Any) -> None:
    assert [path.name for path in played[1].iterdir()] == ["kept"]
    assert str(played[1]) not in running_commands()


def test_the_demo_tells_its_story_on_stderr_and_ends_with_the_dashboard(tmp_path: Path) -> None:
    done = fleet("demo", temporary=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "$ fleet dispatch demo.json" in done.stderr
    assert "fleet sync demo4" in done.stdout
    assert done.stdout.index("FUNNEL") > done.stdout.index("1 not ready")
    assert "✗" not in done.stderr.split("Shown")[1]
    assert f"The results are in {tmp_path}/fleet-demo-" in done.stderr


@pytest.mark.root
def test_the_demo_needs_no_network(tmp_path: Path) -> None:
    """In a network namespace of its own, where there is nothing but loopback."""
    alone = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    done = subprocess.run(
        [*alone, sys.executable, "-m", "fleet", "demo", "--json"],
        capture_output=True, text=True, timeout=110, cwd=tmp_path, env=environment(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["missing"] == []


def test_what_was_not_shown_is_named_and_is_exit_2(tmp_path: Path) -> None:
    """A pipeline of one's own under the demo's name, which finds no patch small; the runner that it includes is fleet's."""
    folder = tmp_path / "scripts" / "demo"
    shutil.copytree(Pipelines().folder("demo"), folder)
    contract = (folder / "pipeline.yaml").read_text()
    (folder / "pipeline.yaml").write_text(contract.replace("min_history: 4", "min_history: 4, small_patch_bytes: 1"))
    done = fleet("demo", "--json", temporary=tmp_path, FLEET_REMOTE_SCRIPTS=str(tmp_path / "scripts"))
    assert done.returncode == 2
    assert json.loads(done.stdout)["missing"] == ["a flagged result: a tiny patch"]


def test_a_rehearsal_runs_one_task_on_every_host_and_prints_rates(tmp_path: Path) -> None:
    done = fleet("demo", "--hosts", "6", "--json", temporary=tmp_path)
    told = json.loads(done.stdout)
    assert told["missing"] == [], told["shown"]
    assert done.returncode == 0
    assert all(rate > 0 for rate in told["rates"].values())
    assert set(told["rates"]) == {"hosts_checked_per_s", "launches_per_s", "results_collected_per_s", "tasks_per_s"}


def test_results_never_go_into_a_directory_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("keep me")
    done = fleet("demo", "--keep", "mine", temporary=tmp_path)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


def test_without_the_server_library_the_demo_says_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "asyncssh.py").write_text("raise ImportError('not here')\n")
    done = fleet("demo", "--keep", "kept", temporary=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "pip install 'fleet-evals[demo]'" in done.stderr
    assert not (tmp_path / "kept").exists()


def test_an_interrupted_demo_switches_its_hosts_off_and_leaves_no_eval_running(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "fleet", "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path),
    ) as demo:
        assert demo.stdout is not None
        assert any(" running on " in line for line in demo.stdout)
        demo.send_signal(signal.SIGINT)
        told = demo.stdout.read()
        assert demo.wait(timeout=20) == 130
    assert "demo interrupted" in told
    assert str(tmp_path) not in running_commands()
    time.sleep(1)
    assert [path.name.startswith("fleet-demo-hosts-") for path in tmp_path.iterdir()] == [False]


def test_scale_is_rehearsed_without_docker(tmp_path: Path) -> None:
    done = fleet("demo", "--docker", "--hosts", "2", temporary=tmp_path)
    assert done.returncode == 1
    assert "--hosts rehearses scale" in done.stderr


def running_commands() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_on_a_terminal_it_asks_nothing_and_ends_by_itself(tmp_path: Path) -> None:
    """A person typing `make demo` has a terminal; a question in the middle would look like a hang."""
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-m", "fleet", "demo", "--keep", str(tmp_path / "kept")])
    shown = b""
    deadline = time.monotonic() + 100
    with os.fdopen(terminal, "rb", buffering=0) as screen:
        while time.monotonic() < deadline:
            readable, _, _ = select.select([screen], [], [], 1.0)
            try:
                chunk = screen.read(65_536) if readable else b"\0"
            except OSError:
                break
            if not chunk:
                break
            shown += chunk.strip(b"\0")
        else:
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown[-3000:].decode(errors="replace")
    assert b"Shown" in shown
