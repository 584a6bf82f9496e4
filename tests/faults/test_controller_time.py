"""The controller is suspended, its connections die, and the clock is set: no eval is given up, and the times say so."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from fleet.dispatch.clockwatch import GAP_S, LOOK_EVERY_S, ClockWatch, Noticed
from fleet.dispatch.state.replay import is_back, replay
from fleet.model.records import BatchHalted, ClockSet
from tests.support.catalogue import fault
from tests.support.operator import finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

NAP = """
import sys
from fleet.cli.main import main
from fleet.dispatch import clockwatch, controller, executor
clockwatch.LOOK_EVERY_S = controller.LOOK_EVERY_S = 0.2
clockwatch.GAP_S = 0.5
executor.BEAT_S = 0.3
"""
RUN = "main(sys.argv[1:])"
"""The command, with a look at the clocks every 0.2 s, and a second counted as having slept."""
PAUSE = "controller.BACKOFF_S = (60.0,)\n"
"""A minute from a failure to the next call."""
BLIND = "clockwatch.ClockWatch.look = lambda self: clockwatch.Noticed()\n"
"""What shows that a test can fail: the same command without its look at the clocks."""
SLEEP = """
import threading, time
time.sleep = lambda seconds: threading.Event().wait(seconds) and None
"""
"""faketime 0.9 refuses the sleep of Python 3.11 (an absolute time of a clock that it leaves alone), and no other wait."""


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@fault("C4")
def test_a_controller_that_was_suspended_while_its_connections_died_takes_its_evals_up_again(
    farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["sleep-1", "sleep-3"], "eval2": ["sleep-2"]}, seconds=3.0)
    process = job.start_as(NAP + RUN, "dispatch", job.assignment, "--patience", "4")
    wait_until(lambda: sum(job.starts().values()) == 2)
    wait_until(lambda: sum(record["type"] == "started" for record in job.journal()) == 2)
    with slept(process):
        for host in job.hosts:
            farm_hosts.stop_host(host)
        time.sleep(4.5)
        for host in job.hosts:
            farm_hosts.start_host(host)
        before = len(job.journal())
    said = finish(process)
    assert said.code == 0, said.err
    after = job.journal()[before:]
    assert not [record for record in after if record.get("state") == "lost"]
    assert [record["link"] for record in after if record["type"] == "link"].count("ok") >= 2
    job.assert_each_ran_once()


@fault("C4")
@pytest.mark.parametrize("blind", [False, True])
def test_patience_and_pauses_that_ran_on_while_the_controller_slept_count_against_nobody(
    farm_hosts: SshdFarm, tmp_path: Path, blind: bool
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["sleep-1"], "eval2": ["sleep-2"]}, seconds=1.0)
    process = job.start_as(NAP + PAUSE + BLIND * blind + RUN, "dispatch", job.assignment, "--patience", "6")
    wait_until(lambda: sum(record["type"] == "started" for record in job.journal()) == 2)
    for host in job.hosts:
        farm_hosts.stop_host(host)
    # Both hosts are being waited for now, a minute each, and its patience has begun to run.
    wait_until(lambda: sum(record.get("link") == "unreachable" for record in job.journal()) == 2)
    with slept(process):
        time.sleep(7.0)
        for host in job.hosts:
            farm_hosts.start_host(host)
    woken = time.monotonic()
    said = finish(process)
    if blind:
        assert said.code == 4, "without the look at the clocks it gives up"
        assert job.run("dispatch", job.assignment).code == 0
    else:
        assert said.code == 0, said.err
        assert time.monotonic() - woken < 20.0, "the hosts are called again at once"
    job.assert_each_ran_once()


@fault("C4")
@pytest.mark.parametrize("blind", [False, True])
def test_an_eval_is_not_called_stalled_for_the_time_in_which_nobody_looked(
    farm_hosts: SshdFarm, tmp_path: Path, blind: bool
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["sleep-1"]}, seconds=8.0)
    pipeline = tmp_path / "remote_scripts" / "small" / "pipeline.yaml"
    pipeline.write_text(pipeline.read_text() + "stall_after_s: 4\n")
    process = job.start_as(NAP + BLIND * blind + RUN, "dispatch", job.assignment)
    wait_until(lambda: job.starts() == {"sleep-1": 1})
    time.sleep(1.0)
    with slept(process):
        time.sleep(5.0)
    said = finish(process)
    assert said.code == 0, said.err
    stalled = [record for record in job.journal() if record["type"] == "stalled"]
    assert len(stalled) == blind, stalled


@contextmanager
def slept(process: subprocess.Popen[str]) -> Iterator[None]:
    """Stop a process for as long as the block takes."""
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: stopped(process.pid))
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def under_faketime(directory: Path, days: int) -> dict[str, str]:
    """Return the environment of a real command whose wall clock, and no other, is so many days off; `set_clock` moves it."""
    (directory / "python").mkdir(parents=True)
    (directory / "python" / "sitecustomize.py").write_text(SLEEP)
    set_clock(directory, days)
    return {
        "LD_PRELOAD": str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))),
        "FAKETIME_TIMESTAMP_FILE": str(directory / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": str(directory / "python"),
    }


def set_clock(directory: Path, days: int) -> None:
    """Set the clock, in one step."""
    (directory / "new").write_text(f"{days:+d}d\n")
    (directory / "new").rename(directory / "clock")


@fault("C12")
@pytest.mark.parametrize("days", [-1, 1])
def test_a_clock_that_is_set_by_a_day_during_a_run_ends_nothing_and_is_noted(
    farm_hosts: SshdFarm, tmp_path: Path, days: int
) -> None:
    env = under_faketime(tmp_path / "time", 0)
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["clock-1", "clock-2"]}, seconds=1.0, env=env)
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: job.starts() == {"clock-1": 1})
    set_clock(tmp_path / "time", days)
    said = finish(process)
    assert said.code == 0, said.err
    job.assert_each_ran_once()
    (noted,) = [record for record in job.journal() if record["type"] == "clock"]
    assert abs(noted["seconds"] - days * 86_400) < 5.0
    times = [datetime.fromisoformat(record["t"]).timestamp() for record in job.journal()]
    assert abs(times[0] - time.time()) < 120 and abs(times[-1] - time.time() - days * 86_400) < 120
    assert "the clock here was set meanwhile" in said.out
    summary = json.loads((job.batch / "summary.json").read_text())
    assert summary["clock_set"] is True
    # The hosts measure with a clock that nobody sets.
    assert 0.9 < summary["total"]["duration_s"]["max"] < 10.0


@fault("C12")
@pytest.mark.parametrize("days", [-1, 1])
def test_a_batch_resumed_with_a_clock_a_day_off_starts_nothing_twice_and_times_nothing_out(
    farm_hosts: SshdFarm, tmp_path: Path, days: int
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["resumed-1"]}, seconds=1.5)
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: any(record["type"] == "started" for record in job.journal()))
    process.kill()
    finish(process)
    job.env |= under_faketime(tmp_path / "time", days)
    said = job.run("dispatch", job.assignment)
    assert said.code == 0, said.err
    job.assert_each_ran_once()
    assert json.loads((job.batch / "summary.json").read_text())["clock_set"] is (days < 0)


def test_a_late_look_is_having_stood_still_and_a_clock_apart_from_the_others_was_set() -> None:
    steady, wall = [0.0], [1000.0]
    watch = ClockWatch(lambda: steady[0], lambda: wall[0])

    def after(steady_s: float, wall_s: float) -> Noticed:
        steady[0] += steady_s
        wall[0] += wall_s
        return watch.look()

    assert after(5.0, 5.1) == Noticed()
    assert after(LOOK_EVERY_S + GAP_S - 1, LOOK_EVERY_S + GAP_S - 1) == Noticed()
    assert after(90.0, 90.0) == Noticed(stood_still_s=90.0)
    assert after(1.0, -3599.0) == Noticed(wall_set_by_s=-3600.0)
    assert after(100.0, 200.0) == Noticed(stood_still_s=100.0, wall_set_by_s=100.0)


def test_records_of_writers_beside_each_other_are_no_clock_that_was_set() -> None:
    assert not is_back("2026-11-21T03:00:20.000Z", "2026-11-21T03:00:00.000Z")
    assert is_back("2026-11-21T03:00:20.000Z", "2026-11-20T03:00:20.000Z")
    assert not is_back("", "2026-11-20T03:00:20.000Z")
    calm = [BatchHalted(reason="x", t="2026-11-21T03:00:20.000Z"), BatchHalted(reason="y", t="2026-11-21T03:00:10.000Z")]
    assert not replay(calm).clock_set
    assert replay([*calm, BatchHalted(reason="z", t="2026-11-20T03:00:00.000Z")]).clock_set
    assert replay([*calm, ClockSet(seconds=86_400.0)]).clock_set
