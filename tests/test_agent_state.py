"""The state of an attempt is derived from its files and the lock; here are all combinations."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.errors import AgentError
from tests.support.agent_host import AgentHost, agent_host, spec_digest
from tests.support.catalogue import fault

BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path / "eval1") as one:
        one.client.status()
        yield one


def fabricate(host: AgentHost, attempt: str = "a1", epoch: int = 1, **files: object) -> Path:
    directory = host.dir(attempt)
    directory.mkdir(parents=True)
    spec = host.spec("true")
    intent = {"attempt": attempt, "key": host.key(attempt), "spec": spec, "spec_sha256": spec_digest(spec), "epoch": epoch}
    (directory / "spec.json").write_text(json.dumps(intent | {"batch": "phase8"}))
    for name, document in files.items():
        (directory / f"{name}.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return directory


def started(boot: str = BOOT, boottime: float = 5.0) -> dict[str, object]:
    return {"boot_id": boot, "pid": 999_999_999, "starttime": 1, "epoch": 1, "at": "2026-01-01T00:00:00Z", "boottime": boottime}


@contextmanager
def held(host: AgentHost) -> Iterator[None]:
    descriptor = os.open(host.fleet / "host.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def test_no_directory_is_unknown(host: AgentHost) -> None:
    assert host.state() == "unknown"


def test_an_intent_with_the_lock_free_is_accepted(host: AgentHost) -> None:
    fabricate(host)
    assert host.state() == "accepted"


def test_an_intent_with_the_lock_held_is_starting_but_only_the_newest(host: AgentHost) -> None:
    fabricate(host, "a1", 1)
    fabricate(host, "a2", 2)
    with held(host):
        assert (host.state("a1"), host.state("a2")) == ("accepted", "starting")


def test_a_start_marker_with_the_lock_held_is_running_but_only_the_newest(host: AgentHost) -> None:
    fabricate(host, "a1", 1, started=started(boottime=5.0))
    fabricate(host, "a2", 2, started=started(boottime=6.0))
    with held(host):
        assert (host.state("a1"), host.state("a2")) == ("lost", "running")


def test_an_intent_is_not_starting_while_another_attempt_runs(host: AgentHost) -> None:
    fabricate(host, "a1", 1, started=started())
    fabricate(host, "a2", 2)
    with held(host):
        assert (host.state("a1"), host.state("a2")) == ("running", "accepted")


def test_a_start_marker_with_the_lock_free_is_lost(host: AgentHost) -> None:
    fabricate(host, started=started())
    status = host.status()
    assert status["state"] == "lost" and "were killed" in status["reason"]


@pytest.mark.parametrize("locked", [False, True])
def test_a_start_marker_of_another_boot_is_lost_by_reboot(host: AgentHost, locked: bool) -> None:
    fabricate(host, started=started(boot="another"))
    if locked:
        with held(host):
            assert "rebooted" in host.status()["reason"]
    assert (host.state(), "rebooted" in host.status()["reason"]) == ("lost", True)


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("boot", [BOOT, "another"])
def test_an_exit_code_is_finished_whatever_else_is_true(host: AgentHost, locked: bool, boot: str) -> None:
    fabricate(host, started=started(boot=boot), rc={"rc": 3})
    if locked:
        with held(host):
            assert host.state() == "finished"
    assert (host.state(), host.status()["rc"], host.status()["sealed"]) == ("finished", 3, False)


def test_an_unreadable_start_marker_never_leads_to_a_second_start(host: AgentHost) -> None:
    fabricate(host, started='{"boot_id": "cut o')
    assert host.state() == "lost"
    again = host.client.launch(attempt="a1", key=host.key("a1"), spec=host.spec("true"), batch="phase8")
    assert (again["outcome"], again["status"]["state"]) == ("already", "lost")
    assert host.starts() == []


def test_a_lost_attempt_does_not_look_running_while_a_sync_holds_the_lock(host: AgentHost) -> None:
    directory = fabricate(host, started=started())
    os.mkfifo(directory / "alive")
    with held(host):
        assert host.state() == "lost"
        assert host.lock()["attempt"] is None


@fault("H15")
def test_a_reused_pid_is_never_signalled(host: AgentHost) -> None:
    marker = started() | {"pid": os.getpid(), "starttime": 1}
    fabricate(host, started=marker)
    with held(host), pytest.raises(AgentError) as caught:
        host.client.cancel("a1", 1, 0.2)
    assert caught.value.code == "held"


def test_a_cancel_judges_by_what_is_true_when_it_has_the_lock(host: AgentHost) -> None:
    directory = fabricate(host)
    refused: list[AgentError] = []

    def cancel() -> None:
        with pytest.raises(AgentError) as caught:
            host.client.cancel("a1", 1, 0.2)
        refused.append(caught.value)

    # A launch is in progress: it has the operations lock, and while the cancel waits for it, it starts the eval.
    operations = os.open(host.fleet / "ops.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(operations, fcntl.LOCK_EX)
    thread = threading.Thread(target=cancel)
    thread.start()
    time.sleep(0.4)
    with held(host):
        (directory / "started.json").write_text(json.dumps(started()))
        os.close(operations)
        thread.join()
    assert refused[0].code == "held"
    assert (directory / "cancel.json").exists() and not (directory / "rc.json").exists()


def test_the_epoch_counts_on_when_its_file_is_damaged(host: AgentHost) -> None:
    fabricate(host, "a7", 7, started=started(), rc={"rc": 0})
    (host.fleet / "epoch").write_text("?")
    assert host.launch("true", "b1")["epoch"] == 8


def test_the_host_keeps_its_identity(host: AgentHost) -> None:
    first = host.client.status()["host_uid"]
    assert len(first) == 32
    assert host.client.probe({})["host_uid"] == first


def test_a_running_attempt_cannot_be_acknowledged_away(host: AgentHost) -> None:
    host.launch("sleep 0.5")
    with pytest.raises(AgentError) as caught:
        host.client.ack("a1", 1, "accepted")
    assert caught.value.code == "busy"
    host.wait()
    with pytest.raises(AgentError) as caught:
        host.client.ack("a1", 9, "accepted")
    assert caught.value.code == "stale-epoch"
    host.client.ack("a1", 1, "accepted")
    assert host.client.status()["attempts"] == []
    assert host.status()["acked"] is True


def test_outputs_are_pruned_only_long_after_the_acknowledgement(host: AgentHost) -> None:
    host.launch("echo x > $FLEET_OUTPUT_DIR/output.jsonl", "a1")
    host.wait("a1")
    host.launch("echo x > $FLEET_OUTPUT_DIR/output.jsonl", "a2")
    host.wait("a2")
    for attempt in ("a1", "a2"):
        host.client.ack(attempt, host.status(attempt)["epoch"], "accepted")
    os.utime(host.dir("a1") / "acked", (1, time.time() - 15 * 86400))
    host.launch("true", "a3")
    host.wait("a3")
    assert not (host.dir("a1") / "out").exists() and not (host.dir("a1") / "log").exists()
    assert (host.dir("a2") / "out" / "output.jsonl").exists()
    assert host.launch("echo x > $FLEET_OUTPUT_DIR/output.jsonl", "a1")["outcome"] == "already"


def test_a_marker_that_cannot_be_read_for_a_moment_does_not_make_a_running_eval_lost(host: AgentHost) -> None:
    host.launch("sleep 30")
    host.await_start()
    (host.home / "agent.py").write_bytes(host.source)
    asked = f"import sys; sys.path.insert(0, {str(host.home)!r}); import agent; print(agent.derive('a1')[0])"
    for time_of_failure in (1, 2):
        fault_at = f"inject=openat:error=ENFILE:when={time_of_failure}"
        strace = [
            "strace",
            "-f",
            "-o",
            "/dev/null",
            "-P",
            str(host.dir() / "started.json"),
            "-e",
            "trace=openat",
            "-e",
            fault_at,
        ]
        argv = [*strace, sys.executable, "-I", "-S", "-c", asked]
        done = subprocess.run(argv, env={"HOME": str(host.home)}, capture_output=True, text=True, timeout=30, check=True)
        assert done.stdout == "running\n"
