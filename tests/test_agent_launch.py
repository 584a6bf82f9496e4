"""At most one start per attempt, one eval per host: what launch accepts, refuses and answers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fleet.errors import AgentError
from tests.support.agent_host import AgentHost, eventually, gone, kill
from tests.support.catalogue import attack, fault

SLEEP = "exec sleep 60"


def refusal(host: AgentHost, script: str, attempt: str, **fields: object) -> AgentError:
    with pytest.raises(AgentError) as caught:
        host.launch(script, attempt, **fields)  # type: ignore[arg-type]
    return caught.value


def test_a_launch_sent_again_starts_nothing_and_says_already(host: AgentHost) -> None:
    first = host.launch("sleep 0.3")
    again = host.launch("sleep 0.3")
    assert (first["outcome"], again["outcome"]) == ("started", "already")
    assert first["epoch"] == again["epoch"] == 1
    assert host.wait()["rc"] == 0
    late = host.launch("sleep 0.3")
    assert (late["outcome"], late["status"]["state"]) == ("already", "finished")
    assert host.starts() == ["a1"]


def test_the_same_id_with_another_specification_is_a_conflict(host: AgentHost) -> None:
    host.launch("true")
    assert refusal(host, "echo other", "a1").code == "conflict"
    host.wait()
    assert refusal(host, "echo other", "a1").code == "conflict"
    assert host.starts() == ["a1"]


def test_another_attempt_of_the_same_task_is_a_duplicate_that_names_the_first(host: AgentHost) -> None:
    host.launch("true", key=host.key())
    host.wait()
    error = refusal(host, "true", "b1", key=host.key())
    assert error.code == "duplicate"
    assert error.detail["status"]["attempt"] == "a1"
    assert host.launch("true", "c1", key=host.key(run=2))["outcome"] == "started"


def test_a_retry_that_names_its_predecessor_may_start(host: AgentHost) -> None:
    host.launch("exit 1", key=host.key())
    host.wait()
    assert refusal(host, "true", "a2", key=host.key(), after=["xa1x"]).code == "duplicate"
    assert host.launch("true", "a2", key=host.key(), after=["a1"])["outcome"] == "started"


@pytest.mark.parametrize(("verdict", "allowed"), [("rejected", True), ("lost", True), ("cancelled", True), ("accepted", False)])
def test_only_a_void_result_allows_the_task_again(host: AgentHost, verdict: str, allowed: bool) -> None:
    host.launch("true", key=host.key())
    host.client.ack("a1", host.wait()["epoch"], verdict)
    if allowed:
        assert host.launch("true", "a2", key=host.key())["outcome"] == "started"
    else:
        assert refusal(host, "true", "a2", key=host.key()).code == "duplicate"


def test_an_attempt_taken_earlier_is_not_started_after_another_did_its_work(host: AgentHost) -> None:
    # Taken, and then its launcher was killed before it started anything.
    host.launch("true", "a1", key=host.key())
    host.wait("a1")
    for name in ("started.json", "rc.json", "manifest.json"):
        (host.dir("a1") / name).unlink()
    assert host.state("a1") == "accepted"
    host.launch("true", "b1", key=host.key())
    host.wait("b1")
    assert refusal(host, "true", "a1", key=host.key()).code == "duplicate"
    assert host.starts("a1") == ["a1"]


def test_a_second_task_is_refused_with_the_owner(host: AgentHost) -> None:
    host.launch(SLEEP)
    error = refusal(host, "true", "b1")
    assert error.code == "busy"
    assert error.detail["status"]["attempt"] == "a1"
    assert "a1/gpt/run1 of batch phase8" in error.message
    lock = host.lock()
    assert (lock["state"], lock["attempt"], lock["batch"], lock["task"]) == ("held", "a1", "phase8", "a1/gpt/run1")


def test_of_two_launches_at_the_same_moment_exactly_one_starts(host: AgentHost) -> None:
    for turn in range(20):
        outcomes: dict[str, str] = {}

        def launch(attempt: str, outcomes: dict[str, str] = outcomes) -> None:
            try:
                outcomes[attempt] = host.launch(SLEEP, attempt)["outcome"]
            except AgentError as error:
                outcomes[attempt] = error.code

        pair = [f"t{turn}a", f"t{turn}b"]
        threads = [threading.Thread(target=launch, args=(attempt,)) for attempt in pair]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes.values()) == ["busy", "started"], outcomes
        winner = next(attempt for attempt in pair if outcomes[attempt] == "started")
        eventually(lambda winner=winner: host.starts(winner), "the winner began")  # type: ignore[misc]
        assert not [one for one in host.starts() if one in pair and one != winner]
        kill(host.evaluation(winner))
        host.wait(winner)
    assert len(host.starts()) == 20


def test_one_attempt_sent_by_several_at_the_same_moment_starts_once(host: AgentHost) -> None:
    for turn in range(4):
        outcomes: list[str] = []

        def launch(attempt: str = f"t{turn}", outcomes: list[str] = outcomes) -> None:
            try:
                outcomes.append(host.launch("true", attempt)["outcome"])
            except AgentError as error:
                outcomes.append(f"{error.code}: {error.message}")

        threads = [threading.Thread(target=launch) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["already", "already", "already", "started"]
        host.wait(f"t{turn}")
        assert host.starts(f"t{turn}") == [f"t{turn}"]


def test_a_launch_beside_probes_is_never_refused_by_them(host: AgentHost) -> None:
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            host.client.status()

    threads = [threading.Thread(target=probe) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(6):
            assert host.launch("true", f"t{turn}")["outcome"] == "started"
            host.wait(f"t{turn}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_the_lock_is_held_while_a_kept_daemon_of_the_eval_lives(host: AgentHost) -> None:
    cleanup = {"processes": "keep", "containers": "keep", "grace_s": 1}
    # Until the daemon has become `sleep`, it carries its shell's command line.
    daemon = "setsid sleep 60 >/dev/null 2>&1 & echo $! > ~/daemon; until grep -q ^sleep /proc/$!/cmdline; do :; done"
    host.launch(daemon, cleanup=cleanup)
    status = host.wait()
    assert (status["state"], status["sealed"]) == ("held", True)
    assert [one["command"] for one in status["leftovers"]["processes"]] == ["sleep 60"]
    eventually(lambda: gone(host.supervisor()), "the supervisor is gone")
    assert host.lock()["state"] == "held"
    error = refusal(host, "true", "b1")
    assert error.code == "held" and "(sleep 60) is left over from attempt a1" in error.message
    kill(int((host.home / "daemon").read_text()))
    eventually(lambda: host.state() == "finished", "nothing is left")
    assert host.launch("true", "b1")["outcome"] == "started"


def test_a_process_that_let_go_of_the_lock_still_keeps_the_host(host: AgentHost) -> None:
    cleanup = {"processes": "keep", "containers": "keep", "grace_s": 1}
    # What Python's subprocess does for every child: inherited descriptors are closed.
    child = "import subprocess,sys;print(subprocess.Popen(['sleep','60'],start_new_session=True).pid)"
    host.launch(f'python3 -c "{child}" > ~/daemon', cleanup=cleanup)
    host.wait()
    eventually(lambda: host.lock()["state"] == "free", "the lock is free")
    error = refusal(host, "true", "b1")
    assert error.code == "held"
    assert "of attempt a1" in error.message and "sleep 60" in error.message
    assert host.client.cancel("a1", 1)["processes_ended"] >= 1
    assert gone(int((host.home / "daemon").read_text()))
    assert host.launch("true", "b1")["outcome"] == "started"


@fault("E5")
def test_scripts_that_use_low_descriptors_do_not_let_go_of_the_lock(host: AgentHost) -> None:
    host.launch("exec 3>/dev/null 4>/dev/null 5>/dev/null 6>/dev/null 7>/dev/null 8>/dev/null 9>/dev/null; exec sleep 60")
    host.await_start()
    evaluation = host.evaluation()
    eventually(lambda: "sleep" in host.pids().get(evaluation, ""), "the script is at its sleep")
    for pid in (host.supervisor(), host.runner()):
        kill(pid)
    eventually(lambda: not [one for one in host.pids().values() if "supervise" in one], "only the eval is left")
    assert host.state() == "running"
    assert refusal(host, "true", "b1").code == "busy"


@fault("H14")
def test_a_removed_fleet_directory_does_not_free_a_busy_host(host: AgentHost) -> None:
    host.launch(SLEEP)
    host.await_start()
    evaluation = host.evaluation()
    shutil.rmtree(host.fleet)
    assert refusal(host, "true", "b1").code == "busy"
    assert refusal(host, SLEEP, "a1").code == "busy"
    assert host.lock()["guard"] == "held"
    assert host.starts() == ["a1"]
    kill(evaluation)
    eventually(lambda: host.lock()["guard"] == "free", "the guard is free")
    assert host.launch("true", "b1")["outcome"] == "started"


@attack("S41")
def test_a_fleet_directory_that_is_a_link_is_refused(host: AgentHost, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    host.fleet.symlink_to(elsewhere)
    assert refusal(host, "true", "a1").code == "refused"
    assert list(elsewhere.iterdir()) == []


@attack("S41")
def test_a_fleet_directory_of_somebody_else_is_refused(host: AgentHost) -> None:
    if os.geteuid() == 0:
        host.fleet.mkdir()
        os.chown(host.fleet, 12345, 12345)
    else:
        # Nobody else can give a directory away; what root owns is somebody else's too.
        host.transport.home = Path("/proc")
    assert refusal(host, "true", "a1").code == "refused"
    assert not host.fleet.exists() or list(host.fleet.iterdir()) == []


@attack("S41")
def test_a_fleet_directory_open_to_others_is_closed_before_it_is_used(host: AgentHost) -> None:
    host.fleet.mkdir(mode=0o700)
    host.fleet.chmod(0o1777)
    host.launch("true")
    assert host.fleet.stat().st_mode & 0o7777 == 0o700


@fault("H13")
def test_an_eval_that_fleet_did_not_start_is_named_and_left_alone(host: AgentHost) -> None:
    foreign = subprocess.Popen(["sleep", "61.5"], env={"HOME": str(host.home)})
    try:
        error = refusal(host, "true", "b1", preflight={"processes": [r"sleep 61\.5"]})
        assert error.code == "busy"
        assert f"pid {foreign.pid}" in error.message
        assert foreign.poll() is None
    finally:
        foreign.send_signal(signal.SIGKILL)
        foreign.wait()
    assert host.launch("true", "b1", preflight={"processes": [r"sleep 61\.5"]})["outcome"] == "started"


def test_an_unready_host_is_refused_with_every_reason_and_nothing_is_written(host: AgentHost) -> None:
    error = refusal(
        host, "true", "a1", workdir="~/absent", inputs={"0" * 64: "data.jsonl"}, preflight={"disk": {"min_free_gb": 10_000_000}}
    )
    assert error.code == "not-ready"
    assert [problem.split(":")[0].split(" ")[0] for problem in error.detail["problems"]] == ["disk", "workdir", "input"]
    assert not host.dir().exists()
    assert host.launch("true")["outcome"] == "started"


def test_the_eval_gets_the_logins_umask_and_no_pattern_matches_its_supervisor(host: AgentHost) -> None:
    host.launch("umask; touch ~/made; sleep 0.2", "a1")
    host.await_start()
    command = host.pids()[host.supervisor()]
    assert "openhands" not in command and "run_infer" not in command
    host.wait()
    assert host.client.logs("a1").data.decode().strip() == "0022"
    assert (host.home / "made").stat().st_mode & 0o777 == 0o644
    assert {path.stat().st_mode & 0o077 for path in host.dir().iterdir()} == {0}


def test_a_launch_takes_little_time(host: AgentHost) -> None:
    host.launch("true", "a0")
    host.wait("a0")
    measured = []
    for turn in range(5):
        begun = time.monotonic()
        host.launch("true", f"t{turn}")
        measured.append(time.monotonic() - begun)
        host.wait(f"t{turn}")
    print(f"launch: {min(measured) * 1000:.0f} ms at best, {max(measured) * 1000:.0f} ms at worst")
    assert min(measured) < 0.5


def test_a_withdrawn_attempt_never_starts_whatever_copy_of_its_launch_comes_later(host: AgentHost) -> None:
    assert host.client.withdraw("a1", "the host was busy")["state"] == "refused"
    error = refusal(host, "true", "a1")
    assert error.code == "busy" and "will not start here: the host was busy" in error.message
    assert host.client.status()["attempts"] == []
    assert host.launch("true", "a2", key=host.key("a1"))["outcome"] == "started"
    host.wait("a2")
    assert host.starts() == ["a2"]
    # Now the copy is told of the attempt that did the work, to be followed.
    assert refusal(host, "true", "a1").code == "duplicate"


def test_what_has_started_cannot_be_withdrawn(host: AgentHost) -> None:
    host.launch("sleep 0.3")
    assert host.client.withdraw("a1", "too late")["state"] == "running"
    assert host.wait()["rc"] == 0
    assert host.client.withdraw("a1", "too late")["state"] == "finished"


def test_an_attempt_that_was_taken_and_not_started_never_starts_after_another_did(host: AgentHost) -> None:
    host.launch("true", "a1")
    host.wait("a1")
    for name in ("started.json", "rc.json", "manifest.json"):
        (host.dir("a1") / name).unlink()
    assert host.state("a1") == "accepted"
    host.launch("true", "b1")
    host.wait("b1")
    status = host.status("a1")
    assert (status["state"], status["reason"]) == ("refused", "attempt b1 was started before it could")
    # A supervisor that comes up late: what a transient unit of that launch would run.
    environment = {"FLEET_AGENT_DIR": str(next(host.fleet.glob("agent-*"))), "HOME": str(host.home), "PATH": "/usr/bin:/bin"}
    program = (
        "import os,sys;sys.path.insert(0,os.environ['FLEET_AGENT_DIR']);import fleet_host;fleet_host.supervise(sys.argv[1:])"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program, "a1"], env=environment, timeout=30, check=True)
    assert "or it was forbidden" in (host.dir("a1") / "supervisor.log").read_text()
    assert host.starts() == ["a1", "b1"]
    assert refusal(host, "true", "a1").code == "busy"


def test_withdrawn_attempts_are_forgotten_with_the_retention(host: AgentHost) -> None:
    for attempt in ("a1", "a2"):
        host.client.withdraw(attempt, "the host was busy")
    os.utime(host.dir("a1") / "started.json", (1, time.time() - 15 * 86400))
    host.launch("true", "b1")
    host.wait("b1")
    assert [host.dir(attempt).exists() for attempt in ("a1", "a2")] == [False, True]
