"""One host that answers nonsense, at any step of the main job, costs its own task and no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import AgentClient
from fleet.dispatch.job import opened
from fleet.model.states import TaskState
from fleet.testing import LocalConnector
from tests.conftest import end_processes_of
from tests.support.catalogue import attack
from tests.test_controller import World

NONSENSE: tuple[Any, ...] = (
    {"ok": True},
    {"ok": True, "facts": 7, "paths": 7, "status": 7, "outcome": 7, "manifest": 7, "intent": 7, "log": 7, "attempts": 7},
    {
        "ok": True, "facts": {"disk": 7, "docker": [7]}, "status": {"state": ["x"], "epoch": "x", "elapsed_s": float("nan")},
        "manifest": {"files": {"a": 7}, "root": 7}, "intent": {"key": 7}, "log": {"data": 7},
        "attempts": [7, {"attempt": ["x"]}],
    },
)  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Two hosts, one task each."""
    monkeypatch.setattr("fleet.dispatch.controller.BACKOFF_S", (0.05, 0.1, 0.2))
    made = World(tmp_path).add("h1", "a-1", seconds=0.1).add("h2", "a-2", seconds=0.1)
    yield made
    for home in made.homes.values():
        end_processes_of(home)


@attack("S15")
@pytest.mark.parametrize("verb", ["probe", "stage", "launch", "wait", "manifest", "ack"])
def test_a_host_that_answers_nonsense_stops_nobody_elses_task(world: World, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    nonsense = iter(json.loads(json.dumps(NONSENSE)) * 1000)
    asked = 0
    really_ask, really_wait = AgentClient._ask, AgentClient.wait

    def lies(client: AgentClient, name: str) -> bool:
        nonlocal asked
        found = client.transport.host.name == "h1" and name == verb
        asked += found
        return found

    def ask(client: AgentClient, request: Any, *rest: Any, **more: Any) -> Any:
        return next(nonsense) if lies(client, request["verb"]) else really_ask(client, request, *rest, **more)

    def wait(client: AgentClient, *rest: Any, **more: Any) -> Iterator[tuple[dict[str, Any], bool]]:
        if not lies(client, "wait"):
            yield from really_wait(client, *rest, **more)
        else:
            for _ in range(3):
                status = next(nonsense).get("status")
                yield (status if isinstance(status, dict) else {}), False

    monkeypatch.setattr(AgentClient, "_ask", ask)
    monkeypatch.setattr(AgentClient, "wait", wait)
    with opened(world.job(), world.inventory(), world.pipelines(), LocalConnector(world.homes), None, 0.5) as runner:
        ended = runner.run()
    assert asked
    assert ended.state.tasks["a-2/gpt/run1"].state is TaskState.REJECTED, "its eval writes no patch; it was brought and judged"
    assert world.starts()["a-2"] == 1
    assert world.starts()["a-1"] <= 1
