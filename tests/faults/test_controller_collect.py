"""The controller dies while a result is on its way: nothing half is published, and what came is not sent again."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.operator import finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

SIZE = 3_000_000
KILOBYTES_PER_S = 700


def install_rsync(directory: Path, options: str, log: Path) -> None:
    """Put an rsync first on the PATH that takes further options and keeps what it says."""
    directory.mkdir(exist_ok=True)
    program = directory / "rsync"
    program.write_text(
        f'#!/bin/bash\nset -o pipefail\n[ "$1" = --version ] && exec /usr/bin/rsync --version\n'
        f'/usr/bin/rsync {options} "$@" | tee -a {log}\n'
    )
    program.chmod(0o755)


def rsyncs(staging: Path) -> list[int]:
    """Return the processes that write below a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and str(staging).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


@fault("C2")
@pytest.mark.parametrize("also_rsync", [False, True], ids=["the controller", "the controller and its rsync"])
def test_a_controller_killed_during_a_transfer_leaves_no_half_result_and_the_next_goes_on_from_there(
    farm_hosts: SshdFarm, tmp_path: Path, also_rsync: bool
) -> None:
    job = SmallJob(tmp_path / "op", farm_hosts, {"eval1": ["half-1"]}, padding=SIZE)
    log, tools = tmp_path / "said", tmp_path / "bin"
    install_rsync(tools, f"--bwlimit={KILOBYTES_PER_S}", log)
    job.env["PATH"] = f"{tools}:{job.env['PATH']}"
    final = job.batch / "half-1/gpt/run1/attempt1"
    staging = final.with_name("attempt1.partial")

    def arrived() -> int:
        return sum(path.stat().st_size for path in staging.rglob("*") if path.is_file() and "trace.bin" in path.name)

    process = job.start("dispatch", job.assignment)
    wait_until(lambda: staging.is_dir() and arrived() > SIZE // 3, every_s=0.01)
    process.kill()
    if also_rsync:
        for pid in rsyncs(staging):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    finish(process)
    wait_until(lambda: not rsyncs(staging), timeout_s=20)
    assert not final.exists()
    assert SIZE // 3 < arrived() < SIZE
    assert not any(record["type"] == "collected" for record in job.journal())
    log.unlink(missing_ok=True)
    install_rsync(tools, "", log)
    said = job.run("dispatch", job.assignment)
    assert said.code == 0, said.err
    job.assert_each_ran_once()
    assert not staging.exists()
    assert (final / "trace.bin").read_bytes() == (farm_hosts.homes["eval1"] / "results/half-1/trace.bin").read_bytes()
    received = sum(int(number) for number in re.findall(r"Total bytes received: (\d+)", log.read_text()))
    assert 0 < received < 0.8 * SIZE
