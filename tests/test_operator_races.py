"""An operator's command that meets a controller at an unlucky moment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.cli.main import run
from fleet.cli.options import Context
from fleet.dispatch.job import opened
from fleet.testing import LocalConnector
from tests.conftest import end_processes_of
from tests.test_controller import World
from tests.test_lost_launches import intend, launch_unheard

NUDGED_EARLY_AND_LATE = """
import os, signal
from contextlib import contextmanager
from types import SimpleNamespace
import fleet.dispatch.job
from fleet.cli.dispatch import _run

class Runner:
    nudged = 0
    def nudge(self): self.nudged += 1
    def run(self): return "ended"

runner = Runner()

@contextmanager
def opened(*_):
    os.kill(os.getpid(), signal.SIGUSR1)
    yield runner
    os.kill(os.getpid(), signal.SIGUSR1)

fleet.dispatch.job.opened = opened
nothing = lambda: None
context = SimpleNamespace(
    interactive=False, no_color=True, quiet=True, json=False, inventory=nothing, pipelines=nothing, connector=nothing
)
print(_run(context, None, 1.0), runner.nudged >= 1)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for home in made.homes.values():
        end_processes_of(home)
    for thread in threading.enumerate():
        if thread.name.startswith("reap "):
            thread.join(10)


def test_a_controller_that_is_told_of_an_order_while_it_opens_or_leaves_its_batch_lives_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NUDGED_EARLY_AND_LATE], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended True\n", "")


def test_a_task_that_begins_while_the_operator_confirms_its_cancelling_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = world.add("h1", "a-1", seconds=60.0).job()
    with opened(job, world.inventory(), world.pipelines(), LocalConnector(world.homes)):
        pass

    def confirm(*_: object, **__: object) -> bool:
        intend(world, job)
        launch_unheard(world, job)
        return True

    monkeypatch.setattr("click.confirm", confirm)
    monkeypatch.setattr(Context, "interactive", True)
    monkeypatch.setattr(Context, "inventory", lambda _self: world.inventory())
    monkeypatch.setattr(Context, "connector", lambda _self: LocalConnector(world.homes))
    code = run(["cancel", "--all", "--batch", "b", "--grace", "1", "--json", "--collected", str(world.directory / "collected")])
    (row,) = json.loads(capsys.readouterr().out)["cancelled"]
    assert (code, row["outcome"], row["processes_left"]) == (0, "cancelled", 0)
    assert (world.homes["h1"] / ".fleet/attempts/a1/rc.json").is_file()
