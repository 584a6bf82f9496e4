"""The contract of an eval system: `remote_scripts/NAME/pipeline.yaml`. A folder, not a plugin class.

Strings marked *template* may use `{workdir}`, `{attempt}`, `{output_dir}`, `{inputs}`, `{dataset}` and the task's fields
`{instance_id}`, `{model}`, `{run}`, `{task_name}`, `{repo_tag}`, `{max_iterations}`, `{eval_limit}`, `{num_workers}`,
`{agent}`; each list item is filled on its own, so a value can never become a second argument. `~` and `$HOME` are the
eval host's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fleet.errors import InputError
from fleet.model.base import Strict
from fleet.model.verdict import Severity

SCHEMA = "fleet.pipeline/1"
FIELDS = frozenset(
    {
        "workdir", "attempt", "output_dir", "inputs", "dataset", "instance_id", "model", "run", "task_name",
        "repo_tag", "max_iterations", "eval_limit", "num_workers", "agent",
    }
)  # fmt: skip
MIN_STALL_TO_CANCEL_S = 120.0
"""The host counts CPU time once a minute; an eval must not be ended before it was counted twice."""
_FIELD = re.compile(r"\{([a-z_]+)\}")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class CriticalFile(Strict):
    """A file whose content decides what is measured; it must be the same on every host."""

    path: str
    """Below the work directory."""
    executable: bool = False
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    md5: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")


class Command(Strict):
    """A readiness question answered by a command's exit code 0."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    argv: tuple[str, ...] = Field(min_length=1)
    timeout_s: float = 60.0
    fix: str = ""


class Disk(Strict):
    """Free space where the work directory lives."""

    max_used_percent: float = 80.0
    min_free_gb: float = 20.0
    min_free_inodes: int = 10_000


class Readiness(Strict):
    """What must hold before a host takes a task."""

    commands: tuple[Command, ...] = ()
    docker: bool = False
    disk: Disk = Field(default_factory=Disk)
    min_free_memory_gb: float = 4.0
    tools: tuple[str, ...] = ()
    """Programs that must be on PATH, besides python3 and rsync."""
    max_clock_skew_s: float = 60.0


class Busy(Strict):
    """How an eval that fleet did not start is recognised; it is reported and never killed."""

    processes: tuple[str, ...] = ()
    """Regular expressions searched in command lines."""
    containers: tuple[str, ...] = ()
    """Globs of container names."""


class Outputs(Strict):
    """Where the eval leaves its result."""

    root: str
    """*Template*; searched for the run's own `marker`, by instance id, among the files this attempt wrote."""
    marker: str = "output.jsonl"
    expected: tuple[str, ...] = ()
    """Shown as missing in `fleet check`-style hints; the verdict itself comes from the quality rules."""
    max_file_mb: int = 2048
    max_total_mb: int = 10_240
    max_files: int = 50_000


class Cleanup(Strict):
    """What happens to what an ended eval left behind."""

    processes: Literal["kill", "keep"] = "kill"
    containers: Literal["remove", "keep"] = "remove"
    """Only containers created after the attempt was accepted."""
    grace_s: float = 30.0


class Quality(Strict):
    """Thresholds and severities of the verdict rules (docs/verdicts.md)."""

    layout: str = "openhands"
    min_patch_bytes: int = 100
    small_patch_bytes: int = 1024
    large_patch_bytes: int = 102_400
    min_history: int = 20
    max_history: int = 200
    severities: dict[str, Severity] = Field(default_factory=dict)
    """Overrides by reason code."""


class Pipeline(Strict):
    """One eval system: its files, readiness, command, outputs and quality rules."""

    schema_: Literal["fleet.pipeline/1"] = Field(alias="schema")
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str = ""
    workdir: str
    reference: Path | None = None
    """A checkout on the controller that holds the right critical files; relative to the pipeline file."""
    critical: tuple[CriticalFile, ...] = ()
    ship: tuple[str, ...] = ()
    """Files beside pipeline.yaml that `fleet sync` puts below `~/.fleet/pipelines/NAME/` on the hosts."""
    include: tuple[Path, ...] = ()
    """Other pipelines by name, whose own `ship` goes there too: once loaded it is in `ship`, and here are their folders."""
    readiness: Readiness = Field(default_factory=Readiness)
    busy: Busy = Field(default_factory=Busy)
    images: tuple[str, ...] = ()
    """*Template*; names of the Docker images that a task runs in, whose ids are recorded with its result."""
    command: tuple[str, ...] = Field(min_length=1)
    """*Template*; an argv list, never a shell string."""
    env: dict[str, str] = Field(default_factory=dict)
    """*Template*; `$HOME` and `$PATH` at any place are the eval host's."""
    timeout_s: float = 5400.0
    stall_after_s: float = Field(default=900.0, ge=0)
    """An eval whose log, CPU and containers stood still for so long is shown as stalled; 0 = never."""
    on_stall: Literal["show", "cancel"] = "show"
    expected_minutes: float = 20.0
    outputs: Outputs
    cleanup: Cleanup = Field(default_factory=Cleanup)
    quality: Quality = Field(default_factory=Quality)
    max_log_mb: int = 64

    @field_validator("include", mode="before")
    @classmethod
    def _names_of_pipelines(cls, given: object) -> tuple[object, ...]:
        names = tuple(given) if isinstance(given, list | tuple) else (given,)
        for name in names:
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError("not the name of a pipeline")
        return names

    @model_validator(mode="after")
    def _evidence_for_an_end(self) -> Pipeline:
        if self.on_stall == "cancel" and self.stall_after_s and self.stall_after_s < MIN_STALL_TO_CANCEL_S:
            raise ValueError(f"on_stall: cancel needs stall_after_s of {MIN_STALL_TO_CANCEL_S:.0f} or more")
        return self

    @model_validator(mode="after")
    def _known_fields(self) -> Pipeline:
        templates = {
            "command": self.command,
            "env": tuple(self.env.values()),
            "outputs.root": (self.outputs.root,),
            "images": self.images,
        }
        for key, items in templates.items():
            for item in items:
                unknown = sorted(set(_FIELD.findall(item)) - FIELDS)
                if unknown:
                    # Not the item itself: a value of `env` may be a key.
                    shown = "" if key == "env" else f" in {item!r}"
                    raise ValueError(f"{key}: unknown field {{{unknown[0]}}}{shown}")
        return self


def fill(template: str, values: dict[str, str], source: str) -> str:
    """Return `template` with its fields filled; a field without a value is an InputError."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in values:
            raise InputError(f"{source}: no value for {{{name}}}")
        return values[name]

    return _FIELD.sub(one, template)
