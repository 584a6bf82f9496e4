"""Signals at any time, closed streams, no terminal: the controller leaves, its evals stay, and nobody is asked anything."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.operator import finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

SEED = 3
MANNERS = [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGHUP, 1), (signal.SIGINT, 2), (signal.SIGTERM, 2)]


@fault("C3")
@pytest.mark.parametrize(("number", "times"), MANNERS)
def test_a_signal_at_any_time_ends_the_controller_and_no_eval(
    farm_hosts: SshdFarm, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["sig-1", "sig-2"], "eval2": ["sig-3"]}, seconds=0.6)
    choice = random.Random(f"{SEED} {number} {times}")
    for _ in range(1 + times % 2):
        before = len(job.journal())
        process = job.start("dispatch", job.assignment)
        wait_until(lambda known=before: len(job.journal()) > known, every_s=0.005)
        time.sleep(choice.uniform(0.0, 0.8))
        for _ in range(times):
            process.send_signal(number)
            time.sleep(choice.uniform(0.0, 0.01))
        said = finish(process)
        assert said.code == 130, said.err
        assert "Traceback" not in said.err
    said = job.run("dispatch", job.assignment)
    assert said.code == 0, said.err
    job.assert_each_ran_once()


@fault("C3")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_who_leaves_evals_behind_is_told_how_many_and_how_to_attach_and_to_end_them(
    farm_hosts: SshdFarm, tmp_path: Path, number: signal.Signals
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["left-1"], "eval2": ["left-2"]}, seconds=2.0)
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: sum(record["type"] == "started" for record in job.journal()) == 2)
    began = time.monotonic()
    process.send_signal(number)
    said = finish(process)
    assert (said.code, time.monotonic() - began < 2.0) == (130, True)
    assert "still running on 2 hosts: 2 evals" in said.err
    assert f"to attach again: fleet dispatch {job.assignment}\n" in said.err
    assert "to end them: fleet cancel --all --batch small\n" in said.err
    assert not any((farm_hosts.homes[host] / "stops").exists() for host in job.hosts)
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()


@fault("C3")
def test_a_signal_before_anything_was_begun_says_so(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["early-1"]})
    program = "import os, signal\nimport fleet.dispatch.files.batch as batch\nfrom fleet.cli.main import main\nimport sys\n"
    program += "batch.Batch.prepare = lambda self: os.kill(os.getpid(), signal.SIGTERM)\nmain(sys.argv[1:])\n"
    said = finish(job.start_as(program, "dispatch", job.assignment))
    assert (said.code, job.starts()) == (130, {})
    assert said.err.endswith("interrupted\n")


@fault("C13")
def test_a_controller_without_any_open_stream_does_its_work(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["mute-1", "mute-2"]})
    command = f"exec {sys.executable} -m fleet dispatch {job.assignment} <&- >&- 2>&-"
    done = subprocess.run(["setsid", "--wait", "bash", "-c", command], cwd=job.directory, env=job.env, timeout=60, check=False)
    assert done.returncode == 0
    job.assert_each_ran_once()
    assert set(job.states().values()) == {"accepted"}


@fault("C13")
@pytest.mark.parametrize(
    "words", ["dispatch {file} 2>&1", "status small --offline", "dashboard small", "logs sig-1 --batch small"]
)
def test_a_reader_that_goes_away_is_no_error(farm_hosts: SshdFarm, tmp_path: Path, words: str) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["sig-1"]})
    if "dispatch" not in words:
        assert job.run("dispatch", job.assignment).code == 0
    command = f"{sys.executable} -m fleet {words.format(file=job.assignment)} | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["setsid", "--wait", "bash", "-c", command],
        cwd=job.directory, env=job.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""
    assert job.starts() == {"sig-1": 1}
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()


@fault("C13")
@pytest.mark.parametrize("stdin", ["closed", "/dev/null"])
def test_nobody_is_asked_anything_where_nobody_can_answer(farm_hosts: SshdFarm, tmp_path: Path, stdin: str) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["ask-1"]})
    assert job.run("dispatch", job.assignment).code == 0
    redirect = "<&-" if stdin == "closed" else "</dev/null"
    for words in ("cancel --all --batch small", "trust eval1"):
        done = subprocess.run(
            ["setsid", "--wait", "bash", "-c", f"exec {sys.executable} -m fleet {words} {redirect}"],
            cwd=job.directory, env=job.env, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        assert "[y/N]" not in done.stdout + done.stderr
    assert os.path.exists(job.journal_file)
