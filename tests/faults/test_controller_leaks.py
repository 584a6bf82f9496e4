"""What a fault costs the controller is given back: hundreds of cut connections leave no thread, descriptor or memory behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.catalogue import fault
from tests.support.operator import kill, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

CUTS = int(os.environ.get("FLEET_TEST_CUTS", "60"))
WARM_UP = 20
"""Modules are loaded, pools and caches filled: not yet counted."""
WATCHED = """
import gc, json, os, pathlib, signal, sys, threading, tracemalloc
from fleet.cli.main import main
from fleet.dispatch import controller
controller.BACKOFF_S = (0.02,)
def tell(*_):
    gc.collect()
    told = {"threads": threading.active_count(), "fds": len(os.listdir("/proc/self/fd")),
            "bytes": tracemalloc.get_traced_memory()[0], "objects": len(gc.get_objects())}
    path = pathlib.Path(os.environ["TOLD"])
    path.with_suffix(".new").write_text(json.dumps(told))
    path.with_suffix(".new").rename(path)
signal.signal(signal.SIGUSR2, tell)
tracemalloc.start()
main(sys.argv[1:])
"""


class Held(NamedTuple):
    """What a controller holds of this machine."""

    threads: int
    fds: int
    bytes: int
    objects: int


def ask(process: subprocess.Popen[str], told: Path) -> Held:
    told.unlink(missing_ok=True)
    process.send_signal(signal.SIGUSR2)
    wait_until(told.exists)
    return Held(**json.loads(told.read_text()))


def cut(job: SmallJob, host: str, times: int) -> None:
    """Kill the sessions of a host, as often as said, each time once its controller has come back."""
    for _ in range(times):
        known = len(links(job))

        def noticed(known: int = known) -> bool:
            for pid in job.farm.sessions(host):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return len(links(job)) > known

        wait_until(noticed, 30.0)
        wait_until(lambda: links(job)[-1] == "ok", 30.0)


def links(job: SmallJob) -> list[str]:
    return re.findall(r'"type":"link","host":"eval1","link":"([a-z]+)"', job.journal_file.read_text())


@contextlib.contextmanager
def watched(job: SmallJob) -> Iterator[subprocess.Popen[str]]:
    process = job.start_as(WATCHED, "dispatch", job.assignment)
    try:
        wait_until(lambda: any(record["type"] == "started" for record in job.journal()))
        yield process
    finally:
        kill(process)
        job.end()


@pytest.mark.timeout(600)
@fault("N5", "C11")
def test_connections_that_are_cut_leave_nothing_of_them_in_the_controller(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    told = tmp_path / "told"
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["cut-1"]}, seconds=600.0, env={"TOLD": str(told)})
    with watched(job) as process:
        cut(job, "eval1", WARM_UP)
        before = ask(process, told)
        cut(job, "eval1", CUTS)
        after = ask(process, told)
    print(f"{CUTS} cuts: {before} → {after}")
    assert after.threads <= before.threads
    assert after.fds <= before.fds
    assert after.bytes - before.bytes < 50_000 + 200 * CUTS
    assert job.starts() == {}, "ended with the host"
