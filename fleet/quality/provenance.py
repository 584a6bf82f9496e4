"""`fleet.json`: what fleet itself wrote beside a collected attempt, as far as a verdict needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.model.names import is_name
from fleet.quality import values
from fleet.quality.evidence import Expected
from fleet.quality.folder import MIB, Folder
from fleet.quality.images import Images, read_images
from fleet.quality.jsonsafe import parse

PROVENANCE = "fleet.json"


@dataclass(frozen=True)
class Provenance:
    """Where a collected attempt came from; None where fleet.json does not say."""

    expected: Expected | None = None
    run: int | None = None
    host: str | None = None
    pipeline: str | None = None
    batch: str | None = None
    images: Images | None = None
    elapsed_s: float | None = None
    code: Mapping[str, str | None] = field(default_factory=dict)
    """Critical file → its sha256 on the host; None where it was not there."""

    @property
    def label(self) -> str | None:
        """The task as users type it."""
        if self.expected is None or not self.expected.model:
            return None
        return f"{self.expected.instance_id}/{self.expected.model}/run{self.run or 1}"


def read_provenance(folder: Folder) -> Provenance | None:
    """Return what fleet.json says, or None when there is none that can be read."""
    file = folder.read(PROVENANCE, 16 * MIB)
    document = parse(file.data) if file.ok else None
    if document is None or not document.values or not isinstance(document.values[0], dict):
        return None
    body = document.values[0]
    task, dataset = values.mapping(body.get("task")), values.mapping(body.get("dataset"))
    instance_id, host, pipeline = values.identity(task.get("instance_id")), body.get("host"), body.get("pipeline")
    batch = body.get("batch")
    host = values.mapping(host).get("name") if isinstance(host, dict) else host
    pipeline = values.mapping(pipeline).get("name") if isinstance(pipeline, dict) else pipeline
    expected = None
    if instance_id is not None:
        expected = Expected(
            instance_id=instance_id,
            model=values.text(task.get("model")) or "",
            fail_to_pass=values.strings(dataset.get("fail_to_pass")) or (),
            pass_to_pass=values.strings(dataset.get("pass_to_pass")) or (),
        )
    return Provenance(
        expected,
        values.count(task.get("run")),
        host if is_name(host) else None,
        pipeline if is_name(pipeline) else None,
        batch if is_name(batch) else None,
        read_images(values.mapping(body.get("images"))),
        values.amount(body.get("elapsed_s")),
        {name: values.text(digest) for name, digest in values.mapping(body.get("code")).items()},
    )


def provenance_of(path: Path) -> Provenance | None:
    """Return what fleet.json in a directory says."""
    try:
        with Folder(path) as folder:
            return read_provenance(folder)
    except OSError:
        return None
