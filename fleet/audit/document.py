"""What is found about a batch as a whole, as `fleet validate` shows it beside the single verdicts."""

from __future__ import annotations

from fleet.model.base import Strict


class BatchFinding(Strict):
    """One thing that is odd about several results together."""

    code: str
    message: str
    paths: tuple[str, ...]
    fix: str = ""


class Accounts(Strict):
    """Every task of a batch in exactly one bucket; the buckets add up to `assigned`."""

    batch: str
    assigned: int
    buckets: dict[str, int]
    """accepted, flagged and rejected by the verdicts of now; the other tasks by their state in the journal."""
    uncollected: tuple[str, ...] = ()
    """Tasks that the journal counts as collected and whose result is not here."""
    strangers: tuple[str, ...] = ()
    """Results here that are of no task of the batch."""


class Audit(Strict):
    """The batch as a whole."""

    findings: tuple[BatchFinding, ...] = ()
    accounts: tuple[Accounts, ...] = ()


CODES: dict[str, str] = {
    "trajectory-shared": "results of different instances hold the same history",
    "patch-shared": "results of different instances hold the same patch, or different models wrote one to the letter",
    "graded-twice": "one run or one patch of an instance has two results here that contradict each other, or a run report does",
    "code-drift": "hosts ran different versions of the pipeline's critical files",
    "outlier": "a duration, cost or history far outside of what the batch itself shows",
}
"""Code → when it is found; docs/verdicts.md says what to do."""
