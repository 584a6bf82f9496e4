"""A launch whose answer never came: the host may have it, and what the host has is followed, ended, or known not to be."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import AgentClient
from fleet.dispatch.executor import Site, SshExecutor
from fleet.dispatch.job import Ended, Job, opened
from fleet.dispatch.state.replay import replay
from fleet.errors import AgentError
from fleet.inventory.pipelines import agent_source
from fleet.model.failures import FailureClass
from fleet.model.records import AttemptIntended, CancelOrdered
from fleet.model.states import TaskState
from fleet.testing import LocalConnector
from tests.support.datasets import write_dataset
from tests.test_controller import PIPELINE, World, lent_world

LABEL = "a-1/gpt/run1"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    yield from lent_world(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.dispatch.controller.BACKOFF_S", (0.05, 0.1, 0.2))


def intend(world: World, job: Job) -> None:
    """Leave the batch as a controller does that dies right after the intent of its first launch."""
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)):
        pass
    job.batch.journal.append(AttemptIntended(task=LABEL, host="h1", attempt="a1", number=1))


def launch_unheard(world: World, job: Job) -> None:
    """Have the host take and start the attempt, and nobody hear of it."""
    connector = LocalConnector(world.homes)
    site = Site(connector, world.pipelines(), agent_source(), "b", job.batch.directory, "somebody")
    state = replay(job.batch.journal.read())
    executor = SshExecutor(world.inventory().get("h1"), site)
    executor.launch(state.tasks[LABEL].task, state.attempts["a1"], (), lambda *_: None)
    executor.close()


def resume(world: World, job: Job) -> Ended:
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes), None, 5.0) as runner:
        return runner.run()


def test_an_eval_that_runs_is_followed_although_the_pipeline_was_edited_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.add("h1", "a-1", seconds=1.0).job()
    intend(world, job)
    launch_unheard(world, job)
    monkeypatch.setattr("tests.test_controller.PIPELINE", PIPELINE + "timeout_s: 77\n")
    ended = resume(world, world.job())
    assert ended.state.tasks[LABEL].state is TaskState.REJECTED
    assert ended.state.tasks[LABEL].path == "a-1/gpt/run1/attempt1"
    assert world.starts() == {"a-1": 1}


def test_an_eval_that_runs_is_followed_although_its_dataset_is_gone_here(world: World) -> None:
    job = world.add("h1", "a-1", seconds=1.0).job()
    intend(world, job)
    launch_unheard(world, job)
    write_dataset(world.directory / "a" / "a-1.json", "a-1", extra={"note": "changed"})
    ended = resume(world, job)
    assert ended.state.tasks[LABEL].state is TaskState.REJECTED
    assert world.starts() == {"a-1": 1}


def test_a_cancelled_launch_that_never_arrived_is_not_sent_again(world: World) -> None:
    job = world.add("h1", "a-1").job()
    intend(world, job)
    job.batch.journal.append(CancelOrdered(task=LABEL, attempt="a1"))
    ended = resume(world, job)
    view = ended.state.tasks[LABEL]
    assert (view.state, view.failure) == (TaskState.CANCELLED, FailureClass.CANCELLED)
    assert world.starts() == {}


def test_a_cancelled_launch_that_did_arrive_is_ended(world: World) -> None:
    job = world.add("h1", "a-1", seconds=60.0).job()
    intend(world, job)
    launch_unheard(world, job)
    job.batch.journal.append(CancelOrdered(task=LABEL, attempt="a1"))
    began = time.monotonic()
    ended = resume(world, job)
    assert ended.state.tasks[LABEL].state is TaskState.CANCELLED
    assert time.monotonic() - began < 30.0


def test_a_place_that_holds_another_result_costs_its_own_task_only(world: World) -> None:
    job = world.add("h1", "a-1").add("h2", "a-2").job()
    taken = job.batch.directory / "a-1" / "gpt" / "run1" / "attempt1"
    taken.mkdir(parents=True)
    (taken / "mine").write_text("precious")
    ended = resume(world, job)
    assert ended.state.tasks["a-2/gpt/run1"].state is TaskState.REJECTED
    assert ended.state.tasks[LABEL].failure is FailureClass.COLLECT_FAILED
    assert "nothing is overwritten" in ended.state.tasks[LABEL].reason
    assert (taken / "mine").read_text() == "precious"


@pytest.mark.parametrize("answer", [{"ok": True}, {"ok": True, "facts": 1, "paths": [], "found": {}, "manifest": "no"}])
def test_an_answer_without_what_was_asked_for_is_the_hosts_fault_and_a_fleet_error(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: Mapping[str, Any]
) -> None:
    world.add("h1")
    client = AgentClient(LocalConnector(world.homes).open(world.inventory().get("h1")), agent_source())
    monkeypatch.setattr(client, "_ask", lambda *_: answer)
    for ask in (
        lambda: client.probe({}),
        lambda: client.stage({}),
        lambda: client.find("/", []),
        lambda: client.manifest("a1"),
        lambda: client.manifest_of("/", {}),
        lambda: client.logs("a1"),
    ):
        with pytest.raises(AgentError, match="no usable"):
            ask()


def test_outputs_that_cannot_be_sealed_while_another_batchs_eval_runs_are_waited_for(world: World) -> None:
    job = world.add("h1", "a-1", "a-2", seconds=0.1).job()
    world.tasks["h1"].remove("a-2")
    job = replace(world.job(), collect=False)
    resume(world, job)
    # Its supervisor and its runner were killed before they could seal it.
    (manifest,) = (world.homes["h1"] / ".fleet" / "attempts").glob("*/manifest.json")
    manifest.unlink()
    connector = LocalConnector(world.homes)
    other = AgentClient(connector.open(world.inventory().get("h1")), agent_source())
    spec = {"workdir": "~/work", "argv": ["sleep", "2"], "outputs": {"root": "{output_dir}"}, "cleanup": {"grace_s": 1}}
    other.launch(attempt="b1", key={"instance_id": "b-1"}, spec=spec)
    ended = resume(world, replace(job, collect=True))
    connector.close()
    view = ended.state.tasks[LABEL]
    assert (view.state, view.failure) == (TaskState.REJECTED, FailureClass.OUTPUT_REJECTED), view.reason
    assert ended.state.attempts[view.attempt or ""].collect_failures == 0


def test_a_host_that_a_controller_meets_late_is_known_by_its_identity_from_then_on(world: World) -> None:
    job = world.add("h1", "a-1").job()
    connector = LocalConnector(world.homes)
    site = Site(connector, world.pipelines(), agent_source(), "b", job.batch.directory, "somebody")
    executor = SshExecutor(world.inventory().get("h1"), site)
    report = executor.check()
    executor.close()
    assert report.host_uid
    assert executor.host_uid == report.host_uid
