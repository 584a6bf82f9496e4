"""Real hosts that fail task after task, are killed, halted, or stand still: what fleet does by itself, and nothing more."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import end_processes_of
from tests.support.catalogue import fault
from tests.support.operator import finish, kill, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

FAST_BEATS = "import sys, fleet.dispatch.executor as e; e.BEAT_S = 0.3; from fleet.cli.main import main; main(sys.argv[1:])"
"""A wait's signs of life come every 10 s; nothing else of the command differs."""


@pytest.fixture
def jobs(farm_hosts: SshdFarm, tmp_path: Path) -> Iterator[list[SmallJob]]:
    made: list[SmallJob] = []
    yield made
    for job in made:
        job.end()
    for home in farm_hosts.homes.values():
        (home / ".fleet" / "quarantine.json").unlink(missing_ok=True)


def made(jobs: list[SmallJob], farm: SshdFarm, directory: Path, tasks: dict[str, list[str]], **settings: Any) -> SmallJob:
    job = SmallJob(directory, farm, tasks, **settings)
    job.command = (sys.executable, "-c", FAST_BEATS)
    jobs.append(job)
    return job


def spoil(job: SmallJob, host: str, *instances: str) -> None:
    """Let the evals of these instances leave nothing behind, as on a host whose harness is broken."""
    for one in instances:
        (job.farm.homes[host] / "results" / one).rename(job.directory / f"kept-{one}")


def records(job: SmallJob, kind: str) -> list[dict[str, Any]]:
    return [record for record in job.journal() if record["type"] == kind]


def test_a_host_that_fails_three_tasks_in_a_row_takes_no_other_until_a_person_releases_it(
    jobs: list[SmallJob], farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = made(jobs, farm_hosts, tmp_path / "a", {"eval1": ["q-1", "q-2", "q-3", "q-4"], "eval2": ["g-1"]})
    (farm_hosts.homes["eval2"] / "seconds").write_text("60")
    spoil(job, "eval1", "q-1", "q-2", "q-3")
    running = job.start("dispatch", job.assignment)
    wait_until(lambda: records(job, "quarantine-told"))
    note = json.loads((farm_hosts.homes["eval1"] / ".fleet" / "quarantine.json").read_text())
    assert note["tasks"] == [f"q-{number}/gpt/run1" for number in (1, 2, 3)]
    states = job.states()
    assert [states[f"q-{number}/gpt/run1"] for number in (1, 2, 3, 4)] == ["rejected", "rejected", "rejected", "blocked"]
    # In one append with the verdict that completed the row: nothing was begun in between, and nothing is.
    kinds = [record["type"] for record in job.journal()]
    assert kinds[kinds.index("quarantined") - 1] == "judged"
    assert job.starts()["q-4"] == 0
    why = job.run("why", "eval1").out
    assert "3 tasks in a row ended badly here (q-1/gpt/run1: harness: " in why
    assert "→ fleet release eval1" in why
    assert "quarantined" in job.run("status", "--offline").out

    # Another operator, another batch: the host itself refuses.
    other = made(jobs, farm_hosts, tmp_path / "b", {"eval1": ["o-1"]})
    said = other.run("dispatch", other.assignment)
    assert said.code == 2, said.err
    assert other.states() == {"o-1/gpt/run1": "blocked"}
    assert "quarantined since" in other.run("why", "o-1").out
    assert "fleet release eval1" in other.run("check", "eval1").out
    assert other.starts() == {}

    # A person releases it while the controller works: it checks the host and goes on.
    assert job.run("release", "eval1").code == 0
    wait_until(lambda: job.states()["q-4/gpt/run1"] == "accepted", every_s=0.5)
    assert job.starts() == {"q-1": 1, "q-2": 1, "q-3": 1, "q-4": 1, "g-1": 1}
    kill(running, signal.SIGINT)
    assert other.run("dispatch", other.assignment).code == 0


def test_a_controller_killed_before_it_told_the_host_tells_it_when_it_is_started_again(
    jobs: list[SmallJob], farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = made(jobs, farm_hosts, tmp_path / "a", {"eval1": ["q-1", "q-2"]})
    spoil(job, "eval1", "q-1")
    process = job.start("dispatch", job.assignment, "--quarantine", "1")
    wait_until(lambda: records(job, "quarantined"), every_s=0.001)
    kill(process)
    said = job.run("dispatch", job.assignment, "--quarantine", "1")
    assert said.code == 2, said.err
    assert (farm_hosts.homes["eval1"] / ".fleet" / "quarantine.json").exists()
    assert len(records(job, "quarantined")) == 1
    assert job.starts() == {"q-1": 1}
    assert job.states()["q-2/gpt/run1"] == "blocked"


@fault("H1")
def test_a_lost_eval_is_started_anew_as_often_as_the_policy_allows_and_no_more(
    jobs: list[SmallJob], farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = made(jobs, farm_hosts, tmp_path / "a", {"eval1": ["l-1"]}, seconds=60)
    home = farm_hosts.homes["eval1"]
    process = job.start("dispatch", job.assignment, "--retry-lost", "1", "--quarantine", "0")
    for number in (1, 2):
        wait_until(lambda number=number: len(records(job, "started")) == number and job.starts()["l-1"] == number)
        if number == 2:
            # What is counted survives the controller.
            kill(process)
        end_processes_of(home)
        if number == 2:
            process = job.start("dispatch", job.assignment, "--retry-lost", "1", "--quarantine", "0")
    said = finish(process)
    assert said.code == 4, said.err
    assert job.states() == {"l-1/gpt/run1": "lost"}
    assert job.starts() == {"l-1": 2}
    orders = records(job, "retry")
    assert [(order["by"], order["failure"]) for order in orders] == [("policy", "lost-killed")]
    # Only after what the lost one left was brought here: nothing is overwritten by the next.
    first = orders[0]["after"]
    kinds = [(record["type"], record.get("attempt")) for record in job.journal()]
    assert kinds.index(("collected", first)) < kinds.index(("retry", None))


def test_halt_now_ends_what_runs_and_brings_it_and_a_crash_in_between_changes_nothing(
    jobs: list[SmallJob], farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = made(jobs, farm_hosts, tmp_path / "a", {"eval1": ["b-1"], "eval2": ["r-1", "w-1"]})
    (farm_hosts.homes["eval2"] / "seconds").write_text("60")
    (farm_hosts.homes["eval1"] / "seconds").write_text("2")
    spoil(job, "eval1", "b-1")
    process = job.start("dispatch", job.assignment, "--halt", "now,fail=1")
    wait_until(lambda: records(job, "cancel"), every_s=0.001)
    kill(process)
    assert [(record["task"], record["by"]) for record in records(job, "cancel")] == [("r-1/gpt/run1", "halt")]
    begun = time.monotonic()
    said = job.run("dispatch", job.assignment, "--halt", "now,fail=1")
    assert time.monotonic() - begun < 30
    assert said.code & 8, said.err
    states = job.states()
    assert (states["r-1/gpt/run1"], states["w-1/gpt/run1"]) == ("cancelled", "pending")
    assert job.starts() == {"b-1": 1, "r-1": 1}
    assert (job.batch / "r-1/gpt/run1/attempt1/manifest.json").exists()
    assert "--halt now" in job.run("why", "r-1").out


def test_halt_now_does_not_wait_for_the_evals_it_ends(jobs: list[SmallJob], farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = made(jobs, farm_hosts, tmp_path / "a", {"eval1": ["b-1"], "eval2": ["r-1"]})
    (farm_hosts.homes["eval2"] / "seconds").write_text("60")
    (farm_hosts.homes["eval1"] / "seconds").write_text("2")
    spoil(job, "eval1", "b-1")
    said = job.run("dispatch", job.assignment, "--halt", "now,fail=1")
    assert said.code & 8, said.err
    assert job.states()["r-1/gpt/run1"] == "cancelled"


@fault("H8")
def test_an_eval_that_hangs_is_shown_as_stalled_and_moves_again_without_having_been_touched(
    jobs: list[SmallJob], farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = made(jobs, farm_hosts, tmp_path / "a", {"eval1": ["s-1"]})
    pipeline = job.directory / "remote_scripts" / "small" / "pipeline.yaml"
    pipeline.write_text(pipeline.read_text() + "stall_after_s: 1.5\n")
    home = farm_hosts.homes["eval1"]
    (home / "work" / "eval.sh").write_text(
        "#!/bin/sh\n"
        'echo "$1" >> "$HOME/starts"\n'
        'mkdir -p "$FLEET_OUTPUT_DIR"\ncp -r "$HOME/results/$1/." "$FLEET_OUTPUT_DIR"\n'
        'for n in $(seq 40); do echo "step $n"; sleep 0.1; done\n'
        'echo "$1" >> "$HOME/stops"\n'
    )
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: job.starts())
    stopped = stop_tree(home)
    try:
        wait_until(lambda: records(job, "stalled"))
        (row,) = job.run("status", "--offline", "--json").json["hosts"]
        assert (row["state"], row["task"]) == ("stalled", "s-1/gpt/run1")
        assert row["stalled_since"] is not None
        assert job.states() == {"s-1/gpt/run1": "running"}
        (shown,) = job.run("dashboard", "--json").json["hosts"]
        assert (shown["status"], bool(shown["stalled_since"])) == ("busy", True)
        assert "STALLED" in job.run("dashboard").out
        assert "is STALLED: neither its log nor CPU nor containers moved since" in job.run("why", "s-1").out
        # The lock is still held: nobody else gets the host.
        other = made(jobs, farm_hosts, tmp_path / "b", {"eval1": ["o-1"]})
        (home / "work" / "eval.sh").chmod(0o755)
        said = other.run("dispatch", other.assignment)
        assert said.code == 64, said.err
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: records(job, "moving"))
    said = finish(process)
    assert said.code == 0, said.err
    assert "STALLED on eval1" in said.err
    assert "moves again on eval1" in said.err
    assert job.starts() == {"s-1": 1}
    assert records(job, "cancel") == []


def stop_tree(home: Path) -> list[int]:
    """Stop the eval's tree, as a hung disk would; return its pids."""
    (directory,) = (home / ".fleet" / "attempts").glob("*/started.json")
    attempt = directory.parent.name.encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"FLEET_ATTEMPT=" + attempt in environ.split(b"\0"):
                found.append(int(entry.name))
    for pid in found:
        os.kill(pid, signal.SIGSTOP)
    return found
