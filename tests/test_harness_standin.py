"""The stand-in for the users' eval script behaves as the script does; without this, tests that use it prove nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from unidiff import PatchSet

from tests.conftest import end_processes_of
from tests.support import harness
from tests.support.datasets import fail_to_pass, pass_to_pass, write_dataset

INSTANCE = "example-teapot-1"
FILES = (
    *("output.jsonl", "metadata.json", "eval_pilot2_output.jsonl", "eval_outputs/report.json"),
    *(f"eval_outputs/{INSTANCE}/{name}" for name in ("report.json", "patch.diff", "test_output.txt")),
    *(f"eval_outputs/{INSTANCE}/{name}" for name in ("run_instance.log", "eval.sh")),
)


class Host:
    """A home with the harness in it, where evals are run by hand and quickly."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.workdir = harness.install(home)
        path = f"{home}/.local/bin:{os.environ['PATH']}"
        self.env = {"HOME": str(home), "PATH": path, "PYTHONPATH": str(self.workdir), "HARNESS_SECONDS": "0.1"}

    def start(
        self, *, model: str = "gpt", instance: str = INSTANCE, dialect: int = 1, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start an eval with its output in `~/log`."""
        dataset = write_dataset(self.home / "inputs" / f"{instance}.jsonl", instance, dialect=dialect)
        argv = [f"./{harness.SCRIPT}", f"llm.{model}", str(dataset), "1", "200", "1"]
        with open(self.home / "log", "wb") as log:
            return subprocess.Popen(
                argv, cwd=self.workdir, env={**self.env, **(env or {})}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def run(self, *behaviours: str, env: Mapping[str, str] | None = None, dialect: int = 1, **switches: Any) -> int:
        """Run an eval with these behaviours and return its exit code."""
        harness.switch(self.home, INSTANCE, {"behaviours": behaviours, **switches})
        return self.start(env=env, dialect=dialect).wait(30)

    @property
    def log(self) -> str:
        """What the last eval printed."""
        return (self.home / "log").read_text()

    def result(self) -> Path:
        """Return the one directory of results."""
        (output,) = (self.workdir / harness.OUTPUTS).rglob("output.jsonl")
        return output.parent

    def evaluated(self) -> dict[str, Any]:
        """Return the details of the evaluation."""
        record = json.loads((self.result() / "eval_pilot2_output.jsonl").read_text())
        details: dict[str, Any] = record["pilot2_eval_details"]
        return details


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """Yield a host, and end what its evals left."""
    yield Host(tmp_path)
    end_processes_of(tmp_path)
    for pid in _left(tmp_path):  # a daemon that does not know whose home it came from
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("dialect", [1, 2])
def test_a_resolved_eval_leaves_every_file_of_the_layout_and_they_agree(host: Host, dialect: int) -> None:
    assert host.run(dialect=dialect) == 0, host.log
    result = host.result()
    assert result.name.startswith("gpt_maxiter_200_")
    assert result.parent.name == "CodeActAgent"
    assert all((result / name).stat().st_size > 0 for name in FILES)
    assert len(list((result / "llm_completions" / INSTANCE).glob("*.json"))) == 3
    record = json.loads((result / "output.jsonl").read_text())
    patch = record["test_result"]["git_patch"]
    assert record["instance_id"] == INSTANCE
    assert record["error"] is None
    assert 20 <= len(record["history"]) <= 200
    assert 1024 < len(patch) < 102_400
    assert len(PatchSet(patch)) == 1
    assert (result / f"eval_outputs/{INSTANCE}/patch.diff").read_text() == patch
    report = json.loads((result / "eval_outputs/report.json").read_text())[INSTANCE]
    assert report["resolved"] is True
    assert report["tests_status"]["FAIL_TO_PASS"] == {"success": fail_to_pass(INSTANCE), "failure": []}
    assert host.evaluated()["pass_to_pass_success"] == pass_to_pass()
    log = (result / f"eval_outputs/{INSTANCE}/test_output.txt").read_text()
    assert all(f"PASSED {test}" in log for test in fail_to_pass(INSTANCE) + pass_to_pass())


def test_the_second_layout_names_instance_model_and_run(host: Host) -> None:
    assert host.run(layout=2, env={"RUN_NUMBER": "3"}) == 0
    assert host.result() == host.workdir / f"{harness.OUTPUTS}/Trajectory_results/Multi-SWE-bench/{INSTANCE}/gpt/Run3"


def test_an_unresolved_eval_ends_with_0_or_with_1_as_the_versions_of_the_script_do(host: Host) -> None:
    assert host.run("unresolved") == 0
    assert host.evaluated()["fail_to_pass_failed"] == fail_to_pass(INSTANCE)[:1]
    assert host.run("exit-1-when-unresolved") == 1
    assert host.evaluated()["resolved"] is False


def test_no_patch_means_exit_0_and_no_evaluation(host: Host) -> None:
    assert host.run("no-patch-exit-0") == 0
    assert "skipping evaluation" in host.log
    assert not (host.result() / "eval_outputs").exists()


def test_a_crash_in_the_trajectory_ends_with_1_and_a_traceback(host: Host) -> None:
    assert host.run("crash-phase-1") == 1
    assert "Traceback" in host.log
    assert not list((host.workdir / harness.OUTPUTS).rglob("output.jsonl"))
    assert host.run("empty-output") == 1
    assert (host.result() / "output.jsonl").stat().st_size == 0


def test_no_test_ran_and_a_broken_environment_show_in_the_log_and_in_the_numbers(host: Host) -> None:
    for behaviour, words in (("zero-tests", "collected 0 items"), ("env-broken", "command not found")):
        assert host.run(behaviour) == 0
        details = host.evaluated()
        assert words in details["test_output"]
        assert (details["tests_passed"], details["tests_failed"], details["resolved"]) == (0, 0, False)


def test_the_smaller_misbehaviours_leave_their_traces(host: Host) -> None:
    assert host.run("agent-error", "no-metadata") == 0
    assert "maximum iteration" in json.loads((host.result() / "output.jsonl").read_text())["error"]
    assert not (host.result() / "metadata.json").exists()
    assert host.run("wrong-instance") == 0
    assert json.loads((host.result() / "output.jsonl").read_text())["instance_id"] == "another-instance"
    assert host.run("huge-log", log_mb=2) == 0
    assert len(host.log) > 2_000_000


def test_a_directory_shared_by_two_instances_gets_a_line_for_each(host: Host) -> None:
    harness.switch(host.home, "*", {"behaviours": ["shared-dir"]})
    assert host.start(instance="example-teapot-1").wait(30) == 0
    assert host.start(instance="example-teapot-2").wait(30) == 0
    lines = (host.result() / "output.jsonl").read_text().splitlines()
    assert [json.loads(line)["instance_id"] for line in lines] == ["example-teapot-1", "example-teapot-2"]


def test_the_busy_pattern_sees_the_trajectory_phase(host: Host) -> None:
    harness.switch(host.home, INSTANCE, {"seconds": 20})
    process = host.start()
    _until(lambda: "Starting evaluation" in host.log)
    seen = subprocess.run(["pgrep", "-f", f"run_infer.*{host.home}"], capture_output=True, check=False)
    os.killpg(process.pid, signal.SIGTERM)
    assert seen.returncode == 0
    assert process.wait(10) == 143


def test_an_eval_that_ignores_term_runs_to_its_end(host: Host) -> None:
    harness.switch(host.home, INSTANCE, {"behaviours": ["ignore-term"], "seconds": 1.5})
    process = host.start()
    _until(lambda: "Starting evaluation" in host.log)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(10) == 0
    assert (host.result() / "eval_outputs/report.json").exists()


def test_children_live_on_in_the_session_and_outside_of_it(host: Host) -> None:
    harness.switch(host.home, INSTANCE, {"behaviours": ["leave-children"]})
    process = host.start()
    assert process.wait(30) == 0
    _until(lambda: len(_left(host.home)) == 2)
    assert sorted(os.getsid(pid) == process.pid for pid in _left(host.home)) == [False, True]


def test_the_host_records_each_start_and_stop(host: Host) -> None:
    assert host.run("crash-phase-1") == 1
    assert host.run() == 0
    records = harness.records(host.home)
    assert [(record["event"], record.get("rc")) for record in records] == [
        ("start", None), ("stop", 1), ("start", None), ("stop", 0),
    ]  # fmt: skip
    assert records[0]["time"] < records[1]["time"] < records[2]["time"]
    assert harness.overlaps(records) == []


def test_two_evals_at_once_are_an_overlap_in_the_records(host: Host) -> None:
    harness.switch(host.home, "*", {"seconds": 0.8})
    first = host.start(instance="example-teapot-1")
    _until(lambda: harness.records(host.home))
    second = host.start(instance="example-teapot-2", model="claude")
    assert first.wait(30) == second.wait(30) == 0
    assert harness.overlaps(harness.records(host.home)) == [
        "example-teapot-2/claude started before example-teapot-1/gpt stopped"
    ]


def test_an_eval_that_was_killed_is_no_overlap_unless_a_phase_of_it_lives_on(host: Host) -> None:
    harness.switch(host.home, "*", {"seconds": 20})
    first = host.start()
    _until(lambda: "Starting evaluation" in host.log)
    first.kill()  # only the script: its child is still there
    first.wait(10)
    second = host.start(model="claude")
    _until(lambda: len(harness.records(host.home)) == 2)
    assert "a phase of another eval ran" in harness.overlaps(harness.records(host.home))[0]
    for process in (first, second):
        os.killpg(process.pid, signal.SIGKILL)
    second.wait(10)
    harness.switch(host.home, "*", {"seconds": 0.1})
    assert host.start(model="third").wait(30) == 0
    assert len(harness.overlaps(harness.records(host.home))) == 1


def _left(home: Path) -> list[int]:
    path = home / harness.CHILDREN
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def _until(condition: Any, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
