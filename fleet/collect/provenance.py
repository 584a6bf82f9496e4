"""`fleet.json`: where a result came from, written once beside the host's files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet import __version__
from fleet.agent.status import part
from fleet.collect.manifest import PROVENANCE
from fleet.errors import StorageError
from fleet.model.dataset import Dataset
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline
from fleet.model.tasks import Task

MAX_IMAGES = 50
"""Names kept of a host's list, which may grow without end."""
_FROM_STATUS = (
    "state", "reason", "rc", "signal", "epoch", "boot_id", "started_at", "finished_at", "elapsed_s", "timed_out", "cancelled",
)  # fmt: skip


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)


class TaskFacts(_Part):
    """Which work it was."""

    instance_id: str
    model: str
    run: int = 1
    task_name: str = ""


class DatasetFacts(_Part):
    """Which question was asked; the test ids are the dataset's own, for a later cross-check offline."""

    sha256: str = ""
    file: str = ""
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()


class ImageFacts(_Part):
    """Which Docker images the eval ran in: name → id; None where no image had the name."""

    expected: str | None = None
    """The id that the assignment asked for."""
    start: dict[str, str | None] = Field(default_factory=dict)
    end: dict[str, str | None] = Field(default_factory=dict)
    used: dict[str, str | None] = Field(default_factory=dict)
    """Of the containers that were still there at the end."""


class LogFacts(_Part):
    """What was kept of the eval's log: its last bytes."""

    size: int = 0
    """Bytes of the whole log on the host."""
    offset: int = 0
    """Where the kept part begins."""
    sha256: str = ""
    """Of the kept part."""


class Provenance(_Part):
    """Everything fleet knows about how one result came about; None and "" mean "not known"."""

    schema_: Literal["fleet.provenance/1"] = Field(default="fleet.provenance/1", alias="schema")
    origin: Literal["dispatched", "adopted"] = "dispatched"
    batch: str = ""
    task: TaskFacts
    attempt: str = ""
    number: int = 1
    host: str = ""
    host_uid: str = ""
    boot_id: str = ""
    epoch: int | None = None
    state: str = ""
    reason: str = ""
    started_at: str = ""
    finished_at: str = ""
    elapsed_s: float | None = None
    rc: int | None = None
    signal: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    pipeline: str = ""
    code: dict[str, str | None] = Field(default_factory=dict)
    """Critical file below the work directory → its sha256 on the host; None when it is not there."""
    dataset: DatasetFacts = Field(default_factory=DatasetFacts)
    images: ImageFacts = Field(default_factory=ImageFacts)
    versions: dict[str, str] = Field(default_factory=dict)
    """`fleet`: this program; `agent`: sha256 of the host agent."""
    source: str = ""
    """The directory that the eval wrote, on the host."""
    found_by: str = ""
    """How the host told the attempt's own directory from others."""
    log: LogFacts | None = None
    collected_at: str = ""


class Prober(Protocol):
    """The part of the agent client that answers questions about files."""

    def probe(self, questions: Mapping[str, Any]) -> dict[str, Any]:
        """Answer in one round trip."""


def task_facts(task: Task, dataset: Dataset | None, *, batch: str) -> dict[str, Any]:
    """Return the part of the provenance that the controller knows before it asks the host."""
    return {
        "batch": batch,
        "task": {
            "instance_id": task.key.instance_id,
            "model": task.key.model,
            "run": task.key.run,
            "task_name": task.task_name,
        },
        "dataset": {
            "sha256": task.key.dataset_sha256,
            "file": str(task.dataset_file),
            "fail_to_pass": dataset.fail_to_pass if dataset else (),
            "pass_to_pass": dataset.pass_to_pass if dataset else (),
        },
        "images": {"expected": task.image_id},
    }


def status_facts(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the provenance that the host's status of the attempt tells."""
    return {name: _shown(status[name]) for name in _FROM_STATUS if status.get(name) is not None}


def intent_facts(intent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the provenance that the host remembers from the launch."""
    key = intent.get("key")
    sha = _digest(key.get("dataset_sha256")) if isinstance(key, Mapping) else None
    batch = intent.get("batch")
    return {"batch": batch if is_name(batch) else "", "dataset": {"sha256": sha} if sha else {}}


def image_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the provenance that the host's manifest tells of its images."""
    told = manifest.get("images")
    if not isinstance(told, Mapping):
        return {}
    return {"images": {when: _image_ids(told.get(when)) for when in ("start", "end", "used")}}


def _image_ids(told: Any) -> dict[str, str | None]:
    pairs = list(told.items())[:MAX_IMAGES] if isinstance(told, Mapping) else []
    return {visible(str(name), 300): image_id(value) for name, value in pairs}


def image_id(value: Any) -> str | None:
    """Return an image's id, None for what is not one."""
    return value if isinstance(value, str) and value.startswith("sha256:") and _digest(value[7:]) else None


def code_facts(prober: Prober, pipeline: Pipeline, workdir: str | None) -> dict[str, Any]:
    """Ask the host for the sha256 of each critical file as it is now, and for who it is."""
    root = (workdir or pipeline.workdir).rstrip("/")
    asked = {f"{root}/{one.path}": one.path for one in pipeline.critical}
    facts = prober.probe({"files": list(asked)})
    files = part(facts, "files")
    return {
        "host_uid": visible(str(facts.get("host_uid") or ""), 2000),
        "code": {path: _digest(part(files, question).get("sha256")) for question, path in asked.items()},
        "versions": {"agent": visible(str(part(facts, "agent").get("sha256") or ""), 2000)},
    }


def describe(*parts: Mapping[str, Any]) -> Provenance:
    """Return the provenance that `parts` add up to; a later part wins where it knows something."""
    merged: dict[str, Any] = {}
    for facts in parts:
        for name, value in facts.items():
            if value is None or value == "":
                continue
            known = merged.get(name)
            merged[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
    merged["versions"] = {"fleet": __version__, **(merged.get("versions") or {})}
    merged["collected_at"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Provenance.model_validate(merged)


def log_facts(kept: bytes, offset: int, size: int) -> dict[str, Any]:
    """Return what fleet.json says about the log that is kept."""
    return {"size": size, "offset": offset, "sha256": hashlib.sha256(kept).hexdigest()}


def read_provenance(directory: Path) -> Provenance | None:
    """Return the provenance of a collected result, None when there is no `fleet.json`; StorageError when it is damaged."""
    path = directory / PROVENANCE
    try:
        return Provenance.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a provenance document"
        raise StorageError(f"{path}: {reason}", hint=f"move {directory} away, then: fleet collect --again") from None


def _shown(value: Any) -> Any:
    """Foreign text is kept on one line; numbers stay numbers."""
    return visible(value, 2000) if isinstance(value, str) else value


def _digest(value: Any) -> str | None:
    ok: Sequence[str] = "0123456789abcdef"
    return value if isinstance(value, str) and len(value) == 64 and all(letter in ok for letter in value) else None
