"""What is known of a batch at one moment: frozen views of its tasks, hosts and attempts."""

from __future__ import annotations

from dataclasses import dataclass, field

from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.records import ArchiveSeen
from fleet.model.states import TERMINAL, AttemptState, HostState, Link, TaskState
from fleet.model.tasks import Task
from fleet.model.verdict import Cause, Facts, Outcome, Reason

UNFIT = frozenset({HostState.BLOCKED, HostState.BUSY, HostState.HELD})
"""A host in one of these gets no task until it has been checked again."""


@dataclass(frozen=True)
class TaskView:
    """Where one task is."""

    task: Task
    state: TaskState = TaskState.PENDING
    host: str | None = None
    attempt: str | None = None
    attempts: tuple[str, ...] = ()
    """Ids of all attempts that may have run, oldest first; refused ones are left out."""
    failure: FailureClass | None = None
    reason: str = ""
    verdict: Outcome | None = None
    cause: Cause | None = None
    reasons: tuple[Reason, ...] = ()
    facts: Facts | None = None
    path: str | None = None
    """The collected result, relative to the batch directory."""
    ordered_again: bool = False
    """Another attempt was ordered; while the task waits, that one has not been taken by a host."""
    by_policy: tuple[FailureClass, ...] = ()
    """What each new attempt that the policy ordered followed, over the whole history of the task."""


@dataclass(frozen=True)
class Quarantine:
    """Why a host gets no task before a person releases it."""

    since: str
    reason: str
    attempts: tuple[str, ...]
    epoch: int | None = None
    """Of the last attempt in the row: the host knows by it whether a person released it after that one."""
    told: bool = False
    """Whether the host was told, or refused to note it."""


@dataclass(frozen=True)
class HostView:
    """What is known of one host; `link` and `state` are two things."""

    name: str
    pipeline: str
    link: Link = Link.UNTRIED
    link_since: str = ""
    state: HostState = HostState.UNCHECKED
    report: HostReport | None = None
    attempt: str | None = None
    displaced: str | None = None
    """What is under way there while `attempt` is one that ended and that `fleet collect` has noted meanwhile."""
    reason: str = ""
    host_uid: str = ""
    """The identity in the host's own `~/.fleet`, first seen; another one means another machine."""
    trouble: str = ""
    """What went wrong the last time the host was asked; empty once it answers again."""
    row: tuple[str, ...] = ()
    """Attempts that ended badly here with the host possibly at fault, since the last good result."""
    quarantine: Quarantine | None = None
    orphan: str = ""
    """Why nobody can ask it though it has something of the batch: it left the inventory. Never from the journal."""

    @property
    def fit(self) -> bool:
        """Whether the host may take a task, as far as is known."""
        return self.quarantine is None and self.state not in UNFIT

    @property
    def shown(self) -> str:
        """The word for the host's state."""
        if self.link is Link.CHANGED and not self.orphan:
            return "changed"
        return "orphan" if self.orphan else "quarantined" if self.quarantine is not None else str(self.state)

    @property
    def why_unfit(self) -> str:
        """Why the host takes no task."""
        if self.orphan:
            return self.orphan
        return f"quarantined: {self.quarantine.reason}" if self.quarantine is not None else self.reason


@dataclass(frozen=True)
class AttemptView:
    """One attempt as far as the controller knows."""

    attempt: str
    task: str
    host: str
    number: int
    epoch: int | None = None
    boot_id: str = ""
    state: AttemptState = AttemptState.UNKNOWN
    intended_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    elapsed_s: float | None = None
    rc: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    cancel_ordered: bool = False
    followed: bool = False
    """Another controller started it; the host had it when this batch asked for the same task."""
    cancel_by: str = ""
    """The rule that ordered it, `halt` or `stall`; empty for an operator's word."""
    stalled_since: str = ""
    """While nothing of it moves: when something moved last."""
    stalled_unknown: tuple[str, ...] = ()
    """Signs of life that its host did not tell."""
    suspected: FailureClass | None = None
    """How it ended, when the host was possibly at fault."""
    ended_with: str = ""
    """What was said of that end."""
    collect_failures: int = 0
    path: str | None = None
    acked: bool = False
    phase: str = ""
    refused: str = ""
    """The refusal's code, when the host never took it."""


@dataclass(frozen=True)
class BatchState:
    """Everything a controller or a dashboard knows about a batch."""

    batch: str = ""
    assignment_sha256: str = ""
    assignment_file: str = ""
    controller: str | None = None
    halted: str | None = None
    halted_now: bool = False
    """Whether the rule that halted it also ends what runs."""
    scope: frozenset[str] | None = None
    """Tasks that the last controller may begin; None when no controller ever said."""
    opened_at: str = ""
    last_record_at: str = ""
    archives: dict[str, ArchiveSeen] = field(default_factory=dict)
    """Image archives as they were when a dispatch of this batch asked for them, by address."""
    clock_set: bool = False
    """Whether a controller's wall clock was set meanwhile: the times of records cannot be compared then."""
    tasks: dict[str, TaskView] = field(default_factory=dict)
    hosts: dict[str, HostView] = field(default_factory=dict)
    attempts: dict[str, AttemptView] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every task has ended."""
        return all(view.state in TERMINAL for view in self.tasks.values())
