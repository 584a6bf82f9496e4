"""What a check found on one host."""

from __future__ import annotations

from enum import StrEnum

from fleet.model.base import Strict
from fleet.model.states import Link


class Mark(StrEnum):
    """✓, ⚠ or ✗; only FAIL keeps a host from taking tasks."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(Strict):
    """One line of the check table."""

    check: str
    """Name of the check, e.g. `disk`."""
    mark: Mark
    message: str
    fix: str = ""
    subject: str | None = None
    """The file, tool or process the finding is about."""


class HostReport(Strict):
    """Everything `fleet check` learned about one host."""

    host: str
    link: Link
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    """Wall time of the question, connection included."""
    error: str | None = None
    """Why there was no answer, when `link` is not ok."""
    fix: str = ""
    host_uid: str = ""
    """The identity that the host keeps in its `~/.fleet`."""

    @property
    def ready(self) -> bool:
        """Whether the host may take a task now."""
        return self.link is Link.OK and all(finding.mark is not Mark.FAIL for finding in self.findings)

    @property
    def problems(self) -> tuple[str, ...]:
        """The failures, one line each."""
        if self.link is not Link.OK:
            return (self.error or f"link is {self.link}",)
        return tuple(f"{f.check}: {f.message}" for f in self.findings if f.mark is Mark.FAIL)
