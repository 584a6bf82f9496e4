"""Hosts, a pipeline and recorded answers for tests of the checks, which need no SSH."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleet.checks.base import Authority, Expectation, Subject
from fleet.checks.facts import HostFacts, read_facts
from fleet.model.hosts import Hop, Host
from fleet.model.pipeline import Pipeline

FIXTURES = Path(__file__).parent.parent / "fixtures" / "facts"
ANSWERED_AT = 1790000000.5

EXPECTED = {
    "scripts/run.sh": Expectation(Authority.REFERENCE, "reference /ref", sha256="SHA_RUN"),
    "docker.py": Expectation(Authority.REFERENCE, "reference /ref", sha256="SHA_DOCKER"),
    "~/.fleet/pipelines/bench/helper.py": Expectation(Authority.REFERENCE, "remote_scripts/bench", sha256="SHA_HELPER"),
}


def make_host(name: str = "eval1", **fields: Any) -> Host:
    """Return a host that nobody connects to."""
    return Host(name=name, hop=Hop(address="192.0.2.1", user="ubuntu", host_key_alias=name), pipeline="bench", **fields)


def make_pipeline(**fields: Any) -> Pipeline:
    """Return a pipeline that uses every kind of check."""
    document: dict[str, Any] = {
        "schema": "fleet.pipeline/1",
        "name": "bench",
        "workdir": "~/OpenHands",
        "critical": [{"path": "scripts/run.sh", "executable": True}, {"path": "docker.py"}],
        "ship": ["helper.py"],
        "readiness": {
            "commands": [{"name": "poetry-env", "argv": ["poetry", "run", "true"], "fix": "poetry install"}],
            "docker": True,
            "tools": ["git"],
        },
        "busy": {"processes": ["run_infer"], "containers": ["openhands-runtime-*"]},
        "command": ["./scripts/run.sh", "llm.{model}", "{dataset}"],
        "env": {"PYTHONPATH": "{workdir}", "MODEL": "{model}"},
        "outputs": {"root": "{workdir}/out"},
    }
    return Pipeline.model_validate(document | fields)


def healthy() -> dict[str, Any]:
    """Return the answer of a host on which nothing is wrong."""
    answer = json.loads((FIXTURES / "healthy.json").read_text())
    assert isinstance(answer, dict)
    return answer


def patched(patch: dict[str, Any]) -> dict[str, Any]:
    """Return the healthy answer with `patch` merged into it; null removes what was an object."""
    return _merge(healthy(), patch)


def _merge(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        elif value is None and isinstance(merged.get(key), dict):
            del merged[key]
        else:
            merged[key] = value
    return merged


def subject(answer: dict[str, Any], **fields: Any) -> Subject:
    """Return what the checks judge."""
    facts = read_facts(answer)
    assert isinstance(facts, HostFacts), facts
    settings: dict[str, Any] = {"seconds": 1.0, "answered_at": ANSWERED_AT, "expected": EXPECTED} | fields
    return Subject(make_host(), settings.pop("pipeline", make_pipeline()), facts, **settings)
