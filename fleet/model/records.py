"""Journal records: the facts from which the state of a batch is rebuilt, one JSON line each.

The journal is the controller's only memory. A record is written *before* what it announces is sent (`attempt`, `cancel`) and
*after* what it reports was seen (everything else). Readers skip types and fields they do not know, so an old journal
always loads.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

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
    """A controller took the batch: its tasks, hosts and pipelines as resolved.

    Thousands of tasks of a place may all run on the same hundreds of hosts. In JSON such lists are in `pools`, each once, and a
    task has a `pool`, the number of its list, in the place of its `hosts`. Records of earlier versions have `hosts` everywhere.
    """

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
    only: tuple[str, ...] | None = None
    """Labels of the tasks that this controller may begin; None = all of `tasks`."""
    fleet_version: str = ""

    @model_validator(mode="before")
    @classmethod
    def _with_hosts(cls, data: Any) -> Any:
        """Give each task of a pool its hosts, all of them the same tuple."""
        if not isinstance(data, dict) or "pools" not in data:
            return data
        pools = [tuple(map(str, pool)) for pool in _list(data["pools"])]
        tasks = []
        for one in _list(data.get("tasks")):
            number = one.get("pool") if isinstance(one, dict) else None
            if number is not None:
                if type(number) is not int or not 0 <= number < len(pools):
                    raise ValueError(f"a task names pool {number!r} of {len(pools)}")
                rest = {name: value for name, value in one.items() if name != "pool"}
                one = Task.model_validate(rest | {"hosts": ()}).model_copy(update={"hosts": pools[number]})
            tasks.append(one)
        return {name: value for name, value in data.items() if name != "pools"} | {"tasks": tasks}

    @model_serializer(mode="plain")
    def _with_pools(self) -> dict[str, Any]:
        pools: dict[tuple[str, ...], int] = {}
        found: dict[int, int] = {}
        tasks = []
        for task in self.tasks:
            one = task.model_dump(mode="json", exclude={"hosts"})
            if len(task.hosts) < 2:
                tasks.append(one | {"hosts": list(task.hosts)})
                continue
            # Tasks of one place share one tuple: its names are compared once, not once per task.
            number = found.get(id(task.hosts))
            if number is None:
                number = found[id(task.hosts)] = pools.setdefault(task.hosts, len(pools))
            tasks.append(one | {"pool": number})
        plain = {name: getattr(self, name) for name in type(self).model_fields}
        return plain | {"tasks": tasks} | ({"pools": [list(pool) for pool in pools]} if pools else {})

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        body = handler.resolve_ref_schema(schema)
        pooled = {"type": "object", "properties": {"pool": {"type": "integer"}}, "required": ["key", "place", "pool"]}
        body["properties"]["tasks"]["items"] = {"anyOf": [body["properties"]["tasks"]["items"], pooled]}
        body["properties"]["pools"] = {"type": "array", "items": {"type": "array", "items": {"type": "string"}}}
        return schema


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("not a list")
    return value


class ArchiveSeen(BaseModel):
    """An image archive as S3 describes it; None where it did not say."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    bytes: int | None = None
    etag: str | None = None
    checksum: str | None = None


class ImagesChecked(Record):
    """Before any host was asked, every image archive was there: what it was then, so that a replaced one is noticed."""

    type: Literal["images"] = "images"
    archives: dict[str, ArchiveSeen]
    """By its address, `s3://…`."""


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


class HostQuarantined(Record):
    """So many tasks in a row ended badly on the host that it gets no other before a person releases it."""

    type: Literal["quarantined"] = "quarantined"
    host: str
    reason: str
    attempts: tuple[str, ...]
    """The row, oldest first."""


class QuarantineTold(Record):
    """The host knows of its quarantine, so that no other controller starts anything there; or refused to note it."""

    type: Literal["quarantine-told"] = "quarantine-told"
    host: str
    error: str = ""


class HostReleased(Record):
    """A person lifted the quarantine; the host is checked before it gets a task."""

    type: Literal["released"] = "released"
    host: str


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


class AttemptStalled(Record):
    """Neither log, nor CPU, nor containers of a running eval moved for as long as its pipeline allows."""

    type: Literal["stalled"] = "stalled"
    attempt: str
    since: str
    """When something moved last, UTC ISO-8601."""
    idle_s: float
    """How long nothing moved, by the controller's monotonic clock."""
    unknown: tuple[str, ...] = ()
    """Signs of life that the host does not tell."""


class AttemptMoving(Record):
    """A stalled eval shows signs of life again."""

    type: Literal["moving"] = "moving"
    attempt: str


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
    by: Literal["operator", "halt", "stall"] = "operator"
    """A rule's cancel is sent by the controller itself."""


class RetryOrdered(Record):
    """The operator, or the policy that the operator wrote, allowed a new attempt of a task whose last attempt ended."""

    type: Literal["retry"] = "retry"
    task: str
    after: str | None = None
    """The attempt that this one follows."""
    by: Literal["operator", "policy"] = "operator"
    failure: FailureClass | None = None
    """How the attempt before ended; a policy counts by it."""


class BatchHalted(Record):
    """A rule stopped further launches."""

    type: Literal["halted"] = "halted"
    reason: str
    cancel: bool = False
    """Whether what runs is cancelled too (`--halt now`)."""


class JournalRecovered(Record):
    """`fleet recover` rebuilt this journal; what a host that gave no answer may have, is held."""

    type: Literal["recovered"] = "recovered"
    damaged: str = ""
    """The file beside this one that holds the journal as it was found; empty when there was none."""
    unanswered: tuple[str, ...] = ()
    """Hosts that gave no answer."""
    host_uids: dict[str, str] = Field(default_factory=dict)
    """Host name → the identity under which its attempts are known."""
    held: dict[str, str] = Field(default_factory=dict)
    """Task → why it must not be started: an attempt of it may be on a host that gave no answer."""


class ClockSet(Record):
    """The controller's wall clock was set: times before and after this record cannot be compared."""

    type: Literal["clock"] = "clock"
    seconds: float
    """By how much; negative when it was set back."""


class ControllerLeft(Record):
    """A controller ended on purpose."""

    type: Literal["left"] = "left"
    why: Literal["done", "detached", "halted", "incomplete", "error"]
    exit_code: int = 0


AnyRecord = (
    BatchOpened
    | ImagesChecked
    | HostChecked
    | LinkChanged
    | HostQuarantined
    | QuarantineTold
    | HostReleased
    | AttemptIntended
    | AttemptStarted
    | AttemptRefused
    | AttemptAdopted
    | AttemptObserved
    | AttemptStalled
    | AttemptMoving
    | ResultCollected
    | CollectFailed
    | ResultJudged
    | AttemptAcked
    | CancelOrdered
    | RetryOrdered
    | BatchHalted
    | JournalRecovered
    | ClockSet
    | ControllerLeft
)

_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="type")])
KNOWN_TYPES = frozenset(model.model_fields["type"].default for model in AnyRecord.__args__)


def record_from(document: dict[str, Any]) -> AnyRecord | None:
    """Return the record in `document`, or None for a type that this version does not know."""
    if document.get("type") not in KNOWN_TYPES:
        return None
    return _ADAPTER.validate_python(document)
