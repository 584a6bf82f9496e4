"""Take in output directories that fleet did not start: found by what they hold, shown, and taken only when clear.

A directory counts as a result of an instance when its marker file names the instance; neither its age nor its place decides.
Model and run come from the path, in the two layouts that the evals write, or from the operator:

    outputs/<dataset>-<split>/<Agent>/<model>_maxiter_<N>_…/        run 1
    Trajectory_results/<Benchmark>/<Instance>/<Model>/Run<N>/
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.collect.manifest import Limits, digest_of, read_manifest
from fleet.collect.places import find_result, free_number
from fleet.collect.provenance import code_facts
from fleet.collect.pull import bring
from fleet.collect.result import AttemptRef, Collected, NumberTaken, existing_result
from fleet.errors import InputError, StorageError
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline
from fleet.model.tasks import Task, TaskKey

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.transport import Transport

_BY_MODEL = re.compile(r"(?:llm\.)?([A-Za-z0-9][A-Za-z0-9._-]*?)_maxiter_[0-9]+(?:_.*)?\Z")
_RUN = re.compile(r"[Rr]un_?([1-9][0-9]{0,3})\Z")
_TRIES = 20


@dataclass(frozen=True)
class Candidate:
    """One directory on one host that holds a result of an instance."""

    host: str
    root: str
    instance_id: str
    model: str | None
    """None when the path does not tell; then it must be named."""
    run: int
    written_at: str
    rows: int
    """Instances that the marker file names; more than 1 means a shared directory."""
    files: int
    bytes: int

    @property
    def label(self) -> str:
        """The task it would be a result of."""
        return f"{self.instance_id}/{self.model or '?'}/run{self.run}"

    @property
    def name(self) -> str:
        """What the operator types to pick it."""
        return f"{self.host}:{self.root}"


def find_candidates(
    client: AgentClient, host: str, root: str, *, marker: str, instances: Sequence[str], model: str | None
) -> list[Candidate]:
    """Return the directories below `root` that hold a result of one of `instances` (of any, when none is named)."""
    found = []
    for one in client.find(root, list(instances), marker):
        directory, instance_id = one.get("root"), one.get("instance_id")
        if not _is_directory(directory) or not is_name(instance_id) or (instances and instance_id not in instances):
            continue
        assert isinstance(directory, str) and isinstance(instance_id, str)
        read_model, run = layout_of(directory)
        found.append(
            Candidate(
                host=host,
                root=directory,
                instance_id=instance_id,
                model=model or read_model,
                run=run,
                written_at=_iso(one.get("mtime")),
                rows=_count(one.get("rows")),
                files=_count(one.get("files")),
                bytes=_count(one.get("bytes")),
            )
        )
    return found


def layout_of(root: str) -> tuple[str | None, int]:
    """Return (model, run) as the path of an output directory tells them; None when it does not."""
    parts = root.rstrip("/").split("/")
    run = _RUN.match(parts[-1])
    if run is not None and len(parts) >= 2 and is_name(parts[-2]):
        return parts[-2], int(run.group(1))
    for part in reversed(parts):
        match = _BY_MODEL.match(part)
        if match is not None and is_name(match.group(1)):
            return match.group(1), 1
    return None, 1


@dataclass(frozen=True)
class Choice:
    """Which candidates are taken, and which are left to the operator."""

    taken: tuple[Candidate, ...]
    ambiguous: tuple[tuple[Candidate, ...], ...]
    """Several directories for one task: none is taken, "the newest" least of all."""
    unnamed: tuple[Candidate, ...]
    """The path does not tell the model."""


def choose(candidates: Iterable[Candidate], picks: Sequence[str]) -> Choice:
    """Take each task's only candidate; of several, only one that is picked as `HOST:DIRECTORY` (or `DIRECTORY`)."""
    groups: dict[str, list[Candidate]] = {}
    everything = list(candidates)
    for one in everything:
        groups.setdefault(one.label, []).append(one)
    for pick in picks:
        matching = [one for one in everything if pick in (one.name, one.root)]
        if not matching:
            raise InputError(f"--pick {visible(pick, 200)}: no such candidate", hint="copy HOST:DIRECTORY from the list")
        if len({one.name for one in matching}) > 1:
            raise InputError(f"--pick {visible(pick, 200)} is on several hosts", hint=f"--pick {matching[0].name}")
    taken: list[Candidate] = []
    ambiguous: list[tuple[Candidate, ...]] = []
    unnamed: list[Candidate] = []
    for group in groups.values():
        picked = [one for one in group if one.name in picks or one.root in picks]
        if group[0].model is None:
            unnamed += group
        elif len(picked) == 1 or len(group) == 1:
            taken.append((picked or group)[0])
        else:
            ambiguous.append(tuple(group))
    return Choice(tuple(taken), tuple(ambiguous), tuple(unnamed))


def task_of(candidate: Candidate, known: Mapping[str, Task]) -> Task:
    """Return the batch's task of that label, or one made of what the directory tells."""
    task = known.get(candidate.label)
    if task is not None:
        return task
    key = TaskKey(instance_id=candidate.instance_id, model=candidate.model or "", run=candidate.run)
    return Task(key=key, dataset_file=Path(), place=candidate.host, hosts=(candidate.host,))


def adopt(
    client: AgentClient,
    transport: Transport,
    candidate: Candidate,
    *,
    batch_dir: Path,
    pipeline: Pipeline,
    facts: Mapping[str, Any],
    floor: Callable[[], int],
) -> tuple[AttemptRef, Collected]:
    """Bring a directory here as the next attempt of its task, marked `"origin": "adopted"`; the same files only once.

    The host stays as it is. Raises what `collect_attempt` raises.
    """
    began = time.monotonic()
    outputs = pipeline.outputs
    limits = {"max_file_mb": outputs.max_file_mb, "max_total_mb": outputs.max_total_mb, "max_files": outputs.max_files}
    document = client.manifest_of(candidate.root, limits)
    manifest = read_manifest(document, Limits.of(outputs), candidate.host)
    # The same directory with the same bytes is the same attempt, however often it is adopted.
    identity = hashlib.sha256(f"{candidate.host}\0{candidate.root}\0{digest_of(manifest)}".encode()).hexdigest()
    attempt_id = f"adopted-{identity[:24]}"
    here = {
        "origin": "adopted",
        "state": "finished",
        "finished_at": candidate.written_at,
        "pipeline": pipeline.name,
        "source": visible(candidate.root, 4096),
        "found_by": f"instance id in {outputs.marker}",
    }
    known = [code_facts(client, pipeline, transport.host.workdir), here, facts]
    assert candidate.model is not None
    ref = AttemptRef(attempt_id, candidate.instance_id, candidate.model, candidate.run, 1, candidate.host)
    task_dir = batch_dir.joinpath(*ref.parts)
    for _ in range(_TRIES):
        number = find_result(task_dir, attempt_id) or free_number(task_dir, floor())
        ref = replace(ref, number=number)
        here_already = existing_result(ref, batch_dir)
        if here_already is not None:
            return ref, here_already
        try:
            return ref, bring(transport, manifest, None, attempt=ref, batch_dir=batch_dir, facts=known, began=began)
        except NumberTaken:
            continue
    raise StorageError(f"{task_dir}: no free attempt number after {_TRIES} tries", hint="fleet collect again")


def _is_directory(path: object) -> bool:
    """Tell whether a host's directory name may be sent back to it: absolute, one line, no step upwards."""
    if not isinstance(path, str) or not path.startswith("/") or len(path) > 4096:
        return False
    return visible(path) == path and ".." not in path.split("/")


def _iso(mtime: object) -> str:
    if not isinstance(mtime, int | float) or not 0 <= mtime < 1e11:
        return ""
    return datetime.fromtimestamp(mtime, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**53 else 0
