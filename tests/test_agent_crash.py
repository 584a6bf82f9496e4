"""Kill -9 at every durable step of the agent: the same request, sent again, converges, and nothing starts twice."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import AgentError, NoAnswer
from fleet.inventory.pipelines import agent_source
from tests.support.agent_host import AgentHost, agent_host, eventually

STEPS = 32
"""At least as many points as there are durable steps from the first launch to the seal."""

SHIM = b"""

def _kill_at(name):
    real = getattr(os, name)

    def call(*arguments, **fields):
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


for _name in ("rename", "link", "fsync"):
    _kill_at(_name)
"""
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
