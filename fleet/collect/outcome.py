"""What became of one attempt that a sweep looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

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
    HELD = "held"
    GONE = "removed here"
    UNKNOWN = "unknown on the host"
    AMBIGUOUS = "ambiguous"
    BUSY = "busy"
    FAILED = "failed"
    NO_HOST = "no answer"


BITS: dict[Got, Exit] = {
    Got.LATER: Exit.INCOMPLETE,
    Got.HELD: Exit.INCOMPLETE,
    Got.GONE: Exit.INCOMPLETE,
    Got.UNKNOWN: Exit.INCOMPLETE,
    Got.AMBIGUOUS: Exit.INCOMPLETE,
    Got.BUSY: Exit.INCOMPLETE,
    Got.FAILED: Exit.INCOMPLETE,
    Got.NO_HOST: Exit.INCOMPLETE,
}


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
        body = asdict(self)
        del body["bit"]
        body["findings"] = [finding.model_dump(mode="json") for finding in self.findings]
        return body


def failed(got: Got, error: FleetError, **where: Any) -> Result:
    """Return the row of an error that concerns one attempt or one host."""
    code = (
        error.code if isinstance(error, AgentError) else getattr(error, "link", "") if isinstance(error, TransportError) else ""
    )
    return Result(got, error=error.message, hint=error.hint, code=code, bit=error.bit, **where)
