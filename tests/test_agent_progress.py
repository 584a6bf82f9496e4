"""What a host tells of a running eval's progress: it moves while the eval works, and stands still when it does not."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import AgentClient
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import agent_source
from fleet.transport import SshConnector
from tests.support.agent_host import AgentHost, eventually, kill
from tests.support.catalogue import fault
from tests.support.containers import ContainerFleet

BUSY = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"


def progress(host: AgentHost) -> dict[str, Any]:
    found = host.status()["progress"]
    assert set(found) == {"log_bytes", "cpu_s", "containers", "containers_cpu_s"}
    return dict(found)


def test_a_working_eval_uses_processor_time_also_that_of_children_that_have_ended(host: AgentHost) -> None:
    host.launch(f"while :; do sh -c '{BUSY}'; done")
    host.await_start()
    seen = []
    for _ in range(4):
        time.sleep(0.4)
        seen.append(progress(host)["cpu_s"])
    assert seen == sorted(seen) and seen[-1] - seen[0] > 0.2, seen


def test_an_eval_that_sleeps_stands_still(host: AgentHost) -> None:
    host.launch("echo begun; exec sleep 60")
    eventually(lambda: progress(host)["log_bytes"] == 6, "it has printed")
    time.sleep(0.3)
    first = progress(host)
    time.sleep(1.0)
    assert progress(host) == first
    # No container was asked about, so nothing is known of any.
    assert (first["containers"], first["containers_cpu_s"]) == (None, None)


@fault("H8")
def test_a_stopped_tree_is_still_told_of_and_stands_still_and_keeps_its_host(host: AgentHost) -> None:
    host.launch(f"while :; do echo x; {BUSY}; done")
    host.await_start()
    time.sleep(0.3)
    pids = [host.supervisor(), host.runner(), host.evaluation()]
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    first = progress(host)
    stream = host.client.wait("a1", beat_s=0.3, max_s=30, progress_s=0.3)
    told = [next(stream)[0] for _ in range(4)]
    stream.close()  # type: ignore[attr-defined]
    assert {status["state"] for status in told} == {"running"}
    assert [status["progress"] for status in told] == [first] * 4
    with pytest.raises(Exception, match="an eval is running here"):
        host.launch("true", "b1")
    for pid in pids:
        kill(pid, signal.SIGCONT)
    eventually(lambda: progress(host) != first, "it moves again")


def test_progress_is_told_without_supervisor_and_runner(host: AgentHost) -> None:
    host.launch(f"while :; do {BUSY}; done")
    host.await_start()
    for pid in (host.supervisor(), host.runner()):
        kill(pid)
    first = progress(host)["cpu_s"]
    eventually(lambda: progress(host)["cpu_s"] > first, "its processor time grows")


@fault("E2")
def test_a_log_at_its_cap_is_no_standstill(host: AgentHost) -> None:
    host.launch("head -c 1200000 /dev/zero; while :; do echo more; sleep 0.05; done", max_log_mb=1)
    eventually(lambda: host.status()["log_size"] >= 1 << 20, "the log is at its cap")
    time.sleep(0.3)
    first = progress(host)["log_bytes"]
    time.sleep(0.5)
    status = host.status()
    assert status["log_size"] == 1 << 20
    assert first < status["progress"]["log_bytes"] < first + 10_000


def test_an_ended_attempt_has_no_progress(host: AgentHost) -> None:
    host.launch("true")
    assert host.wait()["progress"] is None


def test_a_beat_repeats_the_counts_until_they_are_due_and_the_log_at_once(host: AgentHost) -> None:
    host.launch(f"while :; do echo x; {BUSY}; done")
    stream = host.client.wait("a1", beat_s=0.2, max_s=30)
    told = [next(stream)[0]["progress"] for _ in range(8)]
    stream.close()  # type: ignore[attr-defined]
    assert len({one["cpu_s"] for one in told[3:]}) == 1
    assert len({one["log_bytes"] for one in told}) > 3


def test_waiting_with_progress_costs_a_two_thousandth_of_a_core(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    # Beats of 10 s and a count a minute, sped up sixty times.
    beats = 6.0
    stream = host.client.wait("a1", beat_s=1 / beats, max_s=60, progress_s=1.0)
    next(stream)
    (waiter,) = [pid for pid, command in host.pids().items() if "exec(eval(" in command and "/bin/sh" not in command]

    def used() -> float:
        fields = Path(f"/proc/{waiter}/schedstat").read_text().split()
        return int(fields[0]) / 1e9

    before, begun, count = used(), time.monotonic(), 0
    while time.monotonic() - begun < 3.0:
        next(stream)
        count += 1
    minutes = count / beats
    share = (used() - before) / minutes / 60
    stream.close()  # type: ignore[attr-defined]
    print(f"waiting: {share:.4%} of a core, {len(os.listdir('/proc'))} entries in /proc")
    assert share < 0.0005


def test_containers_are_counted_from_either_kind_of_control_groups(tmp_path: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "fleet_host", "__file__": str(tmp_path / "fleet_host.py")}
    exec(compile(agent_source(), "fleet_host.py", "exec"), namespace)
    old, new = "a" * 64, "b" * 64
    attempt = tmp_path / "attempts" / "a1"
    attempt.mkdir(parents=True)
    (attempt / "baseline.json").write_text(f'{{"containers": ["{old}"]}}')
    namespace["ATTEMPTS"] = str(tmp_path / "attempts")
    for root, group, name, text in (
        ("v1", "cpuacct/docker/{}", "cpuacct.usage", "2500000000\n"),
        ("v2", "system.slice/docker-{}.scope", "cpu.stat", "usage_usec 2500000\nuser_usec 1\n"),
    ):
        (tmp_path / root).mkdir()
        (tmp_path / root / "cgroup.controllers").write_text("cpu\n")
        for identity in (old, new):
            directory = tmp_path / root / group.format(identity)
            directory.mkdir(parents=True)
            (directory / name).write_text(text)
        assert namespace["containers_cpu"]("a1", str(tmp_path / root)) == (1, 2.5)
    assert namespace["containers_cpu"]("a1", str(tmp_path / "none")) == (None, None)


@pytest.mark.containers
def test_containers_of_the_attempt_are_counted_on_a_real_engine(eval_hosts: ContainerFleet) -> None:
    inventory = load_inventory(eval_hosts.hosts_file)
    with SshConnector(inventory.defaults) as connector:
        transport = connector.open(inventory.get("eval1"))
        watch_containers(eval_hosts, AgentClient(transport, agent_source()))
        transport.close()


def watch_containers(eval_hosts: ContainerFleet, client: AgentClient) -> None:
    eval_hosts.shell("eval1", "docker run -d --network none --name older fleet-eval-base sleep 600")
    script = f"docker run --rm --network none fleet-eval-base sh -c 'while :; do {BUSY}; done'"
    spec = AgentHost.spec(script, preflight={"docker": True}, workdir="~", cleanup={"containers": "remove", "grace_s": 1})
    client.launch(attempt="a1", key=AgentHost.key("a1"), spec=spec)

    def told() -> dict[str, Any]:
        return dict(client.status(["a1"])["attempts"][0]["progress"])

    try:
        eventually(lambda: told()["containers"] == 1, "one container is the attempt's", 30)
        first = told()
        eventually(lambda: told()["containers_cpu_s"] > first["containers_cpu_s"] + 0.2, "its processor time grows", 30)
        eval_hosts.shell("eval1", "docker pause $(docker ps -q --filter ancestor=fleet-eval-base | head -1)")
        time.sleep(0.3)
        still = told()
        time.sleep(1.0)
        assert told() == still
    finally:
        eval_hosts.shell("eval1", "docker unpause $(docker ps -q --filter status=paused); docker rm -f older")
        client.cancel("a1", None, 1)
