"""The answer of `fleet sync --json`: per host what differed, what was written, and where the backup is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from fleet.model.base import Strict
from fleet.model.exitcodes import Exit
from fleet.model.states import NOT_PROVEN, Link

SCHEMA = "fleet.sync/1"


class Outcome(StrEnum):
    """What became of one host."""

    UNCHANGED = "unchanged"
    WOULD_CHANGE = "would-change"
    CHANGED = "changed"
    ROLLED_BACK = "rolled-back"
    BUSY = "busy"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


class ChangedFile(Strict):
    """One file that is not as it should be: digests before and after; None means that it is not there."""

    root: str
    path: str
    before: str | None
    after: str | None


class Backup(Strict):
    """Where the replaced files are kept on the host: `~/.fleet/backups/ID`."""

    root: str
    id: str


class HostSync(Strict):
    """One host's result."""

    host: str
    outcome: Outcome
    link: Link = Link.OK
    changed: tuple[ChangedFile, ...] = ()
    unchanged: int = 0
    backups: tuple[Backup, ...] = ()
    verified: bool = False
    """Whether the files were asked for again after writing and have the right digests."""
    error: str | None = None
    fix: str = ""


class SyncDocument(Strict):
    """The document `fleet.sync/1`."""

    schema_: Literal["fleet.sync/1"] = Field(default="fleet.sync/1", alias="schema")
    hosts: tuple[HostSync, ...]
    summary: dict[Outcome, int]


def document_of(results: Sequence[HostSync]) -> SyncDocument:
    """Return the document for `results`."""
    summary = {outcome: sum(result.outcome is outcome for result in results) for outcome in Outcome}
    return SyncDocument(hosts=tuple(results), summary={outcome: count for outcome, count in summary.items() if count})


def exit_of(results: Sequence[HostSync]) -> Exit:
    """Return what the results add up to: FAILED, INCOMPLETE, SAFETY, and OWNED for hosts on which an eval runs."""
    code = Exit.OK
    for result in results:
        if result.outcome is Outcome.UNREACHABLE:
            code |= Exit.SAFETY if result.link in NOT_PROVEN else Exit.INCOMPLETE
        elif result.outcome is Outcome.BUSY:
            code |= Exit.OWNED
        elif result.outcome is Outcome.FAILED:
            code |= Exit.FAILED
    return code
