"""What `fleet demo --json` prints."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.dashboard.figures import Summary
from fleet.model.base import Strict


class DemoStep(Strict):
    """One command of the demo, as it was run."""

    command: str
    exit_code: int
    seconds: float


class DemoPoint(Strict):
    """One thing that the demo is meant to show, and what was found."""

    what: str
    subject: str
    ok: bool
    found: str


class DemoDocument(Strict):
    """`fleet demo`."""

    schema_: Literal["fleet.demo/1"] = Field(alias="schema")
    directory: str
    sandbox: Literal["venv", "docker"] = "venv"
    seconds: float
    steps: tuple[DemoStep, ...]
    shown: tuple[DemoPoint, ...]
    missing: tuple[str, ...]
    rates: dict[str, float] | None
    summary: Summary
