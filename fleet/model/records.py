"""Journal records: the facts from which the state of a batch is rebuilt, one JSON line each.

The journal is the controller's only memory. A record is written *before* what it announces is sent (`attempt`, `cancel`) and
*after* what it reports was seen (everything else). Readers skip types and fields they do not know, so an old journal
always loads.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.states import AttemptState, Link
from fleet.model.tasks import Task
from fleet.model.verdict import Cause, Facts, Outcome, Reason


class Record(BaseModel):
    """What every record carries: its time, UTC ISO-8601."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    t: str = ""


class BatchOpened(Record):
    """A controller took the batch: its tasks, hosts and pipelines as resolved."""

    type: Literal["batch"] = "batch"
    batch: str
    assignment_sha256: str
    assignment_file: str = ""
    """Where the assignment was read, for the command that resumes the batch."""
    controller: str
    """`user@machine pid N`, shown when another controller asks who holds the batch."""
    tasks: tuple[Task, ...]
    hosts: dict[str, str]
    """Host name → pipeline name."""
    fleet_version: str = ""


class HostChecked(Record):
    """A host answered, or failed to answer, the readiness question."""

    type: Literal["host"] = "host"
    report: HostReport


class LinkChanged(Record):
    """The way to a host opened or closed; says nothing about its eval."""

    type: Literal["link"] = "link"
    host: str
    link: Link
    error: str = ""


class AttemptIntended(Record):
    """Fsynced before the first packet of a launch: from here on the host may hold this attempt."""

    type: Literal["attempt"] = "attempt"
    task: str
    """The task's label."""
    host: str
    attempt: str
    number: int
    """1 for the first attempt of the task, 2 for its retry."""


class AttemptStarted(Record):
    """The host answered that it durably took the attempt."""

    type: Literal["started"] = "started"
    attempt: str
    epoch: int
    boot_id: str
    started_at: str = ""


class AttemptRefused(Record):
    """The host answered that it did not and will not start the attempt; the task is free again, or blocked."""

    type: Literal["refused"] = "refused"
    attempt: str
    code: str
    reason: str
    failure: FailureClass


class AttemptAdopted(Record):
    """The host already held an attempt of this task; it takes the place of the intended one."""

    type: Literal["adopted"] = "adopted"
    intended: str
    attempt: str
    epoch: int
    boot_id: str


class AttemptObserved(Record):
    """The state that the host derived for an attempt changed."""

    type: Literal["observed"] = "observed"
    attempt: str
    state: AttemptState
    reason: str = ""
    rc: int | None = None
    timed_out: bool = False
    cancelled: bool = False
    elapsed_s: float | None = None
    phase: str = ""


class ResultCollected(Record):
    """The outputs are here, complete, and equal to the host's manifest."""

    type: Literal["collected"] = "collected"
    attempt: str
    path: str
    """Relative to the batch directory."""
    files: int
    bytes: int


class CollectFailed(Record):
    """The outputs could not be brought here this time; the host keeps them."""

    type: Literal["collect-failed"] = "collect-failed"
    attempt: str
    reason: str
    failure: FailureClass = FailureClass.COLLECT_FAILED


class ResultJudged(Record):
    """The verdict on a collected result."""

    type: Literal["judged"] = "judged"
    attempt: str
    verdict: Outcome
    cause: Cause | None = None
    reasons: tuple[Reason, ...] = ()
    facts: Facts = Field(default_factory=Facts)


class AttemptAcked(Record):
    """The host knows that its copy is no longer the only one."""

    type: Literal["acked"] = "acked"
    attempt: str


class CancelOrdered(Record):
    """Fsynced before a cancel is sent; a pending task is cancelled by this record alone."""

    type: Literal["cancel"] = "cancel"
    task: str
    attempt: str | None = None


class RetryOrdered(Record):
    """The operator allowed a new attempt of a task whose last attempt ended."""

    type: Literal["retry"] = "retry"
    task: str
    after: str | None = None
    """The attempt that this one follows."""


class BatchHalted(Record):
    """A rule stopped further launches."""

    type: Literal["halted"] = "halted"
    reason: str


class ControllerLeft(Record):
    """A controller ended on purpose."""

    type: Literal["left"] = "left"
    why: Literal["done", "detached", "halted", "incomplete", "error"]
    exit_code: int = 0


AnyRecord = (
    BatchOpened
    | HostChecked
    | LinkChanged
    | AttemptIntended
    | AttemptStarted
    | AttemptRefused
    | AttemptAdopted
    | AttemptObserved
    | ResultCollected
    | CollectFailed
    | ResultJudged
    | AttemptAcked
    | CancelOrdered
    | RetryOrdered
    | BatchHalted
    | ControllerLeft
)

_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="type")])
KNOWN_TYPES = frozenset(model.model_fields["type"].default for model in AnyRecord.__args__)


def record_from(document: dict[str, Any]) -> AnyRecord | None:
    """Return the record in `document`, or None for a type that this version does not know."""
    if document.get("type") not in KNOWN_TYPES:
        return None
    return _ADAPTER.validate_python(document)
