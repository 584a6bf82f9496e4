"""What became of one attempt that a sweep looked at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field

from fleet.errors import AgentError, FleetError, TransportError
from fleet.model.exitcodes import Exit
from fleet.model.findings import Finding
from fleet.model.verdict import Cause, Outcome


class Got(StrEnum):
    """The ends that one attempt, or one host, can come to in a sweep."""

    COLLECTED = "collected"
    ADOPTED = "adopted"
    ALREADY = "already here"
    RUNNING = "running"
    NOT_STARTED = "not started"
    LATER = "not sealed yet"
    GONE = "removed here"
    UNKNOWN = "unknown on the host"
    AMBIGUOUS = "ambiguous"
    BUSY = "busy"
    FAILED = "failed"
    NO_HOST = "no answer"


BITS: dict[Got, Exit] = {
    Got.LATER: Exit.INCOMPLETE,
    Got.GONE: Exit.INCOMPLETE,
    Got.UNKNOWN: Exit.INCOMPLETE,
    Got.AMBIGUOUS: Exit.INCOMPLETE,
    Got.BUSY: Exit.INCOMPLETE,
    Got.FAILED: Exit.INCOMPLETE,
    Got.NO_HOST: Exit.INCOMPLETE,
}


class Row(BaseModel):
    """One attempt, or one host that gave no answer, in the document of `fleet collect --json`."""

    got: Got
    host: str
    batch: str
    task: str
    attempt: str
    path: str
    files: int | None
    bytes: int | None
    seconds: float | None
    verdict: Outcome | None
    cause: Cause | None
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    error: str
    hint: str
    code: str


class CollectDocument(BaseModel):
    """What `fleet collect --json` prints."""

    schema_: Literal["fleet.collect/1"] = Field(default="fleet.collect/1", alias="schema")
    results: tuple[Row, ...]
    summary: dict[str, int]
    """How many came to which end, the verdicts on what was brought, and its bytes."""


@dataclass(frozen=True)
class Result:
    """One row of `fleet collect`; `path` is relative to the directory of collected batches."""

    got: Got
    host: str
    batch: str = ""
    task: str = ""
    attempt: str = ""
    path: str = ""
    files: int | None = None
    bytes: int | None = None
    seconds: float | None = None
    verdict: Outcome | None = None
    cause: Cause | None = None
    reasons: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=())
    error: str = ""
    hint: str = ""
    code: str = ""
    bit: Exit = Exit.OK

    @property
    def exit(self) -> Exit:
        """The exit bit this row adds."""
        if self.bit:
            return self.bit
        if self.verdict is Outcome.REJECTED and self.got in (Got.COLLECTED, Got.ADOPTED):
            return Exit.FAILED
        return BITS.get(self.got, Exit.OK)

    @property
    def document(self) -> dict[str, Any]:
        """The row as JSON."""
        return Row(**{name: getattr(self, name) for name in Row.model_fields}).model_dump(mode="json")


def failed(got: Got, error: FleetError, **where: Any) -> Result:
    """Return the row of an error that concerns one attempt or one host."""
    code = (
        error.code if isinstance(error, AgentError) else getattr(error, "link", "") if isinstance(error, TransportError) else ""
    )
    return Result(got, error=error.message, hint=error.hint, code=code, bit=error.bit, **where)
