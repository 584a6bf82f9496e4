"""The answer of `fleet check --json`, as a model so that its JSON Schema cannot drift from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from fleet.model.base import Strict
from fleet.model.exitcodes import Exit
from fleet.model.findings import Finding, HostReport
from fleet.model.states import NOT_PROVEN, Link

SCHEMA = "fleet.check/1"


class CheckedHost(Strict):
    """One host: whether it may take a task now, and everything that was found."""

    host: str
    ready: bool
    link: Link
    seconds: float
    """Wall time of the question, connection included."""
    error: str | None = None
    fix: str = ""
    findings: tuple[Finding, ...] = ()


class CheckSummary(Strict):
    """How many hosts are ready, not ready, or gave no answer."""

    ready: int
    not_ready: int
    unreachable: int


class CheckDocument(Strict):
    """The document `fleet.check/1`."""

    schema_: Literal["fleet.check/1"] = Field(default="fleet.check/1", alias="schema")
    hosts: tuple[CheckedHost, ...]
    summary: CheckSummary


def document_of(reports: Sequence[HostReport]) -> CheckDocument:
    """Return the document for `reports`."""
    answered = [report for report in reports if report.link is Link.OK]
    ready = sum(report.ready for report in answered)
    return CheckDocument(
        hosts=tuple(
            CheckedHost(
                host=report.host,
                ready=report.ready,
                link=report.link,
                seconds=report.seconds,
                error=report.error,
                fix=report.fix,
                findings=report.findings,
            )
            for report in reports
        ),
        summary=CheckSummary(ready=ready, not_ready=len(answered) - ready, unreachable=len(reports) - len(answered)),
    )


def exit_of(reports: Sequence[HostReport]) -> Exit:
    """Return what the reports add up to: FAILED, INCOMPLETE and SAFETY."""
    code = Exit.OK
    for report in reports:
        if report.link in NOT_PROVEN:
            code |= Exit.SAFETY
        elif report.link is not Link.OK:
            code |= Exit.INCOMPLETE
        elif not report.ready:
            code |= Exit.FAILED
    return code
