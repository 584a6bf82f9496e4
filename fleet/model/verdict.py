"""The verdict on one result: accepted, flagged or rejected, each with reasons and measured facts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field

from fleet.model.base import Strict

SCHEMA = "fleet.verdict/1"


class Severity(StrEnum):
    """What a reason does to the verdict: info changes nothing, warn flags, reject rejects."""

    INFO = "info"
    WARN = "warn"
    REJECT = "reject"


class Outcome(StrEnum):
    """The three verdicts."""

    ACCEPTED = "accepted"
    FLAGGED = "flagged"
    REJECTED = "rejected"


class Cause(StrEnum):
    """Whose fault a rejected or flagged result is."""

    MODEL = "model"
    ENVIRONMENT = "environment"
    PROVIDER = "provider"
    HARNESS = "harness"
    TRANSFER = "transfer"
    OPERATOR = "operator"


class Reason(Strict):
    """One rule that spoke: its code, where it looked, what it measured, and what to do."""

    code: str
    severity: Severity
    file: str | None = None
    measured: int | float | str | None = None
    threshold: int | float | str | None = None
    message: str
    fix: str = ""


class Facts(Strict):
    """What was measured; None means "not there" and is never shown as 0."""

    patch_bytes: int | None = None
    history_entries: int | None = None
    error: str | None = None
    tests_passed: int | None = None
    tests_failed: int | None = None
    tests_error: int | None = None
    f2p_success: int | None = None
    f2p_total: int | None = None
    p2p_success: int | None = None
    p2p_total: int | None = None
    resolved: bool | None = None
    cost_usd: float | None = None
    tokens: int | None = None
    image_id: str | None = None
    """Of the Docker image that it ran in, where the pipeline names one."""


class Verdict(Strict):
    """The verdict on one result directory."""

    path: str
    kind: str = "openhands"
    """What kind of result it is, as its content shows (docs/verdicts.md)."""
    instance_id: str | None = None
    model: str | None = None
    verdict: Outcome
    cause: Cause | None = None
    grade: bool | None = None
    """Whether it says something about the model; None in verdicts that were kept before this was told."""
    retry: bool | None = None
    """Whether a new attempt can help."""
    reasons: tuple[Reason, ...] = ()
    facts: Facts = Field(default_factory=Facts)
    fingerprints: dict[str, str] = Field(default_factory=dict)
    """`history`, `patch`: equal for equal content, by which results are compared with each other."""


def joined(messages: Iterable[str]) -> str:
    """Return messages as one line; most are sentences that bring their own full stop."""
    return "; ".join(messages).replace(".; ", ". ")


def outcome_of(reasons: tuple[Reason, ...]) -> Outcome:
    """Return the verdict that `reasons` add up to: any reject rejects, else any warn flags."""
    severities = {reason.severity for reason in reasons}
    if Severity.REJECT in severities:
        return Outcome.REJECTED
    return Outcome.FLAGGED if Severity.WARN in severities else Outcome.ACCEPTED
