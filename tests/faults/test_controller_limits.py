"""This machine lacks something: descriptors, threads, rsync. The controller says what, early, and keeps nothing open."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fleet.dispatch.files.batch import Batch
from fleet.dispatch.job import Job, opened
from fleet.dispatch.resolve import resolve_assignment
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.exitcodes import Exit
from fleet.transport import SshConnector
from fleet.transport.allowance import affordable
from tests.support.catalogue import fault
from tests.support.datasets import task, write_dataset
from tests.support.operator import Operator, finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm


def limited(job: Operator, limits: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = f'{limits} && exec {sys.executable} -m fleet "$@"'
    return subprocess.run(
        ["bash", "-c", command, "bash", *map(str, words)],
        cwd=job.directory, env=job.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


@fault("C11")
def test_more_hosts_than_descriptors_are_refused_with_the_number_that_is_needed(tmp_path: Path) -> None:
    hosts = "".join(f"  h{number}: {{address: 127.0.0.1, port: {1000 + number}}}\n" for number in range(200))
    (tmp_path / "hosts.yaml").write_text(f"defaults: {{pipeline: demo, user: nobody}}\nhosts:\n{hosts}")
    write_dataset(tmp_path / "d.json", "many-1")
    (tmp_path / "a.json").write_text(f'{{"*": [{str(task("many-1", "gpt", "d.json")).replace(chr(39), chr(34))}]}}')
    said = limited(Operator(tmp_path, tmp_path / "hosts.yaml"), "ulimit -n 64", "dispatch", "a.json")
    assert said.returncode == 1, said.stderr
    assert "200 hosts at once need 442 open files, and this machine allows 64" in said.stderr
    assert "→ ulimit -n 1024" in said.stderr
    assert not (tmp_path / "collected" / "a" / "journal.jsonl").exists()


@fault("C11")
def test_few_descriptors_make_the_work_slower_and_nothing_else(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = SmallJob(tmp_path, farm_hosts, {f"eval{number}": [f"few-{number}"] for number in range(1, 5)})
    said = limited(job, "ulimit -n 64", "dispatch", job.assignment)
    assert said.returncode == 0, said.stderr
    job.assert_each_ran_once()
    assert limited(job, "ulimit -n 64", "check").returncode == 0


@fault("C11")
def test_without_threads_left_it_is_said_so_and_the_same_command_goes_on(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = SmallJob(tmp_path, farm_hosts, {f"eval{number}": [f"threads-{number}"] for number in range(1, 5)}, seconds=0.3)
    # A thread's stack takes 1 GB of the address space here: a handful fits.
    said = limited(job, "ulimit -s 1048576 && ulimit -v 5500000", "dispatch", job.assignment, "-q")
    assert said.returncode == Exit.LOCAL, (said.returncode, said.stderr)
    assert "start no further thread" in said.stderr
    assert "Traceback" not in said.stderr
    again = job.run("dispatch", job.assignment)
    assert again.code == 0, again.err
    job.assert_each_ran_once()


@fault("C11")
def test_a_run_leaves_no_descriptor_and_no_thread_behind(
    farm_hosts: SshdFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {f"eval{number}": [f"leak-{number}"] for number in range(1, 5)})
    monkeypatch.chdir(job.directory)
    inventory, pipelines = load_inventory(job.directory / "hosts.yaml"), Pipelines()

    def run(name: str) -> tuple[int, int]:
        resolved = resolve_assignment(job.assignment, inventory, pipelines)
        wanted = Job(Batch(job.collected, name), job.assignment, resolved)
        with (
            SshConnector(inventory.defaults) as connector,
            opened(wanted, inventory, pipelines, connector) as runner,
        ):
            assert runner.run().state.complete
        deadline = time.monotonic() + 10
        while threading.active_count() > threads and time.monotonic() < deadline:
            time.sleep(0.02)
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    threads = threading.active_count()
    first = run("small")
    assert first[1] == threads
    assert run("again") == first


def test_what_can_be_worked_on_at_once_follows_from_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert affordable(64, kept=10) == 64
    assert affordable(64, kept=400) == 19


@fault("C11")
def test_rsync_that_goes_away_during_a_run_costs_the_transfer_and_not_the_run(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("rsync", "ssh", "sh"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["rsync-1", "rsync-2"]}, seconds=0.5)
    whole, job.env["PATH"] = job.env["PATH"], str(tools)
    program = "import sys\nfrom fleet.cli.main import main\nfrom fleet.dispatch import controller\n"
    process = job.start_as(program + "controller.BACKOFF_S = (0.05,)\nmain(sys.argv[1:])", "dispatch", job.assignment)
    wait_until(lambda: job.starts() == {"rsync-1": 1})
    (tools / "rsync").unlink()
    said = finish(process)
    assert said.code == Exit.FAILED, said.err
    assert set(job.states().values()) == {"failed"}
    reasons = {record["reason"] for record in job.journal() if record["type"] == "collect-failed"}
    assert reasons == {"rsync is not installed on this machine → apt install rsync"}
    job.env["PATH"] = whole
    assert job.run("collect", "small").code == 0
    job.assert_each_ran_once()
