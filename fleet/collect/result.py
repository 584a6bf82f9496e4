"""Which attempt a result is of, where it belongs, and what is there already."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fleet.collect.manifest import HostManifest, read_result_manifest
from fleet.collect.provenance import read_provenance
from fleet.errors import StorageError
from fleet.model.findings import Finding


class NumberTaken(StorageError):
    """The directory of this attempt's number holds another attempt, or something else; nothing is overwritten."""


@dataclass(frozen=True)
class AttemptRef:
    """Which attempt of which task, and on which host it ran."""

    attempt_id: str
    instance_id: str
    model: str
    run: int
    number: int
    """K of `attempt<K>`: 1 for the first attempt of the task."""
    host: str

    @property
    def relative(self) -> str:
        """Where the result belongs, relative to the batch directory."""
        return "/".join((*self.parts, self.name))

    @property
    def parts(self) -> tuple[str, str, str]:
        """The directories of the task."""
        return (self.instance_id, self.model, f"run{self.run}")

    @property
    def name(self) -> str:
        """The directory of the attempt."""
        return f"attempt{self.number}"


@dataclass(frozen=True)
class Collected:
    """A result that is here, complete, and equal to the host's manifest."""

    path: Path
    files: int
    bytes: int
    relative: str = ""
    """`path` relative to the batch directory, as the journal keeps it."""
    already: bool = False
    """Another collector, or an earlier run, had brought it."""
    findings: tuple[Finding, ...] = field(default=())
    """What the host left out, and why."""
    seconds: float = 0.0


def existing_result(attempt: AttemptRef, batch_dir: Path) -> Collected | None:
    """Return the result under the attempt's final name, None when there is none; another attempt's is NumberTaken."""
    path = batch_dir / attempt.relative
    if not os.path.lexists(path):
        return None
    known = read_provenance(path)
    if known is None or known.attempt != attempt.attempt_id:
        holds = f"attempt {known.attempt}" if known else "something that fleet did not collect"
        raise NumberTaken(
            f"{path} holds {holds}, not attempt {attempt.attempt_id}; nothing is overwritten",
            hint=f"move {path} away, then: fleet collect --again",
        )
    manifest = read_result_manifest(path)
    return Collected(
        path=path,
        files=len(manifest.files),
        bytes=sum(file.size for file in manifest.files),
        relative=attempt.relative,
        already=True,
        findings=HostManifest(files=[], skipped=manifest.skipped).findings,
    )
