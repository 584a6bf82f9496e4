"""How an eval ends, and who keeps its exit code when its keepers are killed."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from fleet.inventory.pipelines import agent_source
from tests.support.agent_host import AgentHost, agent_host, eventually, gone, kill
from tests.support.catalogue import fault


def log(host: AgentHost, attempt: str = "a1") -> str:
    return (host.dir(attempt) / "log").read_text()


@pytest.mark.parametrize("code", [0, 1, 3, 75, 255])
def test_the_exit_code_is_kept(host: AgentHost, code: int) -> None:
    host.launch(f"exit {code}")
    status = host.wait()
    assert (status["rc"], status["signal"], status["timed_out"], status["cancelled"]) == (code, None, False, False)


@fault("H7")
def test_a_killed_supervisor_loses_nothing(host: AgentHost) -> None:
    host.launch("sleep 0.4; echo data > $FLEET_OUTPUT_DIR/output.jsonl; exit 3")
    host.await_start()
    kill(host.supervisor())
    assert host.state() == "running"
    status = host.wait()
    assert (status["state"], status["rc"], status["sealed"]) == ("finished", 3, True)
    assert [one["path"] for one in host.client.manifest("a1")["files"]] == ["output.jsonl"]
    assert host.lock()["state"] == "free"


@fault("H7")
def test_a_killed_runner_costs_neither_exit_code_nor_log(host: AgentHost) -> None:
    host.launch("echo before; while [ ! -e ~/go ]; do sleep 0.05; done; echo after; exit 3")
    host.await_start()
    runner = host.runner()
    kill(runner)
    eventually(lambda: gone(runner), "the runner is gone")
    assert host.state() == "running"
    (host.home / "go").touch()
    status = host.wait()
    assert (status["rc"], status["sealed"]) == (3, True)
    assert "runner was killed" in status["reason"]
    assert log(host).split() == ["before", "after"]


@fault("E5")
def test_an_eval_that_kills_its_parent_is_still_accounted_for(host: AgentHost) -> None:
    host.launch("kill -9 $PPID; sleep 0.2; exit 4")
    status = host.wait()
    assert (status["state"], status["rc"]) == ("finished", 4)
    assert host.starts() == ["a1"]


def test_an_adopted_eval_keeps_its_time_limit(host: AgentHost) -> None:
    host.launch("sleep 60", timeout_s=1.0)
    host.await_start()
    kill(host.runner())
    status = host.wait()
    assert (status["timed_out"], status["rc"]) == (True, 143)
    assert status["elapsed_s"] < 2.5


def test_a_runner_killed_together_with_the_eval_does_not_hold_the_host(host: AgentHost) -> None:
    host.launch("sleep 0.5")
    host.await_start()
    runner, evaluation = host.runner(), host.evaluation()
    # Stopped, it can neither reap nor write; what it would have reaped is the supervisor's then.
    kill(runner, signal.SIGSTOP)
    kill(evaluation)
    kill(runner)
    status = host.wait(max_s=5)
    assert status["state"] == "finished"
    assert (status["rc"], status["signal"]) == (137, 9)
    assert host.lock()["state"] == "free"


@fault("H7")
def test_with_both_keepers_killed_the_eval_runs_on_and_is_then_lost(host: AgentHost) -> None:
    host.launch("while [ ! -e ~/go ]; do sleep 0.05; done; echo '{}' > $FLEET_OUTPUT_DIR/output.jsonl")
    host.await_start()
    pids = [host.supervisor(), host.runner()]
    for pid in pids:
        kill(pid)
    eventually(lambda: all(map(gone, pids)), "both are gone")
    assert host.state() == "running"
    stream = host.client.wait("a1", max_s=10)
    assert next(stream)[0]["state"] == "running"
    begun = time.monotonic()
    (host.home / "go").touch()
    status, final = list(stream)[-1]
    assert (status["state"], final) == ("lost", True)
    assert time.monotonic() - begun < 2.0, "the end of the last process did not wake the waiting agent"
    assert "no exit code was kept" in status["reason"]
    # Its outputs are whole, and can still be had.
    assert [one["path"] for one in host.client.manifest("a1")["files"]] == ["output.jsonl"]
    assert host.state() == "lost"


@fault("H7")
def test_an_eval_killed_from_outside_ends_with_137_and_the_suspicion(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    host.await_start()
    kill(host.evaluation())
    status = host.wait()
    assert (status["rc"], status["signal"]) == (137, 9)
    assert "out of memory?" in status["reason"]
    assert not status["cancelled"]


def test_a_supervisor_ended_from_outside_ends_its_eval_in_order_and_says_so(host: AgentHost) -> None:
    host.launch("trap 'echo told; exit 5' TERM; sleep 60 & wait")
    host.await_start()
    kill(host.supervisor(), signal.SIGTERM)
    status = host.wait()
    assert (status["state"], status["rc"], status["cancelled"], status["sealed"]) == ("finished", 5, False, True)
    assert "not from fleet" in status["reason"]
    assert log(host).split() == ["told"]


@pytest.mark.parametrize(("argv", "reason"), [(["~/absent"], "No such file"), (["/etc/passwd"], "Permission denied")])
def test_what_cannot_be_started_ends_with_127_and_why(host: AgentHost, argv: list[str], reason: str) -> None:
    assert host.launch("", argv=argv)["outcome"] == "started"
    status = host.wait()
    assert (status["rc"], status["sealed"]) == (127, True)
    assert reason in status["reason"] and reason in log(host)


def test_a_timeout_ends_the_whole_tree(host: AgentHost) -> None:
    host.launch("sleep 60 & setsid sleep 61 & env -i setsid sleep 62 & sleep 63", timeout_s=0.5)
    status = host.wait()
    assert (status["timed_out"], status["rc"], status["sealed"]) == (True, 143, True)
    assert host.document("manifest.json")["swept"]["processes"] >= 2
    assert not [one for one in host.pids().values() if "sleep" in one]


@fault("E4")
def test_an_eval_that_ignores_term_is_killed_after_the_grace(host: AgentHost) -> None:
    host.launch("trap '' TERM; while :; do sleep 0.1; done", timeout_s=0.3, cleanup={"grace_s": 0.5})
    status = host.wait()
    assert (status["timed_out"], status["rc"], status["signal"]) == (True, 137, 9)
    assert 0.7 < status["elapsed_s"] < 3.0


@fault("E3")
def test_children_in_other_sessions_and_without_environment_are_swept(host: AgentHost) -> None:
    host.launch(
        "setsid sleep 61 & env -i setsid sh -c 'sleep 62 & sleep 63' & (setsid sh -c 'trap \"\" TERM; sleep 64' &) ; sleep 0.2"
    )
    status = host.wait()
    assert status["leftovers"]["processes"] == []
    assert host.document("manifest.json")["swept"]["processes"] >= 4
    listed = [Path(f"/proc/{entry.name}/cmdline") for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    left = [
        path
        for path in listed
        if path.exists() and path.read_bytes() in (b"sleep\x0061\0", b"sleep\x0062\0", b"sleep\x0063\0", b"sleep\x0064\0")
    ]
    assert left == []


def test_a_child_that_prints_for_ever_does_not_keep_an_eval_from_ending(tmp_path: Path) -> None:
    slow_disk = b"\n_write = CappedLog.write\nCappedLog.write = lambda self, chunk: (time.sleep(0.01), _write(self, chunk))\n"
    with agent_host(tmp_path / "eval1", source=agent_source() + slow_disk) as host:
        host.launch("for i in 1 2; do setsid cat /dev/zero & done; sleep 0.2; exit 3", max_log_mb=1)
        status = host.wait(max_s=10)
        assert (status["rc"], status["sealed"]) == (3, True)


@fault("E2")
def test_a_log_over_its_limit_keeps_its_beginning_and_its_end_and_says_so(host: AgentHost) -> None:
    host.launch("echo FIRST; yes 0123456789abcdef | head -c 12000000; echo; echo LAST", max_log_mb=1)
    status = host.wait()
    text = log(host)
    assert text.startswith("FIRST\n") and text.endswith("LAST\n")
    assert 1 << 20 < len(text) < 2 << 20
    assert "bytes of log left out here" in text
    assert (status["last_line"], status["log_size"]) == ("LAST", len(text))


def test_a_log_within_its_limit_is_whole(host: AgentHost) -> None:
    host.launch("seq 1 100000", max_log_mb=1)
    host.wait()
    assert log(host).split() == [str(number) for number in range(1, 100_001)]
