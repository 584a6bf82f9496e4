"""One row of `output.jsonl`: patch, history, error and costs, in the dialects of OpenHands from 2024 to its SDK.

A row can be 100 MB of history; only what the rules need is kept, so that the rest is freed at once.
"""

from __future__ import annotations

import hashlib
import marshal
from dataclasses import dataclass, replace
from typing import Any

from fleet.quality import values


@dataclass(frozen=True)
class Record:
    """What is kept of a row; None means that it was not there."""

    claimed_id: str | None = None
    """The row's own id; None when it is absent, empty or of a wrong type."""
    claimed_kind: str = "null"
    """JSON type of what stood where the id should be; `null` when nothing did."""
    inner_id: str | None = None
    """The instance_id inside `instance`."""
    patch: str | None = None
    patch_kind: str = "null"
    """JSON type of what stood where the patch should be."""
    other_patch: str | None = None
    """A top-level `git_patch` that differs from the one in `test_result`."""
    history_entries: int | None = None
    history_kind: str = "null"
    error: str | None = None
    model: str | None = None
    cost_usd: float | None = None
    tokens: int | None = None
    fail_to_pass: tuple[str, ...] | None = None
    """F2P of the dataset, when the row carries its instance."""
    pass_to_pass: tuple[str, ...] | None = None
    resolved: Any = None
    details: Any = None
    has_resolved: bool = False
    history_print: str | None = None
    """Equal for equal histories."""


def read_output(row: dict[str, Any]) -> Record:
    """Return what the rules need of one row of output.jsonl."""
    return replace(read_record(row), history_print=fingerprint(row.get("history")))


def fingerprint(value: Any) -> str | None:
    """Return a digest of JSON content, None for nothing; marshal is ten times as fast as writing JSON again."""
    if not value:
        return None
    try:
        # Version 2: later ones write equal values differently, by how often they are referred to.
        return hashlib.blake2b(marshal.dumps(value, 2), digest_size=12).hexdigest()
    except ValueError:
        return None


def read_record(row: dict[str, Any]) -> Record:
    """Return what the rules need of one row of eval_pilot2_output.jsonl, which repeats that of output.jsonl."""
    instance, metrics = values.mapping(row.get("instance")), values.mapping(row.get("metrics"))
    nested = values.mapping(row.get("test_result")).get("git_patch")
    top = row.get("git_patch")
    patch = nested if isinstance(nested, str) else top
    history = row.get("history")
    entries = _entries(history)
    return Record(
        claimed_id=values.identity(claimed_value(row)),
        claimed_kind=values.kind(claimed_value(row)),
        inner_id=values.identity(instance.get("instance_id")),
        patch=patch if isinstance(patch, str) else None,
        patch_kind=values.kind(nested if nested is not None else top),
        other_patch=top if isinstance(top, str) and isinstance(nested, str) and _differ(top, nested) else None,
        history_entries=entries,
        history_kind=values.kind(history),
        error=_error(row.get("error")),
        model=_model(row),
        cost_usd=values.amount(metrics.get("accumulated_cost")),
        tokens=_tokens(metrics.get("accumulated_token_usage")),
        fail_to_pass=_first_list(instance, "FAIL_TO_PASS", "fail_to_pass_tests"),
        pass_to_pass=_first_list(instance, "PASS_TO_PASS", "pass_to_pass_tests"),
        resolved=row.get("resolved"),
        details=row.get("pilot2_eval_details", row.get("evaluation_details")),
        has_resolved="resolved" in row,
    )


def claimed_value(row: dict[str, Any]) -> Any:
    """Return what stands where the id should be; an old dialect says `id`, and an empty `instance_id` stays empty."""
    return row["instance_id"] if "instance_id" in row else row.get("id")


def _differ(one: str, other: str) -> bool:
    return bool(one.strip()) and bool(other.strip()) and one.rstrip("\n") != other.rstrip("\n")


def _entries(history: Any) -> int | None:
    """Count events, or [action, observation] pairs; a list of anything else holds no entry."""
    if not isinstance(history, list):
        return None
    return sum(1 for entry in history if isinstance(entry, dict | list) and entry)


def _error(value: Any) -> str | None:
    if value is None or value is False or value == "" or value == {} or value == []:
        return None
    return values.compact(value).strip() or None


def _model(row: dict[str, Any]) -> str | None:
    return model_of(values.mapping(row.get("metadata")))


def model_of(metadata: dict[str, Any]) -> str | None:
    """Return the model that metadata names; the SDK writes its settings under `llm`, its forerunners under `llm_config`."""
    settings = values.mapping(metadata.get("llm_config")) or values.mapping(metadata.get("llm"))
    return values.text(settings.get("model"))


def _tokens(usage: Any) -> int | None:
    found = values.mapping(usage)
    parts = [values.count(found.get("prompt_tokens")), values.count(found.get("completion_tokens"))]
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _first_list(instance: dict[str, Any], *names: str) -> tuple[str, ...] | None:
    return next((found for name in names if (found := values.strings(instance.get(name))) is not None), None)
