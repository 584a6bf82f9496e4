"""Kill -9 at every durable step of the agent: the same request, sent again, converges, and nothing starts twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from fleet.agent.client import SyncFile
from fleet.errors import AgentError, NoAnswer
from fleet.inventory.pipelines import agent_source
from tests.support.agent_host import AgentHost, agent_host, eventually
from tests.support.catalogue import fault

STEPS = 32
"""At least as many points as there are durable steps from the first launch to the seal."""

SHIM = b"""

def _kill_at(name):
    real = getattr(os, name)

    def call(*arguments, **fields):
        if WITHIN not in str(arguments[0]):
            return real(*arguments, **fields)
        with contextlib.suppress(OSError, ValueError):
            with open(os.path.join(HOME, "crash.json")) as file:
                plan = json.load(file)
            with open(os.path.join(HOME, "steps"), "ab") as file:
                file.write(("%d %s %s\\n" % (os.getpid(), name, arguments[0])).encode())
            with open(os.path.join(HOME, "steps"), "rb") as file:
                step = file.read().count(b"\\n")
            if step == plan["at"]:
                os.unlink(os.path.join(HOME, "crash.json"))
                if plan["whole"]:
                    mark = ("HOME=" + HOME).encode()
                    for pid in all_pids():
                        if pid != os.getpid() and mark in process_environ(pid):
                            with contextlib.suppress(OSError):
                                os.kill(pid, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **fields)

    setattr(os, name, call)


WITHIN = ""
for _name in ("rename", "link", "fsync"):
    _kill_at(_name)
"""
REMOVALS = SHIM.replace(b'WITHIN = ""', b'WITHIN = "-a"').replace(b'"rename", "link", "fsync"', b'"unlink", "rmdir"')
"""Counts the durable steps of all processes of a host in one file, and ends the process, or all of them, at the planned one."""


def plan(host: AgentHost, at: int, *, whole: bool) -> None:
    (host.home / "crash.json").write_text(json.dumps({"at": at, "whole": whole}))


def send(host: AgentHost) -> str:
    try:
        return str(host.launch("echo '{}' > $FLEET_OUTPUT_DIR/output.jsonl")["outcome"])
    except AgentError as error:
        return error.code
    except NoAnswer:
        return "no answer"


def ask(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Ask as a controller does: an agent that died on the way is asked again."""
    with contextlib.suppress(NoAnswer):
        return call()
    return call()


@fault("C1")
@pytest.mark.parametrize("whole", [False, True], ids=["the process", "everything"])
@pytest.mark.parametrize("at", range(1, STEPS + 1))
def test_a_kill_at_any_step_never_leads_to_a_second_start(tmp_path: Path, at: int, whole: bool) -> None:
    with agent_host(tmp_path / "eval1", source=agent_source() + SHIM) as host:
        plan(host, at, whole=whole)
        outcomes = [send(host)]
        while outcomes[-1] not in ("started", "already") and len(outcomes) < 6:
            outcomes.append(send(host))
        assert outcomes[-1] in ("started", "already"), outcomes
        status = ask(lambda: host.wait(max_s=10))
        starts = host.starts()
        assert len(starts) <= 1, outcomes
        assert status["state"] in ("finished", "lost")
        if status["state"] == "finished":
            assert starts == ["a1"], "finished without having run"
        if not whole:
            # One killed process is survived by the others, except before the eval: the marker is there and nobody else is.
            assert status["state"] == "finished" or starts == []
        # Whatever happened, its outputs can be sealed and the host can go on.
        assert [one["path"] for one in ask(lambda: host.client.manifest("a1"))["files"]] in ([], ["output.jsonl"])
        assert ask(lambda: host.client.manifest("a1"))["sealed_at"]
        eventually(lambda: ask(host.lock)["state"] == "free", "the host is free")
        (host.home / "crash.json").unlink(missing_ok=True)
        assert host.launch("true", "b1")["outcome"] == "started"
        assert not [path.name for path in (host.fleet / "attempts").iterdir() if path.name.endswith(".new")]


def test_the_points_cover_every_durable_step(tmp_path: Path) -> None:
    with agent_host(tmp_path / "eval1", source=agent_source() + SHIM) as host:
        plan(host, 0, whole=False)
        assert send(host) == "started"
        host.wait()
        steps = (host.home / "steps").read_text().splitlines()
        print("\n".join(steps))
        assert 20 < len(steps) <= STEPS
        names = {step.split()[1] for step in steps}
        assert names == {"rename", "link", "fsync"}
        wrote = " ".join(os.path.basename(step.split()[2]) for step in steps)
        assert all(
            name in wrote
            for name in ("spec.json", "baseline.json", "epoch", "a1.new", "started.json", "rc.json", "manifest.json")
        )


class Withdrawal:
    """An attempt that has not arrived is withdrawn: it starts before that is noted, or never."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        """Nothing has to be there."""

    def act(self, host: AgentHost, attempt: str) -> None:
        host.client.withdraw(attempt, "the host was busy")

    def check(self, host: AgentHost, attempt: str) -> None:
        assert host.state(attempt) == "refused"
        with pytest.raises(AgentError, match="will not start here"):
            host.launch("true", attempt)
        assert host.starts(attempt) == []


class Cancel:
    """A running attempt is cancelled."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        host.launch("exec sleep 60", attempt, cleanup={"processes": "kill", "grace_s": 1})
        host.await_start(attempt)

    def act(self, host: AgentHost, attempt: str) -> None:
        host.client.cancel(attempt, None, 1.0)

    def check(self, host: AgentHost, attempt: str) -> None:
        assert host.state(attempt) in ("finished", "lost")
        assert not [one for one in host.pids().values() if "sleep" in one]
        eventually(lambda: host.lock()["state"] == "free", "the host is free")
        assert host.client.manifest(attempt)["sealed_at"]
        assert host.starts(attempt) == [attempt]


class Acknowledgement:
    """A finished attempt is acknowledged."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        host.launch("echo '{}' > $FLEET_OUTPUT_DIR/output.jsonl", attempt)
        host.wait(attempt)
        eventually(lambda: host.lock()["state"] == "free", "the host is free")

    def act(self, host: AgentHost, attempt: str) -> None:
        host.client.ack(attempt, host.status(attempt)["epoch"], "accepted")

    def check(self, host: AgentHost, attempt: str) -> None:
        assert host.status(attempt)["acked"] is True
        assert host.document("acked", attempt)["verdict"] == "accepted"
        assert [one["path"] for one in host.client.manifest(attempt)["files"]] == ["output.jsonl"]


class Staging:
    """An input is stored: under its name there is the whole file or none."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        """Nothing has to be there."""

    def act(self, host: AgentHost, attempt: str) -> None:
        body = attempt.encode() * 1000
        sha = hashlib.sha256(body).hexdigest()
        stored = host.fleet / "inputs" / sha / "data.jsonl"
        assert not stored.exists() or stored.read_bytes() == body
        host.client.stage({sha: ("data.jsonl", body)})
        assert stored.read_bytes() == body

    def check(self, host: AgentHost, attempt: str) -> None:
        """The act itself looks."""


class Sync:
    """Two files are brought: each is the old one or the new one, and the old ones can be had back."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        for name in ("one", "two"):
            (host.home / "work" / name).write_text("old")

    def act(self, host: AgentHost, attempt: str) -> None:
        before = [(host.home / "work" / name).read_bytes() for name in ("one", "two")]
        assert set(before) <= {b"old", attempt.encode()}
        host.client.sync("~/work", [SyncFile(name, attempt.encode()) for name in ("one", "two")], dry_run=False)

    def check(self, host: AgentHost, attempt: str) -> None:
        assert [(host.home / "work" / name).read_text() for name in ("one", "two")] == [attempt, attempt]
        for _ in range(3):
            # The sync that was killed may have left a backup of its own.
            if {(host.home / "work" / name).read_text() for name in ("one", "two")} == {"old"}:
                break
            host.client.rollback("~/work")
        assert [(host.home / "work" / name).read_text() for name in ("one", "two")] == ["old", "old"]


class Release:
    """A quarantine is lifted: the host takes nothing before, and an attempt afterwards."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        host.client.quarantine("three in a row", ["t1"])

    def act(self, host: AgentHost, attempt: str) -> None:
        host.client.release()

    def check(self, host: AgentHost, attempt: str) -> None:
        assert host.client.status().get("quarantine") is None
        host.launch("true", attempt)
        assert host.wait(attempt)["state"] == "finished"
        eventually(lambda: host.lock()["state"] == "free", "the host is free")


class Pruning:
    """A launch removes what is past its retention: what the earlier attempt was stays known."""

    def prepare(self, host: AgentHost, attempt: str) -> None:
        for name in (f"old-{attempt}", f"void-{attempt}"):
            if name.startswith("void"):
                host.client.withdraw(name, "the host was busy")
                os.utime(host.dir(name) / "started.json", (1, 1))
                continue
            Acknowledgement().prepare(host, name)
            host.client.ack(name, host.status(name)["epoch"], "accepted")
            os.utime(host.dir(name) / "acked", (1, 1))

    def act(self, host: AgentHost, attempt: str) -> None:
        host.launch("true", attempt)

    def check(self, host: AgentHost, attempt: str) -> None:
        # Killed with everything else, its eval may be lost; it is not started again.
        assert host.wait(attempt)["state"] in ("finished", "lost")
        eventually(lambda: host.lock()["state"] == "free", "the host is free")
        host.launch("true", f"next-{attempt}")
        host.wait(f"next-{attempt}")
        eventually(lambda: host.lock()["state"] == "free", "the host is free")
        assert host.starts(attempt) in ([], [attempt])
        old = host.status(f"old-{attempt}")
        assert (old["state"], old["rc"], old["acked"]) == ("finished", 0, True)
        assert not (host.dir(f"old-{attempt}") / "out").exists() and not host.dir(f"void-{attempt}").exists()
        # Else the next turns would look at it again, and there would always be one more step.
        shutil.rmtree(host.dir(f"old-{attempt}"))


class Call(Protocol):
    def prepare(self, host: AgentHost, attempt: str) -> None: ...
    def act(self, host: AgentHost, attempt: str) -> None: ...
    def check(self, host: AgentHost, attempt: str) -> None: ...


@fault("C1")
@pytest.mark.parametrize("whole", [False, True], ids=["the process", "everything"])
@pytest.mark.parametrize(
    "call",
    [Withdrawal(), Cancel(), Acknowledgement(), Staging(), Sync(), Release(), Pruning()],
    ids=lambda one: type(one).__name__,
)
def test_a_call_that_is_killed_at_any_step_is_whole_when_it_is_sent_again(tmp_path: Path, call: Call, whole: bool) -> None:
    shim = REMOVALS if isinstance(call, Pruning) else SHIM
    with agent_host(tmp_path / "eval1", source=agent_source() + shim) as host:
        for at in range(1, 60):
            attempt = f"a{at}"
            call.prepare(host, attempt)
            (host.home / "steps").unlink(missing_ok=True)
            plan(host, at, whole=whole)
            with contextlib.suppress(NoAnswer, AgentError):
                call.act(host, attempt)
            killed = not (host.home / "crash.json").exists()
            (host.home / "crash.json").unlink(missing_ok=True)
            if not killed:
                break
            call.act(host, attempt)
            call.check(host, attempt)
        print(f"{type(call).__name__}: killed at {at - 1} steps")
        # A release is one removal.
        assert (1 if isinstance(call, Release) else 2) <= at - 1 < 59
