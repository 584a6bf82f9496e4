"""From an assignment file to tasks: places become hosts, datasets are read and compared. Nothing is touched yet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.errors import InputError
from fleet.inventory import Inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.assignment import Assignment, Entry, listed, read_assignment
from fleet.model.base import nearest
from fleet.model.dataset import MAX_BYTES, Dataset, read_dataset
from fleet.model.names import visible
from fleet.model.pipeline import Pipeline, fill
from fleet.model.tasks import Task, TaskKey


@dataclass(frozen=True)
class Resolved:
    """An assignment ready to dispatch: its tasks in file order and the exact bytes they came from."""

    tasks: tuple[Task, ...]
    raw: bytes
    sha256: str
    archives: Mapping[str, str] = field(default_factory=dict)
    """Task → its dataset's `image_storage_uri`, where it has one."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that may get a task, in order of first mention."""
        return tuple(dict.fromkeys(host for task in self.tasks for host in task.hosts))


def resolve_assignment(path: Path, inventory: Inventory, pipelines: Pipelines) -> Resolved:
    """Return the tasks of the assignment at `path`; raises InputError that lists what is wrong, before any host is touched."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint=_instead_of(path)) from None
    sha256 = hashlib.sha256(raw).hexdigest()
    assignment = read_assignment(raw, str(path), sha256)
    reader = _Reader(path, inventory, pipelines)
    tasks = reader.tasks(assignment)
    return Resolved(tasks, raw, sha256, reader.archives)


def _instead_of(path: Path) -> str:
    """Return what to type where no assignment is at `path`: the one that was probably meant, or how to write one."""
    there = [one for folder in (path.parent, path.parent / "assignments") for one in sorted(folder.glob("*.json"))]
    name = nearest(path.stem, [one.stem for one in there])
    if name is None:
        return "fleet plan --datasets DIR --models NAME --out FILE"
    return f"fleet dispatch {next(one for one in there if one.stem == name)}"


class _Reader:
    """Resolves entries, reading each dataset and matching each place once."""

    def __init__(self, path: Path, inventory: Inventory, pipelines: Pipelines) -> None:
        self._path = path
        self._inventory = inventory
        self._pipelines = pipelines
        self._places: dict[str, tuple[str, ...]] = {}
        self._datasets: dict[Path, Dataset] = {}
        self.archives: dict[str, str] = {}
        self._chosen: dict[str, Pipeline | InputError] = {}

    def tasks(self, assignment: Assignment) -> tuple[Task, ...]:
        problems: dict[str, None] = {}
        tasks: list[Task] = []
        hint = ""
        for place, entry in assignment.entries:
            try:
                tasks.append(self._task(place, entry))
            except InputError as error:
                hint = hint or error.hint
                problems[error.message] = None
        if problems:
            raise InputError(listed(list(problems)), hint=hint)
        return tuple(tasks)

    def _task(self, place: str, entry: Entry) -> Task:
        where = f"{self._path}: {visible(place, 80)}: {entry.instance_id}"
        hosts = self._hosts(place)
        try:
            dataset_file = (self._path.parent / entry.dataset_file).expanduser().resolve()
        except RuntimeError as error:
            raise InputError(f"{where}: dataset_file {visible(entry.dataset_file, 200)}: {error}") from None
        dataset = self._dataset(dataset_file, where)
        if dataset.instance_id != entry.instance_id:
            raise InputError(f"{where}: {dataset_file} describes instance {visible(dataset.instance_id, 80)}")
        task = Task(
            key=TaskKey(instance_id=entry.instance_id, model=entry.model, run=entry.run, dataset_sha256=dataset.sha256),
            dataset_file=dataset_file,
            task_name=entry.task_name,
            place=place,
            hosts=hosts,
            pipeline=entry.pipeline,
            max_iterations=entry.max_iterations,
            eval_limit=entry.eval_limit,
            num_workers=entry.num_workers,
            timeout_s=entry.timeout,
            agent=entry.agent,
            env=entry.env,
            repo=dataset.repo,
            image_id=entry.image_id,
            retry=entry.retry,
            image=dataset.image,
        )
        if dataset.image_storage_uri is not None:
            self.archives[task.label] = dataset.image_storage_uri
        for host in hosts:
            # Filled once here, so that a missing field is found before any host is touched.
            name = entry.pipeline or self._inventory.get(host).pipeline
            fill_command(task, self._pipeline(name, f"{self._path}: {visible(place, 80)}"))
        return task

    def _pipeline(self, name: str, where: str) -> Pipeline:
        if name not in self._chosen:
            try:
                self._chosen[name] = self._pipelines.get(name)
            except InputError as error:
                self._chosen[name] = InputError(f"{where}: {error.message}", hint=error.hint)
        chosen = self._chosen[name]
        if isinstance(chosen, InputError):
            raise chosen
        return chosen

    def _hosts(self, place: str) -> tuple[str, ...]:
        if place not in self._places:
            try:
                chosen = self._inventory.select([place])
            except InputError as error:
                raise InputError(f"{self._path}: {visible(place, 80)}: {error.message}", hint=error.hint) from None
            self._places[place] = tuple(host.name for host in chosen)
        return self._places[place]

    def _dataset(self, path: Path, where: str) -> Dataset:
        if path not in self._datasets:
            try:
                # Not a device or a pipe: the file is named by whoever wrote the assignment, and /dev/zero has no end.
                if path.exists() and not path.is_file():
                    raise InputError(f"{where}: dataset_file {path}: is not a regular file")
                with path.open("rb") as file:
                    raw = file.read(MAX_BYTES + 1)
            except OSError as error:
                raise InputError(
                    f"{where}: dataset_file {path}: {error.strerror}",
                    hint="dataset_file is relative to the assignment file, or absolute",
                ) from None
            self._datasets[path] = read_dataset(raw, str(path))
        return self._datasets[path]


def task_fields(task: Task) -> dict[str, str]:
    """Return the template fields that the task gives; the host's own stay as they are for the host to fill."""
    fields = {
        "instance_id": task.key.instance_id,
        "model": task.key.model,
        "run": str(task.key.run),
        "task_name": task.task_name,
        "repo_tag": task.repo.lower().replace("/", "_m_"),
        "max_iterations": str(task.max_iterations),
        "eval_limit": str(task.eval_limit),
        "num_workers": str(task.num_workers),
    }
    if task.agent is not None:
        fields["agent"] = task.agent
    return fields | {name: "{" + name + "}" for name in ("workdir", "attempt", "output_dir", "inputs", "dataset")}


def image_names(task: Task, pipeline: Pipeline) -> list[str]:
    """Return the names of the Docker images that the task runs in; those by repository only where that is known."""
    fields = task_fields(task)
    known = [name for name in pipeline.images if task.repo or "{repo_tag}" not in name]
    return [fill(name, fields, f"pipeline {pipeline.name}: images, task {task.label}") for name in known]


def fill_command(task: Task, pipeline: Pipeline) -> list[str]:
    """Return the pipeline's argv for the task, with the host's fields left open."""
    fields = task_fields(task)
    return [fill(item, fields, f"pipeline {pipeline.name}: command, task {task.label}") for item in pipeline.command]
