"""What the demo plays: the tasks of the story and what must come out of each, and the tasks of a rehearsal."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fleet.errors import InputError
from fleet.model.states import TaskState

PIPELINE = "demo"
DOCKER_PIPELINE = "demo_docker"
BATCH = "demo"
_NEEDED = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments")


class Told(NamedTuple):
    """One task of the story: where it runs, and what it is there to show."""

    host: str
    instance_id: str
    model: str
    run: int
    state: TaskState
    resolved: bool | None
    code: str
    """A reason code that must be among the verdict's, or empty."""
    shows: str

    @property
    def label(self) -> str:
        """The task as users type it."""
        return f"{self.instance_id}/{self.model}/run{self.run}"


# One row per task reads as the table it is.
# fmt: off
STORY: tuple[Told, ...] = (
    Told("demo1", "spans-17", "demo-strong", 1, TaskState.ACCEPTED, True, "", "a resolved result"),
    Told("demo1", "spans-17", "demo-weak", 1, TaskState.ACCEPTED, False, "", "an unresolved result: F2P fails, and it counts"),
    Told("demo2", "spans-23", "demo-strong", 1, TaskState.ACCEPTED, True, "", "a resolved result"),
    Told("demo2", "spans-23", "demo-weak", 1, TaskState.REJECTED, False, "patch-missing", "a rejected result: a blank patch"),
    Told("demo3", "spans-31", "demo-strong", 1, TaskState.FLAGGED, True, "patch-small", "a flagged result: a tiny patch"),
    Told("demo3", "spans-31", "demo-weak", 1, TaskState.ACCEPTED, False, "", "an unresolved result: the patch broke P2P"),
    Told("demo4", "spans-17", "demo-strong", 2, TaskState.BLOCKED, None, "", "a task blocked by a host that is not ready"),
    Told("demo4", "spans-31", "demo-weak", 2, TaskState.BLOCKED, None, "", "a task blocked by a host that is not ready"),
)
# fmt: on
STORY_HOSTS = 4
NOT_READY = "demo4"
DRIFTED = "report.py"
"""The file that somebody edits on the host that is not ready."""
DRIFT = "RAN = (0, 1, 2, 3)  # by hand, on this host only\n"


def story_assignment(datasets: Path, pipeline: str = PIPELINE) -> dict[str, Any]:
    """Return the assignment of the story."""
    env = {} if pipeline == DOCKER_PIPELINE else {"LITE_PYTEST": pytest_places()}
    return _assignment(((task.host, task.instance_id, task.model, task.run) for task in STORY), datasets, pipeline, env)


def rehearsal_assignment(datasets: Path, hosts: Sequence[str], cache: Path) -> dict[str, Any]:
    """Return one task per host; all hosts share `cache`, so that repository and environment are made once."""
    rows = ((host, "spans-17", "demo-strong", number) for number, host in enumerate(hosts, start=1))
    return _assignment(rows, datasets, PIPELINE, {"LITE_PYTEST": pytest_places(), "LITE_CACHE": str(cache)})


def _assignment(rows: Any, datasets: Path, pipeline: str, env: dict[str, str]) -> dict[str, Any]:
    document: dict[str, Any] = {"$defaults": {"pipeline": pipeline, "env": env}}
    for host, instance_id, model, run in rows:
        entry = {
            "instance_id": instance_id,
            "model": model,
            "run": run,
            "dataset_file": str(datasets / f"{instance_id}.json"),
            "task_name": f"fleet-demo__{instance_id}",
        }
        document.setdefault(host, []).append(entry)
    return document


def pytest_places() -> str:
    """Return the directories from which the hosts import pytest: ours, since a demo host has no packages of its own.

    pytest and what it needs are pure Python, so the directory serves whichever Python the host runs.
    """
    places: dict[str, None] = {}
    for name in _NEEDED:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            if name == "pygments":  # only newer versions of pytest need it
                continue
            missing = f"the demo needs {name.strip('_')}, which is not installed"
            raise InputError(missing, hint="pip install 'fleet-evals[demo]'")
        origin = Path(spec.origin)
        places[str(origin.parent.parent if origin.name == "__init__.py" else origin.parent)] = None
    return os.pathsep.join(places)
