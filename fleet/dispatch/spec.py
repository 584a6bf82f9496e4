"""The specification of a launch: everything the host agent needs, as data. Same task, same pipeline → same digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.dispatch.resolve import fill_command, image_names, task_fields
from fleet.model.hosts import Host
from fleet.model.names import is_safe_path
from fleet.model.pipeline import Pipeline, fill
from fleet.model.tasks import Task

SCHEMA = "fleet.spec/1"


def launch_spec(task: Task, pipeline: Pipeline, host: Host, extra_env: Mapping[str, str]) -> dict[str, Any]:
    """Return the specification of `task` on `host`; templates keep the fields that only the host can fill."""
    fields = task_fields(task)
    source = f"pipeline {pipeline.name}: task {task.label}"
    env = {name: fill(text, fields, f"{source}: env {name}") for name, text in pipeline.env.items()}
    return {
        "schema": SCHEMA,
        "pipeline": pipeline.name,
        "task": {"task_name": task.task_name, "max_iterations": task.max_iterations},
        "workdir": host.workdir or pipeline.workdir,
        "argv": fill_command(task, pipeline),
        "env": env | dict(extra_env),
        "timeout_s": task.timeout_s or pipeline.timeout_s,
        "inputs": {task.key.dataset_sha256: dataset_name(task)},
        "dataset_sha256": task.key.dataset_sha256,
        "outputs": pipeline.outputs.model_dump(mode="json", exclude={"expected"})
        | {"root": fill(pipeline.outputs.root, fields, source)},
        "cleanup": pipeline.cleanup.model_dump(mode="json"),
        "preflight": {
            "docker": pipeline.readiness.docker,
            "disk": pipeline.readiness.disk.model_dump(mode="json"),
            "processes": list(pipeline.busy.processes),
            "containers": list(pipeline.busy.containers),
        },
        "images": {"names": image_names(task, pipeline), "expected": task.image_id},
        "max_log_mb": pipeline.max_log_mb,
    }


def dataset_name(task: Task) -> str:
    """Return the staged file's name: its own, which harnesses derive output paths from, when it is a plain one."""
    name = task.dataset_file.name
    return name if is_safe_path(name) else f"{task.key.instance_id}.jsonl"


def task_key(task: Task) -> dict[str, Any]:
    """Return the identity by which a host recognises the same work."""
    return task.key.model_dump(mode="json")
