"""A host that has vanished is given up after `dead_after`, also where the kernel cannot notice: its peer goes on answering."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.agent import AgentClient
from fleet.errors import NoAnswer
from fleet.inventory import load_inventory
from fleet.model.hosts import Defaults
from fleet.transport import SshConnector
from fleet.transport.openssh import write_config
from tests.conftest import end_processes_of
from tests.support.operator import wait_until
from tests.support.sshd_farm import SshdFarm

QUICK = Defaults(connect_timeout=2.5, banner_timeout=2, dead_after=3)
SILENT_AGENT = (
    b'def main(request, stdin):\n    import pathlib, time\n    (pathlib.Path.home() / "silent").touch()\n    time.sleep(60)\n'
)


@contextmanager
def frozen(farm: SshdFarm, name: str) -> Iterator[None]:
    """Stop the sshd processes that serve a host's connections: TCP lives on, nobody answers."""
    pids = farm.sessions(name)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_host_that_vanishes_behind_a_jump_host_is_given_up_after_the_hosts_own_deadline(farm_hosts: SshdFarm) -> None:
    inventory = load_inventory(farm_hosts.hosts_file)
    host = inventory.get("eval2").model_copy(update={"jumps": (inventory.get("eval1").hop,)})
    refused: list[tuple[str, float]] = []

    def ask(client: AgentClient) -> None:
        try:
            client.status()
        except NoAnswer as error:
            refused.append((error.message, time.monotonic()))

    with SshConnector(QUICK) as connector:
        asking = threading.Thread(target=ask, args=(AgentClient(connector.open(host), SILENT_AGENT),))
        asking.start()
        wait_until((farm_hosts.homes["eval2"] / "silent").exists, 15)
        with frozen(farm_hosts, "eval2"):
            began = time.monotonic()
            asking.join(30)
    end_processes_of(farm_hosts.homes["eval2"])
    ((said, when),) = refused
    assert said == "the connection to eval2 is dead"
    assert when - began < QUICK.dead_after + 1.5


def test_the_ssh_that_rsync_runs_gives_a_vanished_host_up_as_soon_as_the_open_connection_would(
    farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    with SshConnector(QUICK) as connector:
        chain = connector.open(load_inventory(farm_hosts.hosts_file).get("eval1"))._chain
        config = str(write_config(tmp_path, chain, QUICK))
    ssh = subprocess.Popen(
        ["ssh", "-F", config, "fleet-target", "touch ~/asleep; exec sleep 60"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        wait_until((farm_hosts.homes["eval1"] / "asleep").exists, 15)
        with frozen(farm_hosts, "eval1"):
            began = time.monotonic()
            ssh.communicate(timeout=30)
            assert time.monotonic() - began < QUICK.dead_after + 1.5
    finally:
        ssh.kill()
        ssh.communicate()
        end_processes_of(farm_hosts.homes["eval1"])
    assert ssh.returncode == 255


@pytest.mark.parametrize(
    ("defaults", "asked"),
    [
        (Defaults(), {"connecttimeout": "10", "serveraliveinterval": "5", "serveralivecountmax": "2"}),
        (QUICK, {"connecttimeout": "3", "serveraliveinterval": "1", "serveralivecountmax": "2"}),
        (Defaults(connect_timeout=30, dead_after=120), {"connecttimeout": "30", "serveraliveinterval": "40"}),
    ],
    ids=["default", "quick", "patient"],
)
def test_openssh_reads_the_deadlines_of_the_hosts_file_in_what_it_is_given(
    defaults: Defaults, asked: dict[str, str], farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    with SshConnector(defaults) as connector:
        chain = connector.open(load_inventory(farm_hosts.hosts_file).get("eval1"))._chain
        argv = ["ssh", "-G", "-F", str(write_config(tmp_path, chain, defaults)), "fleet-target"]
    shown = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    effective = dict(line.split(" ", 1) for line in shown if " " in line)
    assert {name: effective[name] for name in asked} == asked
