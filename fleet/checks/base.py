"""What a check is: a name, what it asks of the host, and a pure parser from facts to findings, each with its fix.

No check knows SSH: all questions are merged into one request, and the answer is judged here on the controller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from fleet.checks.facts import HostFacts
from fleet.model.findings import Finding, Mark
from fleet.model.hosts import Host
from fleet.model.names import is_name, redact, visible
from fleet.model.pipeline import Pipeline

GB = 10**9
"""Gigabytes are decimal everywhere in fleet, in limits and in what is shown."""


class Questions(dict[str, Any]):
    """The request of one probe; fragments are united."""

    def add(self, fragment: Mapping[str, Any]) -> None:
        """Merge `fragment`: lists are appended without repeats, anything else is set."""
        for key, value in fragment.items():
            if isinstance(value, list):
                known = self.setdefault(key, [])
                known.extend(item for item in value if item not in known)
            else:
                self[key] = value


class Authority(StrEnum):
    """Who says what a file should be, strongest first."""

    LISTED = "listed"
    REFERENCE = "reference"
    MAJORITY = "majority"
    NOBODY = "nobody"


@dataclass(frozen=True)
class Expectation:
    """What a file should be: a digest and who says so, or the reason why nobody can say."""

    authority: Authority
    source: str
    """`pipeline.yaml`, `reference DIR`, `5 of 6 hosts`, or why nobody can say."""
    sha256: str | None = None
    md5: str | None = None

    @property
    def label(self) -> str:
        """The authority as one phrase that is the same for all files."""
        return "majority of the hosts" if self.authority is Authority.MAJORITY else self.source


UNKNOWN = Expectation(Authority.NOBODY, "no reference to compare with")


@dataclass(frozen=True)
class Subject:
    """One host's answer and everything needed to judge it."""

    host: Host
    pipeline: Pipeline
    facts: HostFacts
    seconds: float = 0.0
    """Wall time of the question."""
    answered_at: float = 0.0
    """The controller's clock when the answer came, seconds since the epoch."""
    expected: Mapping[str, Expectation] = field(default_factory=dict)
    """By the file's path below the work directory; shipped files by their path on the host."""


class Said(NamedTuple):
    """One thing a check has to say."""

    mark: Mark
    message: str
    fix: str = ""
    subject: str | None = None


def ok(message: str) -> Said:
    """As it should be."""
    return Said(Mark.OK, message)


def warn(message: str, fix: str = "", subject: str | None = None) -> Said:
    """Deserves a look; does not keep the host from taking tasks."""
    return Said(Mark.WARN, message, fix, subject)


def fail(message: str, fix: str, subject: str | None = None) -> Said:
    """Keeps the host from taking tasks; `fix` is what to type or change."""
    return Said(Mark.FAIL, message, fix, subject)


def unanswered(what: str) -> Said:
    """The host left out a part that was asked for."""
    return fail(f"the host did not answer the question about {what}", "run fleet check again; if it stays, look at the host")


@dataclass(frozen=True)
class Check:
    """One check; `asks` returns its fragment of the probe's questions, `judge` what the answer means."""

    name: str
    group: str
    """The column it belongs to in the table."""
    about: str
    """One line for the documentation."""
    judge: Callable[[Subject], Iterable[Said]]
    asks: Callable[[Host, Pipeline], Mapping[str, Any]] = lambda _host, _pipeline: {}

    def findings(self, subject: Subject) -> list[Finding]:
        """Judge one host."""
        return [
            Finding(check=self.name, mark=said.mark, message=said.message, fix=said.fix, subject=said.subject)
            for said in self.judge(subject)
        ]


def workdir_of(host: Host, pipeline: Pipeline) -> str:
    """Return the work directory on this host, as the host will expand it."""
    return (host.workdir or pipeline.workdir).rstrip("/")


_OWN_FIELDS = re.compile(r"\{([a-z_]+)\}")


def fill_workdir(template: str, workdir: str) -> str | None:
    """Return `template` with `{workdir}` filled, or None when it needs a task's fields."""
    if set(_OWN_FIELDS.findall(template)) - {"workdir"}:
        return None
    return template.replace("{workdir}", workdir)


def shown(text: str | None, limit: int = 200) -> str:
    """Return a host's text on one line, safe to print; the last lines of a long one matter most."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return visible(redact(" | ".join(lines[-3:])), limit)


def typed(text: str | None, instead: str) -> str:
    """Return a host's text as a word of a command that a person may paste, `instead` when it is more than plain names.

    A container that calls itself `x; curl … | sh` would otherwise be run by whoever follows the advice.
    """
    return text if text and all(is_name(part) for part in text.split("/")) else instead


def gigabytes(size: int) -> str:
    """Return a size as `12.3 GB`."""
    return f"{size / GB:.1f} GB"


def duration(seconds: float) -> str:
    """Return a duration in the unit a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
