"""Faults of processes, locks, ids and clocks on a host: stopped, deleted, reused, skewed; seen by the real agent."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fleet.errors import AgentError
from fleet.inventory.pipelines import agent_source
from tests.support.agent_host import AgentHost, agent_host, eventually, gone, kill
from tests.support.catalogue import fault

NAIVE = b"\nguard_held = lambda: False\ntake_guard = lambda: socket.socket()\nattempt_processes = lambda: []\n"
"""The agent as it would be with flock alone."""


def refusal(host: AgentHost, attempt: str = "b1") -> AgentError:
    with pytest.raises(AgentError) as caught:
        host.launch("true", attempt)
    return caught.value


@fault("H8")
def test_a_stopped_tree_keeps_its_host_and_a_cancel_ends_it(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    host.await_start()
    tree = [host.supervisor(), host.runner(), host.evaluation()]
    for pid in tree:
        kill(pid, signal.SIGSTOP)
    assert host.state() == "running"
    assert refusal(host).code == "busy"
    # Nothing moves: this is what a controller compares to call it stalled.
    assert host.status()["progress"] == host.status()["progress"]
    answer = host.client.cancel("a1", 1, 1)
    assert (answer["outcome"], answer["processes_left"], answer["status"]["cancelled"]) == ("cancelled", 0, True)
    assert all(map(gone, tree))
    assert host.launch("true", "b1")["outcome"] == "started"
    assert host.starts("a1") == ["a1"]


@fault("H14")
def test_a_lock_file_alone_would_let_a_second_eval_start_when_it_is_deleted(host: AgentHost, tmp_path: Path) -> None:
    host.launch("exec sleep 60")
    host.await_start()
    running = host.evaluation()
    shutil.rmtree(host.fleet)
    error = refusal(host)
    assert error.code == "busy" and host.starts() == ["a1"]
    assert not gone(running)
    with agent_host(tmp_path / "naive", source=agent_source() + NAIVE) as naive:
        naive.launch("exec sleep 60")
        naive.await_start()
        first = naive.evaluation()
        shutil.rmtree(naive.fleet)
        assert naive.launch("exec sleep 61", "b1")["outcome"] == "started"
        naive.await_start("b1")
        assert not gone(first), "two evals at once: the fault is real"


REUSE = """
import json, os, signal, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import fleet_host

def spawn(after=None):
    if after is not None:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(after))
    return subprocess.Popen(["sleep", "60"])

dead = spawn()
marker = {"pid": dead.pid, "starttime": fleet_host.process_stat(dead.pid)[1], "boot_id": fleet_host.boot_id()}
dead.kill()
dead.wait()
time.sleep(0.05)
innocent = spawn(after=dead.pid - 1)
directory = os.path.join(fleet_host.ATTEMPTS, "a1")
os.makedirs(directory)
with open(os.path.join(directory, "started.json"), "w") as file:
    json.dump(marker, file)
told = fleet_host.stop_supervisor(directory)
time.sleep(0.2)
after_fleet = innocent.poll()
os.kill(marker["pid"], signal.SIGTERM)
print(json.dumps({"reused": innocent.pid == dead.pid, "told": told, "fleet": after_fleet, "naive": innocent.wait()}))
"""


@fault("H15")
def test_a_reused_process_id_is_not_signalled_though_its_number_is_the_supervisors(tmp_path: Path) -> None:
    (tmp_path / "fleet_host.py").write_bytes(agent_source())
    script = tmp_path / "reuse.py"
    script.write_text(REUSE)
    argv = ["unshare", "-pf", "--mount-proc", sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(
        argv, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True, timeout=30, check=False
    )
    said = json.loads(done.stdout or b"{}")
    assert said == {"reused": True, "told": False, "fleet": None, "naive": -signal.SIGTERM}, done.stderr.decode()


@fault("H16")
@pytest.mark.parametrize("offset", ["+2h", "-2h"])
def test_ages_and_limits_do_not_follow_a_clock_that_is_hours_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offset: str
) -> None:
    # What python3 is on this host: the real one, with a clock of its own; only time that cannot be set is left alone.
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    wrapper = bin_directory / "python3"
    wrapper.write_text(
        f'#!/bin/sh\nFAKETIME_DONT_FAKE_MONOTONIC=1 exec faketime -f {offset} {shutil.which("python3", path="/usr/bin")} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setattr("fleet.testing.local._PATH", f"{bin_directory}:/usr/local/bin:/usr/bin:/bin")
    with agent_host(tmp_path / "eval1") as skewed:
        skew = skewed.client.probe({})["time"] - time.time()
        assert abs(abs(skew) - 7200) < 60, "the host's clock is off"
        skewed.launch("sleep 0.5; exit 3", timeout_s=30)
        status = skewed.wait()
        assert (status["rc"], status["timed_out"]) == (3, False)
        assert 0.3 < status["elapsed_s"] < 20
        skewed.launch("exec sleep 60", "b1")
        skewed.await_start("b1")
        assert 0 <= skewed.status("b1")["elapsed_s"] < 20
        foreign = subprocess.Popen(["sleep", "61.25"], env={"HOME": str(skewed.home)})
        try:
            (seen,) = skewed.client.probe({"processes": [r"sleep 61\.25"]})["processes"]
            assert 0 <= seen["elapsed_s"] < 20
        finally:
            foreign.kill()
            foreign.wait()


@fault("E5")
def test_an_eval_that_sheds_every_descriptor_and_kills_its_parents_is_not_started_twice(host: AgentHost) -> None:
    shed = (
        "import os,time; parent=os.getppid(); grand=int(open('/proc/%d/stat'%parent).read().rsplit(')',1)[1].split()[1]); "
        "os.closerange(0,4096); os.kill(parent,9); os.kill(grand,9); time.sleep(60)"
    )
    host.launch(f'exec python3 -c "{shed}"')
    eventually(lambda: host.state() == "lost", "nobody holds the host for it any more")
    error = refusal(host)
    assert error.code == "held" and "of attempt a1" in error.message
    assert refusal(host, "c1").code == "held"
    again = host.client.launch(attempt="a1", key=host.key("a1"), spec=host.spec(f'exec python3 -c "{shed}"'), batch="phase8")
    assert (again["outcome"], again["status"]["state"]) == ("already", "lost")
    assert host.starts() == ["a1"]
    assert host.client.cancel("a1", 1, 1)["processes_ended"] >= 1
    assert host.launch("true", "b1")["outcome"] == "started"


@fault("E7")
def test_what_a_later_eval_writes_among_sealed_outputs_is_left_there_and_named(host: AgentHost) -> None:
    host.launch("echo mine > $FLEET_OUTPUT_DIR/output.jsonl")
    host.wait()
    host.launch("echo planted > ~/.fleet/attempts/a1/out/planted.json; echo own > $FLEET_OUTPUT_DIR/output.jsonl", "b1")
    host.wait("b1")
    manifest = host.client.manifest("a1")
    assert [one["path"] for one in manifest["files"]] == ["output.jsonl"]
    assert manifest["skipped"] == [{"path": "planted.json", "why": "written after the outputs were sealed"}]
    assert [one["path"] for one in host.client.manifest("b1")["files"]] == ["output.jsonl"]
    assert host.client.manifest("b1")["skipped"] == []
