"""The documents that commands print with --json and that no other room has as a model, for `fleet schema`.

Models only: what they say is what the commands print, and a test holds real output against them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.audit.document import Audit
from fleet.dashboard.figures import Summary
from fleet.model.base import Strict
from fleet.model.failures import FailureClass
from fleet.model.states import Link, TaskState
from fleet.model.verdict import Cause, Outcome, Severity, Verdict


class ErrorDocument(Strict):
    """An error with --json, on stderr; stdout stays empty."""

    schema_: Literal["fleet.error/1"] = Field(alias="schema")
    code: str
    """Stable name of the kind of error, e.g. input, unreachable, host-key-changed."""
    message: str
    hint: str
    """The next command to type, or empty."""
    host: str | None


class VerdictCounts(Strict):
    """How many results came to which verdict, and how many of all are resolved."""

    accepted: int
    flagged: int
    rejected: int
    resolved: int


class VerdictDocument(Strict):
    """`fleet validate`, and verdict.json beside a collected result, which is not about a batch."""

    schema_: Literal["fleet.verdict/1"] = Field(alias="schema")
    results: tuple[Verdict, ...]
    summary: VerdictCounts
    batch: Audit | None = None


class ReasonDocument(Strict):
    """`fleet validate --explain CODE`."""

    schema_: Literal["fleet.reason/1"] = Field(alias="schema")
    code: str
    severity: Severity
    cause: Cause | None
    when: str
    means: str
    do: str
    fix: str


class PlannedTask(Strict):
    """One task of the plan, in the order of its queue."""

    task: str
    fate: Literal["to_run", "to_follow", "over"]
    state: TaskState | None
    """As the journal has it; None for a task that no controller has taken yet."""
    hosts: tuple[str, ...]


class DispatchPlanDocument(Strict):
    """`fleet dispatch --dry-run`; the three counts add up to `tasks`."""

    schema_: Literal["fleet.dispatch-plan/1"] = Field(alias="schema")
    batch: str
    tasks: int
    to_run: int
    to_follow: int
    over: int
    places: dict[str, tuple[PlannedTask, ...]]


class DispatchDocument(Strict):
    """`fleet dispatch`, when its controller has ended or was detached."""

    schema_: Literal["fleet.dispatch/1"] = Field(alias="schema")
    batch: str
    exit_code: int
    detached: bool
    summary: Summary


class DispatchDetachedDocument(Strict):
    """`fleet dispatch --detach`: the controller in the background."""

    schema_: Literal["fleet.dispatch-detached/1"] = Field(alias="schema")
    batch: str
    pid: int
    log: str


class StatusHost(Strict):
    """One host now; `link` and `state` are two things."""

    host: str
    link: Link
    link_since: str | None
    stalled_since: str | None = None
    """When anything of the running eval moved last, when that is longer ago than its pipeline allows."""
    state: str
    """unchecked, ready, blocked, busy, quarantined, orphan, running, stalled, or `ended, not collected`."""
    task: str | None
    elapsed_s: float | None
    last_line: str | None
    disk_used_percent: float | None
    reason: str | None
    asked: bool
    """Whether the host itself was asked now; else only the journal speaks."""


class StatusTask(Strict):
    """One task now."""

    task: str
    state: TaskState
    host: str
    """Its host; while several may take it, the place that the assignment names."""
    attempt: str | None
    attempts: int
    failure: FailureClass | None
    reason: str | None
    verdict: Outcome | None
    resolved: bool | None


class StatusDocument(Strict):
    """`fleet status`."""

    schema_: Literal["fleet.status/1"] = Field(alias="schema")
    batch: str
    controller: str | None
    assignment: str
    """The file that the batch was dispatched from; empty when the journal does not say."""
    hosts: tuple[StatusHost, ...]
    tasks: tuple[StatusTask, ...]


class ForeignAttempt(Strict):
    """One attempt as its host tells of it; null is what the host does not tell."""

    attempt: str | None
    task: str | None
    batch: str | None
    state: str
    controller: str | None
    """Who started it."""
    since: str | None
    elapsed_s: float | None
    last_line: str | None


class HostNowRow(Strict):
    """One host by its own account."""

    host: str
    link: Link
    state: str | None
    """running, free or quarantined; null without an answer."""
    error: str | None
    attempts: tuple[ForeignAttempt, ...]
    """Those that no controller has acknowledged, of all batches or of the one that was named."""


class HostStatusDocument(Strict):
    """`fleet status --all-hosts`."""

    schema_: Literal["fleet.host-status/1"] = Field(alias="schema")
    batch: str | None
    hosts: tuple[HostNowRow, ...]


class LogLine(Strict):
    """One line of `fleet logs`, without terminal sequences and keys."""

    schema_: Literal["fleet.log-line/1"] = Field(alias="schema")
    line: str


class CancelledTask(Strict):
    """What became of one order; the last four are there when the host ended something."""

    task: str
    host: str | None
    outcome: str
    exit: int
    """The exit bits that this task adds."""
    text: str
    processes_ended: int | None = None
    containers_removed: int | None = None
    processes_left: int | None = None
    containers_left: int | None = None


class CancelDocument(Strict):
    """`fleet cancel`."""

    schema_: Literal["fleet.cancel/1"] = Field(alias="schema")
    batch: str
    cancelled: tuple[CancelledTask, ...]


class RetryDocument(Strict):
    """`fleet retry`."""

    schema_: Literal["fleet.retry/1"] = Field(alias="schema")
    batch: str
    ordered: tuple[str, ...]
    controller_running: bool
    left_out: tuple[str, ...] = ()
    """Of `ordered`: what the running controller does not begin, because it runs with --only or --hosts."""
    next: str | None
    """The command that starts the attempts, when no controller does."""


class ReleasedHost(Strict):
    """What became of one host's quarantine."""

    host: str
    released: bool
    """Whether the host takes tasks again; false when it gave no answer."""
    reason: str | None
    """Why it had been held back; null when the host itself knew of no quarantine."""
    batches: tuple[str, ...]
    """The batches that held it back."""
    error: str | None
    exit: int
    """The exit bits that this host adds."""


class ReleaseDocument(Strict):
    """`fleet release`."""

    schema_: Literal["fleet.release/1"] = Field(alias="schema")
    hosts: tuple[ReleasedHost, ...]


class RecoveredHost(Strict):
    """What one host contributed to a recovery."""

    host: str
    answered: bool
    attempts: int
    """How many it has taken, of all batches."""
    error: str | None
    hint: str | None


class HeldTask(Strict):
    """A task that nobody may start before it is known where it is."""

    task: str
    reason: str


class RecoverDocument(Strict):
    """`fleet recover`."""

    schema_: Literal["fleet.recover/1"] = Field(alias="schema")
    batch: str
    written: bool
    """False for a dry run."""
    complete: bool
    damaged: str | None
    """The file beside the new journal that holds the old one."""
    records_kept: int
    lines_unreadable: int
    results: int
    attempts: int
    tasks: dict[str, int]
    """How many are in which state."""
    hosts: tuple[RecoveredHost, ...]
    held: tuple[HeldTask, ...]
    notes: tuple[str, ...]
    next: str


class WhyDocument(Strict):
    """`fleet why`: one causal sentence and the next command."""

    schema_: Literal["fleet.why/1"] = Field(alias="schema")
    subject: str
    sentence: str
    next: str


class PinnedKey(Strict):
    """A host key that is pinned."""

    type: str
    fingerprint: str


class HostEntry(Strict):
    """One host as resolved."""

    name: str
    address: str
    port: int
    user: str
    jumps: tuple[str, ...]
    groups: tuple[str, ...]
    pipeline: str
    workdir: str | None
    identity_files: tuple[str, ...]
    host_key_alias: str
    host_key: Literal["strict", "accept-new"]
    pinned: tuple[PinnedKey, ...]
    origin: str


class HostDoubt(Strict):
    """What hosts.yaml says of a host and most likely does not mean."""

    host: str
    message: str


class HostsDocument(Strict):
    """`fleet hosts`."""

    schema_: Literal["fleet.hosts/1"] = Field(alias="schema")
    hosts: tuple[HostEntry, ...]
    groups: dict[str, tuple[str, ...]]
    doubts: tuple[HostDoubt, ...] = ()


class TrustResult(Strict):
    """What was decided about one key; of a host that gave none there are only `host`, `state` and `message`."""

    host: str
    state: Literal["pinned", "replaced", "already pinned", "refused", "error"]
    message: str
    alias: str = ""
    jump: bool = False
    type: str = ""
    fingerprint: str = ""
    pinned_before: tuple[str, ...] = ()


class TrustDocument(Strict):
    """`fleet trust`."""

    schema_: Literal["fleet.trust/1"] = Field(alias="schema")
    results: tuple[TrustResult, ...]


class SchemaEntry(Strict):
    """One document that `fleet schema NAME` knows."""

    name: str
    about: str


class SchemasDocument(Strict):
    """`fleet schema` without a name."""

    schema_: Literal["fleet.schemas/1"] = Field(alias="schema")
    documents: tuple[SchemaEntry, ...]
