"""A task: one instance, one model, one run number, to be evaluated exactly once."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from fleet.model.base import Strict


class TaskKey(Strict):
    """What makes two tasks the same work: instance, model, run and the bytes of the dataset."""

    instance_id: str
    model: str
    run: int = 1
    dataset_sha256: str = ""

    @property
    def label(self) -> str:
        """The task as users type it: `INSTANCE/MODEL/runN`."""
        return f"{self.instance_id}/{self.model}/run{self.run}"


class Task(Strict):
    """One line of an assignment after defaults and dataset have been resolved."""

    key: TaskKey
    dataset_file: Path
    task_name: str = ""
    place: str
    """The assignment's key: a host, `@group`, a glob or `*`."""
    hosts: tuple[str, ...]
    """Hosts that may run it, in inventory order; one for a pinned task."""
    pipeline: str | None = None
    """Overrides the host's pipeline."""
    max_iterations: int = 200
    eval_limit: int = 1
    num_workers: int = 1
    timeout_s: float | None = None
    """Overrides the pipeline's timeout, in seconds."""
    agent: str | None = None
    env: dict[str, str] = Field(default_factory=dict, exclude=True)
    """May hold keys, so it goes to the host and nowhere else: never into the journal."""
    repo: str = ""
    """The dataset's, for the names of images."""
    image_id: str | None = None
    """`sha256:…` of the image that the task must run in."""
    retry: dict[str, int] = Field(default_factory=dict)
    """Failure class, or `lost` for both lost ones → how many new attempts need no order."""
    image: str = ""
    """Image archive or repo@commit; tasks of one image are cheaper on one host."""

    @property
    def label(self) -> str:
        """The task as users type it."""
        return self.key.label
