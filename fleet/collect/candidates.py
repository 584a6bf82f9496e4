"""Output directories that fleet did not start: found by what they hold, shown, and taken only when clear.

A directory counts as a result of an instance when its marker file names the instance; neither its age nor its place decides.
Model and run come from the path, in the two layouts that the evals write, or from the operator:

    outputs/<dataset>-<split>/<Agent>/<model>_maxiter_<N>_…/        run 1
    Trajectory_results/<Benchmark>/<Instance>/<Model>/Run<N>/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fleet.errors import AgentError, InputError
from fleet.model.names import is_name, visible

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.model.hosts import Host
    from fleet.model.pipeline import Pipeline

_BY_MODEL = re.compile(r"(?:llm\.)?([A-Za-z0-9][A-Za-z0-9._-]*?)_maxiter_[0-9]+(?:_.*)?\Z")
_RUN = re.compile(r"[Rr]un_?([1-9][0-9]{0,3})\Z")


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
    own: Mapping[str, Any] | None = None
    """The attempt, batch and key of fleet's own eval that wrote it, as the host says; None when there was none."""

    @property
    def label(self) -> str:
        """The task it would be a result of."""
        return f"{self.instance_id}/{self.model or '?'}/run{self.run}"

    @property
    def name(self) -> str:
        """What the operator types to pick it."""
        return f"{self.host}:{self.root}"


def find_candidates(
    client: AgentClient, host: Host, pipeline: Pipeline, directory: str, *, instances: Sequence[str], model: str | None
) -> list[Candidate]:
    """Return the directories below `directory` that hold a result of one of `instances` (of any, when none is named).

    `directory` is absolute, in the home (`~/…`), or below the work directory. AgentError `busy` while an eval runs on the
    host: what it has written so far is not a result.
    """
    _require_idle(client, host.name, pipeline)
    workdir = (host.workdir or pipeline.workdir).rstrip("/")
    root = directory if directory.startswith(("/", "~")) else f"{workdir}/{directory}"
    found = []
    for one in client.find(root, list(instances), pipeline.outputs.marker):
        where, instance_id = one.get("root"), one.get("instance_id")
        if not _is_directory(where) or not is_name(instance_id) or (instances and instance_id not in instances):
            continue
        assert isinstance(where, str) and isinstance(instance_id, str)
        read_model, run = layout_of(where)
        found.append(
            Candidate(
                host=host.name,
                root=where,
                instance_id=instance_id,
                model=read_model or model,  # never another name than the one that it ran under
                run=run,
                written_at=_iso(one.get("mtime")),
                rows=_count(one.get("rows")),
                files=_count(one.get("files")),
                bytes=_count(one.get("bytes")),
                own=own if isinstance(own := one.get("own"), dict) else None,
            )
        )
    return found


def _require_idle(client: AgentClient, host: str, pipeline: Pipeline) -> None:
    facts = client.probe({"processes": list(pipeline.busy.processes)})
    running, lock = facts.get("processes"), facts.get("lock")
    first = running[0] if isinstance(running, list) and running and isinstance(running[0], dict) else None
    held = isinstance(lock, dict) and lock.get("state") == "held"
    if first is not None or held:
        who = "an eval of fleet's" if first is None else f"an eval that fleet did not start (pid {first.get('pid')})"
        raise AgentError(
            f"{host}: {visible(who, 80)} is running; what it has written is not a result yet",
            code="busy",
            hint="adopt it when the eval has ended",
            host=host,
        )


def layout_of(root: str) -> tuple[str | None, int]:
    """Return (model, run) as the path of an output directory tells them; None when it does not."""
    parts = root.rstrip("/").split("/")
    run = _RUN.match(parts[-1])
    if run is not None and len(parts) >= 4 and is_name(parts[-2]):
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
