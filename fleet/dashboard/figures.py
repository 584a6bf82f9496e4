"""The shape of a summary, `fleet.summary/1`: what the terminal, summary.json and results.csv show.

A figure that was not measured is None, never 0: a batch without cost metrics did not cost nothing. Every count of tasks adds
up to `assigned`, overall and in each slice.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.model.base import Strict
from fleet.model.failures import Blame
from fleet.model.states import Link, TaskState
from fleet.model.verdict import Cause, Facts, Outcome

SCHEMA = "fleet.summary/1"
P95_DEFINITION = "linear interpolation between order statistics, ends included (numpy's default percentile)"

StageName = Literal["assigned", "started", "finished", "collected", "valid", "resolved"]
HostStatus = Literal["busy", "idle", "blocked", "occupied", "quarantined", "orphan", "changed", "unreachable", "unchecked"]
Progress = Literal["empty", "running", "stopped", "done"]


class Stage(Strict):
    """One step of the funnel: how many tasks came this far, and where those are that went no further."""

    name: StageName
    count: int
    out: dict[str, int] = Field(default_factory=dict)
    """Tasks that are in this stage and not in the next, by state; `count` = next `count` + sum of `out`."""


class Fate(Strict):
    """What became of the tasks, the model's failures apart from those of the machinery; the fields add up to `assigned`."""

    resolved: int = 0
    unresolved: int = 0
    """The eval is valid and the model's patch did not solve the task."""
    resolved_unknown: int = 0
    """The eval is valid and does not say whether the task is resolved."""
    model_rejected: int = 0
    """The model left nothing that could be evaluated."""
    infrastructure: int = 0
    """Host, provider, harness or transfer failed: says nothing about the model."""
    unclear: int = 0
    """Rejected without a known cause."""
    cancelled: int = 0
    open: int = 0
    """Not ended yet, blocked tasks included."""


class Spread(Strict):
    """The distribution of one measure over the `n` cases where it is known."""

    n: int = 0
    total: float | None = None
    min: float | None = None
    median: float | None = None
    p95: float | None = None
    max: float | None = None


class Known(Strict):
    """A sum over the `known` of `of` cases that have the measure; None when none has."""

    value: float | int | None = None
    known: int = 0
    of: int = 0


class Tests(Strict):
    """Tests of the valid results: `f2p_success` of `f2p_total`, and the same for P2P."""

    __test__ = False

    f2p_success: int | None = None
    f2p_total: int | None = None
    p2p_success: int | None = None
    p2p_total: int | None = None
    known: int = 0
    of: int = 0


class Figures(Strict):
    """The numbers of a set of tasks: the whole batch, one model, or one host."""

    assigned: int
    states: dict[TaskState, int]
    """Every state, zeros included; the values add up to `assigned`."""
    funnel: tuple[Stage, ...]
    fate: Fate
    resolved_rate: float | None = None
    """Share of the valid results with a known answer that are resolved, 0 to 1."""
    resolved_low: float | None = None
    resolved_high: float | None = None
    """Wilson 95 % interval of `resolved_rate`."""
    duration_s: Spread = Spread()
    """Wall time of the attempts that ran to their end; cancelled ones did not."""
    patch_bytes: Spread = Spread()
    tests: Tests = Tests()
    cost_usd: Known = Known()
    """Over all judged attempts, rejected ones included: they were paid for."""
    tokens: Known = Known()

    def count(self, *states: TaskState) -> int:
        """Return how many tasks are in one of `states`."""
        return sum(self.states[state] for state in states)


class Slice(Strict):
    """The figures of one model or one host; `name` is empty for tasks that no host has taken yet."""

    name: str
    figures: Figures


class FailureGroup(Strict):
    """Tasks that failed or are blocked for one reason, largest group first."""

    failure: str
    """Failure class; `rejected` when the journal names none."""
    cause: Cause | None = None
    code: str = ""
    """The reason that spoke first: a verdict code, a check, or empty."""
    blame: Blame | None = None
    """Where to look; None when the journal names no failure class."""
    line: str
    """What happened, for people."""
    message: str = ""
    """What was said about the first of the tasks."""
    states: dict[str, int]
    count: int
    hosts: tuple[str, ...]
    tasks: tuple[str, ...]
    """Labels, the first few of `count`."""
    retryable: bool
    fix: str
    """The next command to type."""
    advice: str = ""
    """What the verdict or the check recommends before that."""


class Flag(Strict):
    """A warning of accepted work: its code, how many tasks have it, and one of them."""

    code: str
    count: int
    task: str


class HostNow(Strict):
    """One host now; a host out of reach may well go on with its eval."""

    name: str
    pipeline: str
    status: HostStatus
    link: Link
    since: str = ""
    """When the link became what it is, UTC ISO-8601."""
    reason: str = ""
    fix: str = ""
    task: str | None = None
    phase: str = ""
    stalled_since: str = ""
    """While nothing of its eval moves: when something moved last, UTC ISO-8601."""
    elapsed_s: float | None = None
    done: int = 0
    assigned: int = 0


class Pace(Strict):
    """How fast the batch goes on; None = not known, or nothing left to do."""

    evals_per_hour: float | None = None
    """Evals that ended in the last hour, or since the batch was opened when that is less."""
    last_finish_at: str | None = None
    eta_s: float | None = None
    """Seconds until the last queue is empty, if every eval takes the median; blocked tasks left out."""
    eta_at: str | None = None


class ResultRow(Strict):
    """One attempt, or one task that has none: a line of results.csv."""

    task: str
    instance_id: str
    model: str
    run: int
    task_name: str = ""
    host: str = ""
    attempt: str = ""
    number: int | None = None
    current: bool = True
    """False for an attempt that a later one follows."""
    state: str
    verdict: Outcome | None = None
    cause: Cause | None = None
    failure: str = ""
    reason: str = ""
    codes: tuple[str, ...] = ()
    facts: Facts = Facts()
    intended_at: str = ""
    started_at: str = ""
    finished_at: str = ""
    elapsed_s: float | None = None
    rc: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    path: str = ""


class Step(Strict):
    """What the operator does next, and why."""

    command: str
    why: str


class Summary(Strict):
    """Everything the dashboard shows of one batch, from its journal alone."""

    schema_: Literal["fleet.summary/1"] = Field(default="fleet.summary/1", alias="schema")
    batch: str
    progress: Progress
    controller: str | None = None
    halted: str | None = None
    clock_set: bool = False
    """Whether the controller's wall clock was set meanwhile: `wall_s`, ages and pace mean little then, durations are right."""
    opened_at: str = ""
    as_of: str = ""
    """The moment of the ages and the ETA in here."""
    wall_s: float | None = None
    """From the opening of the batch to `as_of`, or to its last record when no controller is at work."""
    total: Figures
    by_model: tuple[Slice, ...] = ()
    by_host: tuple[Slice, ...] = ()
    hosts: tuple[HostNow, ...] = ()
    host_counts: dict[HostStatus, int] = Field(default_factory=dict)
    failures: tuple[FailureGroup, ...] = ()
    flags: tuple[Flag, ...] = ()
    pace: Pace = Pace()
    next: Step
    p95_definition: str = P95_DEFINITION
    results: tuple[ResultRow, ...] = ()
