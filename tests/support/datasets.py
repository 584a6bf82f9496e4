"""Dataset files in both dialects, and the seed case: four instances × two models on four hosts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPO = "example/teapot"
MODELS = ("gpt", "claude")
INSTANCES = ("example-teapot-1", "example-teapot-2", "example-teapot-3", "example-teapot-4")


def fail_to_pass(instance_id: str) -> list[str]:
    """Return the tests of an instance that its fix makes pass."""
    short = instance_id.rpartition("-")[2]
    return [f"tests/test_pour.py::test_does_not_spill_{short}", f"tests/test_pour.py::test_stops_when_full_{short}"]


def pass_to_pass() -> list[str]:
    """Return the tests that pass before and after."""
    return [f"tests/test_lid.py::test_{name}" for name in ("opens", "closes", "keeps_warm", "fits", "is_round")]


def dataset(instance_id: str, *, dialect: int = 1, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the record of one instance; dialect 2 has the other field names and lists as text."""
    commit = hashlib.sha1(REPO.encode(), usedforsecurity=False).hexdigest()
    statement = f"Pouring spills when the cup is full ({instance_id}). This repository is made up, as an example."
    tests = (
        "diff --git a/tests/test_pour.py b/tests/test_pour.py\n--- a/tests/test_pour.py\n+++ b/tests/test_pour.py\n"
        "@@ -1,2 +1,5 @@\n from teapot import pour\n \n+\n+def test_does_not_spill():\n+    assert pour(cup=1.0) == 0\n"
    )
    record: dict[str, Any] = {
        "instance_id": instance_id,
        "repo": REPO,
        "image_storage_uri": f"s3://example-bucket/images/{REPO.replace('/', '_')}-{commit}.tar",
        "test_command": "pytest -rA -v",
        "test_output_parser": "python/parse_log_pytest_v3",
    }
    if dialect == 1:
        record |= {
            "base_commit": commit,
            "FAIL_TO_PASS": fail_to_pass(instance_id),
            "PASS_TO_PASS": json.dumps(pass_to_pass()),
            "test_patch": tests,
            "problem_statement": statement,
        }
    else:
        record |= {
            "commit_hash": commit,
            "fail_to_pass_tests": str(fail_to_pass(instance_id)),
            "pass_to_pass_tests": pass_to_pass(),
            "test_patches": json.dumps([tests]),
            "issue_statement": statement,
        }
    return record | dict(extra or {})


def write_dataset(
    path: Path, instance_id: str, *, dialect: int = 1, extra: Mapping[str, Any] | None = None, compact: bool = False
) -> Path:
    """Write the dataset file of one instance; `extra` adds fields, as `harness_switches`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = dataset(instance_id, dialect=dialect, extra=extra)
    path.write_text(json.dumps(record, indent=None if compact else 2, ensure_ascii=False) + "\n")
    return path


def task(instance_id: str, model: str, dataset_file: str, **fields: Any) -> dict[str, Any]:
    """Return one entry of an assignment file."""
    name = f"{REPO.replace('/', '__')}-{instance_id.rpartition('-')[2]}"
    return {"instance_id": instance_id, "model": model, "dataset_file": dataset_file, "task_name": name, **fields}


def seed_case(
    directory: Path,
    hosts: Sequence[str] = ("eval1", "eval2", "eval3", "eval4"),
    *,
    models: Sequence[str] = MODELS,
    instances: Sequence[str] = INSTANCES,
    extra: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Write the datasets and the assignment file of the seed case, both models of an instance on one host.

    `extra` adds dataset fields by instance id. Returns the path of the assignment file, `phase8.json`.
    """
    assignment: dict[str, list[dict[str, Any]]] = {host: [] for host in hosts}
    for number, instance in enumerate(instances):
        name = f"datasets/{instance}.jsonl"
        write_dataset(
            directory / name, instance, dialect=1 + number % 2, extra=(extra or {}).get(instance), compact=number >= 2
        )
        assignment[hosts[number % len(hosts)]] += [task(instance, model, name) for model in models]
    path = directory / "phase8.json"
    path.write_text(json.dumps(assignment, indent=2) + "\n")
    return path
