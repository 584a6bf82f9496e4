"""The assignment file: which task runs where. Exactly the users' existing format is valid."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from fleet.errors import InputError
from fleet.model.base import Strict, hinted, no_duplicates, parse, refuse_constant
from fleet.model.failures import policy_problem
from fleet.model.names import is_name, redact, visible

MAX_BYTES = 64 * 1024 * 1024
MAX_LISTED = 10
_SHAPE = 'one JSON object, {"HOST": [TASK, …]}; docs/run-a-batch.md shows one'


class Entry(Strict):
    """One task as written; unset optional fields fall back to `$defaults`, then to the defaults of Task."""

    instance_id: str
    model: str
    dataset_file: str = Field(min_length=1)
    task_name: str = ""
    pipeline: str | None = None
    run: int = Field(default=1, ge=1, le=10_000)
    max_iterations: int = Field(default=200, ge=1, le=100_000)
    eval_limit: int = Field(default=1, ge=1, le=100_000)
    num_workers: int = Field(default=1, ge=1, le=1024)
    timeout: float | None = Field(default=None, gt=0, le=7 * 86_400)
    agent: str | None = None
    image_id: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    env: dict[str, str] = Field(default_factory=dict)
    retry: dict[str, int] = Field(default_factory=dict)

    @field_validator("instance_id", "model")
    @classmethod
    def _name(cls, value: str) -> str:
        if not is_name(value):
            raise ValueError(f"{value[:80]!r} may only hold A-Z a-z 0-9 . _ - and must start with a letter or digit")
        return value

    @field_validator("agent", "pipeline")
    @classmethod
    def _optional_name(cls, value: str | None) -> str | None:
        return value if value is None else cls._name(value)

    @field_validator("task_name")
    @classmethod
    def _task_name(cls, value: str) -> str:
        if value and not is_name(value):
            raise ValueError(f"{value[:80]!r} may only hold A-Z a-z 0-9 . _ - and must start with a letter or digit")
        return value

    @field_validator("dataset_file")
    @classmethod
    def _file(cls, value: str) -> str:
        if len(value) > 4096 or not value.isprintable():
            raise ValueError(f"{visible(value, 80)!r} is not a file name; control characters are not allowed in one")
        return value

    @field_validator("env")
    @classmethod
    def _env(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            # A name may be a key that was pasted into the wrong place, a value is one more often than not.
            if not name.isidentifier() or not name.isascii() or len(name) > 200:
                raise ValueError(f"{visible(redact(name), 80)!r} is not a valid variable name")
            if "\0" in text or len(text) > 131_072:
                raise ValueError(f"{name}: the value holds a NUL, or more than 128 KB")
        return value

    @field_validator("retry", mode="before")
    @classmethod
    def _retry(cls, value: Any) -> Any:
        problems = [policy_problem(str(word), count) for word, count in value.items()] if isinstance(value, dict) else []
        for problem in filter(None, problems):
            raise ValueError(problem)
        return value


class Assignment(Strict):
    """All entries in file order, each with the place (host, `@group`, glob, `*`) it was written under."""

    entries: tuple[tuple[str, Entry], ...]
    sha256: str


def listed(problems: Sequence[str]) -> str:
    """Return the first problems of a file, one a line: who repairs one wants to see the others too."""
    more = f"\n  … and {len(problems) - MAX_LISTED} more" if len(problems) > MAX_LISTED else ""
    return "\n  ".join(problems[:MAX_LISTED]) + more


def read_assignment(raw: bytes, source: str, sha256: str) -> Assignment:
    """Return the assignment in `raw`, or raise InputError that names `source`, the path inside it and the reason."""
    with hinted("docs/formats.md has every key of a task; fleet schema assignment"):
        return _read(raw, source, sha256)


def _read(raw: bytes, source: str, sha256: str) -> Assignment:
    document = _document(raw, source)
    defaults = document.pop("$defaults", {})
    if not isinstance(defaults, dict):
        raise InputError(f"{source}: $defaults must be an object")
    entries: list[tuple[str, Entry]] = []
    problems: list[str] = []
    seen: dict[str, str] = {}
    for place, tasks in document.items():
        if not isinstance(tasks, list):
            raise InputError(f"{source}: {place}: must be a list of tasks", hint=_SHAPE)
        for index, task in enumerate(tasks):
            where = f"{source}: {place}[{index}]"
            if not isinstance(task, dict):
                raise InputError(f"{where}: must be an object")
            try:
                entry = parse(Entry, {**defaults, **task}, where)
            except InputError as error:
                problems.append(error.message)
                continue
            label = f"{entry.instance_id}/{entry.model}/run{entry.run}"
            if label in seen:
                problems.append(f"{where}: {label} is already assigned at {seen[label]}")
            seen.setdefault(label, f"{place}[{index}]")
            entries.append((place, entry))
    if problems:
        raise InputError(listed(problems))
    if not entries:
        raise InputError(f"{source}: holds no task", hint=_SHAPE)
    return Assignment(entries=tuple(entries), sha256=sha256)


def without_values(raw: bytes, source: str) -> bytes:
    """Return the assignment as it may be kept: the same bytes, or, where tasks have `env`, a copy without its values."""
    document = _document(raw, source)
    hidden = False
    for tasks in document.values():
        for task in tasks if isinstance(tasks, list) else [tasks]:
            if isinstance(task, dict) and isinstance(task.get("env"), dict) and task["env"]:
                task["env"] = dict.fromkeys(task["env"], "[not kept]")
                hidden = True
    return json.dumps(document, indent=2).encode() + b"\n" if hidden else raw


def _document(raw: bytes, source: str) -> dict[str, Any]:
    if len(raw) > MAX_BYTES:
        raise InputError(f"{source}: {len(raw)} bytes, more than the {MAX_BYTES} allowed")
    try:
        document = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=no_duplicates, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not a JSON assignment: {error}", hint=_SHAPE) from None
    if not isinstance(document, dict):
        raise InputError(f"{source}: holds a JSON {type(document).__name__}, not an object", hint=_SHAPE)
    return document
