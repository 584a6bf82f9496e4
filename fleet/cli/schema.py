"""`fleet schema`: the JSON Schemas of what fleet reads and writes, made from the models that read and write it."""

from __future__ import annotations

import importlib
from typing import Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import write_json
from fleet.errors import InputError

# Name → (where the model lives, what the document is). The order is that of the work: inputs, what is kept, answers.
# A document that says `"schema": "fleet.NAME/1"` is here under NAME.
DOCUMENTS: dict[str, tuple[str, str]] = {
    "hosts-file": ("fleet.inventory.hosts_file:HostsFile", "hosts.yaml, the inventory"),
    "pipeline": ("fleet.model.pipeline:Pipeline", "remote_scripts/NAME/pipeline.yaml, the contract of an eval system"),
    "assignment": ("fleet.model.assignment:Entry", "the assignment file: which task runs where"),
    "journal": ("fleet.model.records:AnyRecord", "one line of collected/BATCH/journal.jsonl"),
    "provenance": ("fleet.collect.provenance:Provenance", "fleet.json beside every collected result"),
    "manifest": ("fleet.collect.manifest:ResultManifest", "manifest.json beside every collected result"),
    "verdict": ("fleet.cli.documents:VerdictDocument", "verdict.json and fleet validate --json"),
    "summary": ("fleet.dashboard.summary:Summary", "summary.json and fleet dashboard --json"),
    "compare": ("fleet.compare.document:Comparison", "fleet compare --json"),
    "hosts": ("fleet.cli.documents:HostsDocument", "fleet hosts --json"),
    "trust": ("fleet.cli.documents:TrustDocument", "fleet trust --json"),
    "check": ("fleet.checks.document:CheckDocument", "fleet check --json"),
    "sync": ("fleet.sync.document:SyncDocument", "fleet sync --json"),
    "plan": ("fleet.plan.document:PlanDocument", "fleet plan --json"),
    "images": ("fleet.aws.document:ImagesDocument", "fleet images --json"),
    "dispatch-plan": ("fleet.cli.documents:DispatchPlanDocument", "fleet dispatch --dry-run --json"),
    "dispatch": ("fleet.cli.documents:DispatchDocument", "fleet dispatch --json"),
    "dispatch-detached": ("fleet.cli.documents:DispatchDetachedDocument", "fleet dispatch --detach --json"),
    "status": ("fleet.cli.documents:StatusDocument", "fleet status --json"),
    "host-status": ("fleet.cli.documents:HostStatusDocument", "fleet status --all-hosts --json"),
    "log-line": ("fleet.cli.documents:LogLine", "one line of fleet logs --json"),
    "cancel": ("fleet.cli.documents:CancelDocument", "fleet cancel --json"),
    "retry": ("fleet.cli.documents:RetryDocument", "fleet retry --json"),
    "release": ("fleet.cli.documents:ReleaseDocument", "fleet release --json"),
    "recover": ("fleet.cli.documents:RecoverDocument", "fleet recover --json"),
    "collect": ("fleet.collect.outcome:CollectDocument", "fleet collect --json"),
    "why": ("fleet.cli.documents:WhyDocument", "fleet why --json"),
    "reason": ("fleet.cli.documents:ReasonDocument", "fleet validate --explain CODE --json"),
    "lite-run": ("fleet.cli.lite_documents:LiteRunDocument", "fleet lite run --json, and result.json of every run"),
    "lite-agent": ("fleet.cli.lite_documents:LiteAgentDocument", "fleet lite agent --json, and agent.json of every such run"),
    "lite-batch": ("fleet.cli.lite_documents:LiteBatchDocument", "fleet lite batch --json"),
    "lite-validate": ("fleet.cli.lite_documents:LiteValidateDocument", "fleet lite validate and validate-task --json"),
    "lite-image": ("fleet.cli.lite_documents:LiteImageDocument", "fleet lite image --json"),
    "demo": ("fleet.cli.demo_document:DemoDocument", "fleet demo --json"),
    "schemas": ("fleet.cli.documents:SchemasDocument", "fleet schema --json"),
    "error": ("fleet.cli.documents:ErrorDocument", "an error with --json, on stderr"),
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
    from pydantic import TypeAdapter

    body = TypeAdapter(model_of(name)).json_schema(by_alias=True)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"fleet {name}",
        "description": DOCUMENTS[name][1],
    }
    return (_assignment(body) if name == "assignment" else body) | head


def model_of(name: str) -> Any:
    """Return the type that a document is read into or written from; of an assignment that of one entry."""
    module_name, attribute = DOCUMENTS[name][0].split(":")
    return getattr(importlib.import_module(module_name), attribute)


def _assignment(entry: dict[str, Any]) -> dict[str, Any]:
    """Wrap the schema of one entry: places with lists of tasks, and `$defaults` with some of an entry's keys."""
    definitions = entry.pop("$defs", {}) | {"Task": entry, "Defaults": {k: v for k, v in entry.items() if k != "required"}}
    return {
        "type": "object",
        "properties": {"$defaults": {"$ref": "#/$defs/Defaults"}},
        "additionalProperties": {"type": "array", "items": {"$ref": "#/$defs/Task"}},
        "$defs": definitions,
    }
