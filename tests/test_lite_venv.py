"""The sandbox of swebench_lite without Docker: the same answers, without a network, and nothing left where it ran."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.demo.scenario import pytest_places
from tests.support.lite import SLOW_MACHINE, result
from tests.support.lite_bench import SPANS, Bench
from tests.support.operator import wait_until


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_it_takes_no_pip_and_no_package_of_this_machine_but_what_is_lent(bench: Bench) -> None:
    gold = bench.run(SPANS, "--gold", "--before")
    assert (gold["status"], gold["resolved"], gold["sandbox"], gold["image_id"]) == ("pass", True, "venv", None), gold["tail"]
    assert gold["before"]["FAIL_TO_PASS"]["success"] == []
    packages = {path.name for path in (bench.directory / ".cache").rglob("site-packages/*")}
    assert {"pytest", "pluggy"} <= packages
    assert {"pip", "xdist", "hypothesis", "asyncssh"} & packages == set()
    probe = [
        "import importlib.util",
        "assert not importlib.util.find_spec('click')",
        "assert not importlib.util.find_spec('pip')",
    ]
    done = subprocess.run(
        bench.with_tests(*probe), env=bench.env, cwd=bench.directory, capture_output=True, text=True, timeout=60
    )
    assert result(done)["status"] == "fail", "the tests ran"
    assert bench.left() == []


@pytest.mark.root
def test_a_task_without_requirements_takes_no_network(bench: Bench) -> None:
    argv = ["unshare", "--net", *bench.argv(SPANS, "--gold")]
    done = subprocess.run(argv, env=bench.env, cwd=bench.directory, capture_output=True, text=True, timeout=60)
    assert result(done)["status"] == "pass", done.stdout


def test_what_is_lent_is_copied_where_pip_could_change_it(bench: Bench) -> None:
    done = bench.run(
        {**SPANS, "instance_id": "pinned", "requirements": ["iniconfig==2.0.0"], "timeouts": SLOW_MACHINE}, "--gold"
    )
    assert done["status"] == "pass", done["tail"]
    (packages,) = (bench.directory / ".cache").rglob("site-packages")
    assert not [path for path in packages.iterdir() if path.is_symlink()]
    assert (packages / "iniconfig-2.0.0.dist-info").is_dir()
    assert not [place for place in pytest_places().split(":") if (Path(place) / "iniconfig-2.0.0.dist-info").exists()]


def test_an_interpreter_that_is_gone_costs_a_new_environment_and_no_more(bench: Bench) -> None:
    assert bench.run(SPANS, "--gold")["cached"] is False
    assert bench.run(SPANS, "--gold")["cached"] is True
    (python,) = (bench.directory / ".cache").rglob("bin/python")
    python.unlink()
    again = bench.run(SPANS, "--gold")
    assert (again["status"], again["cached"]) == ("pass", False)


def test_runs_at_the_same_time_make_one_environment_and_do_not_see_each_other(bench: Bench) -> None:
    rows = [{**SPANS, "instance_id": f"spans-{number}"} for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(bench.run, row, "--gold" if number % 2 else "--null") for number, row in enumerate(rows)]
    ended = [run.result() for run in runs]
    assert [one["status"] for one in ended] == ["fail", "pass", "fail", "pass"]
    assert sum(not one["cached"] for one in ended) == 1
    assert bench.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_run_that_is_told_to_end_leaves_neither_files_nor_processes(bench: Bench, number: signal.Signals) -> None:
    hang = ("import subprocess, time", "subprocess.Popen(['sleep', '321'], start_new_session=True)", "time.sleep(300)")
    with subprocess.Popen(bench.with_tests(*hang), env=bench.env, cwd=bench.directory, stderr=subprocess.DEVNULL) as run:
        wait_until(lambda: marked(bench, b"sleep\x00321"))
        run.send_signal(number)
        assert run.wait(20) == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}[number]
    assert marked(bench) == []
    assert bench.left() == []


def test_what_tests_leave_running_ends_with_the_run(bench: Bench) -> None:
    leave = ("import subprocess", "subprocess.Popen(['sleep', '321'], start_new_session=True, stdout=-3, stderr=-3)")
    done = subprocess.run(
        bench.with_tests(*leave), env=bench.env, cwd=bench.directory, capture_output=True, text=True, timeout=60
    )
    assert result(done)["status"] == "fail", done.stdout
    assert marked(bench) == []


def test_the_next_run_removes_what_a_killed_one_left(bench: Bench) -> None:
    hang = ("import time", "time.sleep(300)")
    with subprocess.Popen(bench.with_tests(*hang), env=bench.env, cwd=bench.directory, stderr=subprocess.DEVNULL) as run:
        wait_until(lambda: marked(bench, b"-m\x00pytest"))
        (live,) = bench.temporary.iterdir()
        old = time.time() - 3600
        os.utime(live, (old, old))
        assert bench.run(SPANS, "--gold")["status"] == "pass"
        assert bench.left() == [live.name], "a run that goes on keeps its directory"
        run.kill()
    os.utime(live, (old, old))
    (bench.temporary / "swebench-lite-of-another-kind").mkdir()
    assert bench.run(SPANS, "--gold")["status"] == "pass"
    assert bench.left() == ["swebench-lite-of-another-kind"]
    assert marked(bench) == []


def test_a_python_that_makes_no_environment_is_an_error_of_the_install_stage(bench: Bench) -> None:
    broken = bench.directory / "broken"
    broken.mkdir()
    (broken / "venv.py").write_text("raise SystemExit('no venv here')\n")
    bench.env["PYTHONPATH"] = str(broken)
    done = bench.run(SPANS, "--gold")
    assert (done["status"], done["stage"]) == ("error", "install")
    assert "no venv here" in done["tail"]
    assert bench.left() == []


def marked(bench: Bench, word: bytes = b"") -> list[int]:
    """Return the processes that run in the temporary directory of the bench, and whose command line has `word`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            if f"TMPDIR={bench.temporary}/".encode() in environment and word in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found
