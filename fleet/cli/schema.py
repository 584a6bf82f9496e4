"""`fleet schema`: the JSON Schemas of what fleet reads and writes, made from the models that read and write it."""

from __future__ import annotations

import importlib
from typing import Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import write_json
from fleet.errors import InputError

# Name → (where the model lives, what the document is). The order is that of the work: inputs, journal, answers.
DOCUMENTS: dict[str, tuple[str, str]] = {
    "hosts": ("fleet.inventory.hosts_file:HostsFile", "hosts.yaml, the inventory"),
    "pipeline": ("fleet.model.pipeline:Pipeline", "remote_scripts/NAME/pipeline.yaml, the contract of an eval system"),
    "assignment": ("fleet.model.assignment:Entry", "the assignment file: which task runs where"),
    "journal": ("fleet.model.records:AnyRecord", "one line of collected/BATCH/journal.jsonl"),
    "check": ("fleet.checks.document:CheckDocument", "fleet check --json"),
    "sync": ("fleet.sync.document:SyncDocument", "fleet sync --json"),
    "plan": ("fleet.plan.document:PlanDocument", "fleet plan --json"),
    "verdict": ("fleet.model.verdict:Verdict", "verdict.json and fleet validate --json"),
    "provenance": ("fleet.collect.provenance:Provenance", "fleet.json beside every collected result"),
    "summary": ("fleet.dashboard.summary:Summary", "summary.json and fleet dashboard --json"),
    "error": ("fleet.cli.schema:ERROR", "an error with --json, on stderr"),
}

ERROR: dict[str, Any] = {
    "title": "Error",
    "type": "object",
    "required": ["schema", "code", "message", "hint", "host"],
    "properties": {
        "schema": {"const": "fleet.error/1"},
        "code": {
            "type": "string",
            "description": "Stable name of the kind of error, e.g. input, unreachable, host-key-changed.",
        },
        "message": {"type": "string"},
        "hint": {"type": "string", "description": "The next command to type, or empty."},
        "host": {"type": ["string", "null"]},
    },
}


@fleet_command("schema", example="fleet schema\nfleet schema check > check.schema.json")
@click.argument("name", required=False)
def schema(ctx: Context, name: str | None) -> int:
    """Print the JSON Schema of a document that fleet reads or writes; without NAME, list them.

    Every document says its version as "schema": "fleet.NAME/1". Keys may be added within a version, none is removed.
    """
    if name is None:
        rows = [{"name": known, "about": about} for known, (_, about) in DOCUMENTS.items()]
        width = max(len(known) for known in DOCUMENTS)
        ctx.emit_text(
            "fleet.schemas/1",
            {"documents": rows},
            lambda: "\n".join(f"{row['name']:<{width}}  {row['about']}" for row in rows),
        )
        return 0
    document = schema_of(name)
    if ctx.json:
        write_json(document)
    else:
        import json

        ctx.emit_line({}, json.dumps(document, indent=2))
    return 0


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of one document."""
    if name not in DOCUMENTS:
        from fleet.model.base import nearest
        from fleet.model.names import visible

        near = nearest(name, list(DOCUMENTS))
        raise InputError(
            f"no document is called {visible(name, 80)!r}" + (f", did you mean {near!r}?" if near else ""),
            hint=f"fleet schema {{{','.join(DOCUMENTS)}}}",
        )
    module_name, attribute = DOCUMENTS[name][0].split(":")
    model = getattr(importlib.import_module(module_name), attribute)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"fleet {name}",
        "description": DOCUMENTS[name][1],
    }
    if isinstance(model, dict):
        return model | head
    from pydantic import TypeAdapter

    body = TypeAdapter(model).json_schema(by_alias=True)
    wrap = {"assignment": _assignment, "verdict": _verdicts}.get(name)
    return (wrap(body) if wrap is not None else body) | head


def _verdicts(verdict: dict[str, Any]) -> dict[str, Any]:
    """Wrap the schema of one verdict: results and their count."""
    definitions = verdict.pop("$defs", {}) | {"Verdict": verdict}
    counts = ("accepted", "flagged", "rejected", "resolved")
    return {
        "type": "object",
        "required": ["schema", "results", "summary"],
        "properties": {
            "schema": {"const": "fleet.verdict/1"},
            "results": {"type": "array", "items": {"$ref": "#/$defs/Verdict"}},
            "summary": {"type": "object", "properties": {name: {"type": "integer"} for name in counts}},
        },
        "$defs": definitions,
    }


def _assignment(entry: dict[str, Any]) -> dict[str, Any]:
    """Wrap the schema of one entry: places with lists of tasks, and `$defaults` with some of an entry's keys."""
    definitions = entry.pop("$defs", {}) | {"Task": entry, "Defaults": {k: v for k, v in entry.items() if k != "required"}}
    return {
        "type": "object",
        "properties": {"$defaults": {"$ref": "#/$defs/Defaults"}},
        "additionalProperties": {"type": "array", "items": {"$ref": "#/$defs/Task"}},
        "$defs": definitions,
    }
