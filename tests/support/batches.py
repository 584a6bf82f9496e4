"""Made-up batches as the controller would have written them: records in order, a state by replay, a journal on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fleet.dispatch.files.journal import Journal
from fleet.dispatch.state.replay import BatchState, replay
from fleet.model.failures import FailureClass
from fleet.model.findings import Finding, HostReport, Mark
from fleet.model.records import (
    AnyRecord,
    AttemptIntended,
    AttemptObserved,
    AttemptRefused,
    AttemptStarted,
    BatchOpened,
    ControllerLeft,
    HostChecked,
    LinkChanged,
    ResultCollected,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import AttemptState, Link
from fleet.model.tasks import Task, TaskKey
from fleet.model.verdict import Cause, Facts, Outcome, Reason, Severity

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
GOOD_FACTS = Facts(
    patch_bytes=4200, history_entries=80, f2p_success=3, f2p_total=3, p2p_success=99, p2p_total=99, resolved=True,
    cost_usd=0.41, tokens=120_000,
)  # fmt: skip


def task(instance: str, model: str = "gpt", *hosts: str, run: int = 1) -> Task:
    """Return a task that one of `hosts` (default: eval1) may run."""
    places = hosts or ("eval1",)
    return Task(
        key=TaskKey(instance_id=instance, model=model, run=run, dataset_sha256="0" * 64),
        dataset_file=Path(f"/data/{instance}.jsonl"),
        place=places[0] if len(places) == 1 else "*",
        hosts=places,
    )


def iso(when: datetime) -> str:
    """Return a time as the journal writes it."""
    return when.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def reject(code: str, message: str = "", fix: str = "") -> Reason:
    """Return a reason that rejects."""
    return Reason(code=code, severity=Severity.REJECT, message=message or code, fix=fix)


def warn(code: str, message: str = "") -> Reason:
    """Return a reason that flags."""
    return Reason(code=code, severity=Severity.WARN, message=message or code)


@dataclass
class Batch:
    """A journal in the making; `clock` is seconds since START, and every record takes one."""

    tasks: Sequence[Task]
    hosts: Sequence[str] = ("eval1",)
    name: str = "phase8"
    clock: float = 0.0
    records: list[AnyRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.add(
            BatchOpened(
                batch=self.name,
                assignment_sha256="0" * 64,
                controller="ops@control pid 4242",
                tasks=tuple(self.tasks),
                hosts=dict.fromkeys(self.hosts, "openhands"),
            )
        )

    @property
    def now(self) -> datetime:
        """The time of the next record."""
        return START + timedelta(seconds=self.clock)

    def at(self, seconds: float) -> Batch:
        """Move the clock."""
        self.clock = seconds
        return self

    def add(self, record: AnyRecord) -> Batch:
        """Append a record at the clock's time."""
        self.records.append(record.model_copy(update={"t": iso(self.now)}))
        self.clock += 0.001
        return self

    def ready(self, *hosts: str) -> Batch:
        """The hosts passed every check."""
        for host in hosts or self.hosts:
            self.add(HostChecked(report=HostReport(host=host, link=Link.OK)))
        return self

    def blocked(self, host: str, check: str = "docker", message: str = "docker does not answer", fix: str = "") -> Batch:
        """A check failed on the host."""
        finding = Finding(check=check, mark=Mark.FAIL, message=message, fix=fix)
        return self.add(HostChecked(report=HostReport(host=host, link=Link.OK, findings=(finding,))))

    def unreachable(self, host: str, error: str = "connection timed out") -> Batch:
        """The host does not answer the check."""
        return self.add(HostChecked(report=HostReport(host=host, link=Link.UNREACHABLE, error=error)))

    def link(self, host: str, link: Link) -> Batch:
        """The way to the host changed."""
        return self.add(LinkChanged(host=host, link=link))

    def launch(self, one: Task, host: str = "eval1", number: int = 1, *, start: bool = True) -> str:
        """An attempt is ordered and, unless told otherwise, started; returns its id."""
        attempt = f"{one.label}#{number}".replace("/", "_")
        self.add(AttemptIntended(task=one.label, host=host, attempt=attempt, number=number))
        if start:
            self.add(AttemptStarted(attempt=attempt, epoch=1, boot_id="boot"))
        return attempt

    def observe(self, attempt: str, state: AttemptState, **fields: object) -> Batch:
        """The host derived a state."""
        return self.add(AttemptObserved.model_validate({"attempt": attempt, "state": state, **fields}))

    def finish(self, attempt: str, elapsed_s: float | None = 600.0, rc: int = 0) -> Batch:
        """The eval ended."""
        return self.observe(attempt, AttemptState.FINISHED, elapsed_s=elapsed_s, rc=rc)

    def collect(self, attempt: str) -> Batch:
        """The result is here."""
        return self.add(ResultCollected(attempt=attempt, path=attempt.replace("_", "/"), files=9, bytes=90_000))

    def judge(
        self, attempt: str, verdict: Outcome, *reasons: Reason, cause: Cause | None = None, facts: Facts = GOOD_FACTS
    ) -> Batch:
        """The result has its verdict."""
        return self.add(ResultJudged(attempt=attempt, verdict=verdict, cause=cause, reasons=reasons, facts=facts))

    def run(
        self,
        one: Task,
        host: str = "eval1",
        verdict: Outcome = Outcome.ACCEPTED,
        *reasons: Reason,
        elapsed_s: float = 600.0,
        cause: Cause | None = None,
        facts: Facts = GOOD_FACTS,
        number: int = 1,
    ) -> Batch:
        """A whole attempt, from the order to the verdict, taking `elapsed_s` on the clock."""
        attempt = self.launch(one, host, number)
        self.clock += elapsed_s
        self.finish(attempt, elapsed_s).collect(attempt)
        return self.judge(attempt, verdict, *reasons, cause=cause, facts=facts)

    def refuse(self, attempt: str, failure: FailureClass, reason: str = "refused") -> Batch:
        """The host did not take the attempt."""
        return self.add(AttemptRefused(attempt=attempt, code=str(failure), reason=reason, failure=failure))

    def retry(self, one: Task) -> Batch:
        """The operator allowed another attempt."""
        return self.add(RetryOrdered(task=one.label))

    def leave(self, why: str = "done") -> Batch:
        """The controller ended."""
        return self.add(ControllerLeft.model_validate({"why": why}))

    @property
    def state(self) -> BatchState:
        """What the records add up to."""
        return replay(self.records)

    def write(self, collected: Path) -> Path:
        """Write the journal below `collected` and return the batch's folder."""
        folder = collected / self.name
        folder.mkdir(parents=True, exist_ok=True)
        Journal(folder / "journal.jsonl").append(*self.records)
        return folder


def seed_case(*, finished: bool = False) -> Batch:
    """A batch with some of everything: 12 tasks, 2 models, 6 hosts of which one is blocked and one out of reach."""
    tasks = [task(f"13196{n:02d}", model, f"eval{1 + n % 6}") for n in range(1, 7) for model in ("gpt", "claude")]
    batch = Batch(tasks, tuple(f"eval{n}" for n in range(1, 7)))
    by_label = {one.label: one for one in tasks}
    for host in ("eval1", "eval2", "eval3", "eval4"):
        batch.ready(host)
    batch.blocked("eval5", "docker", "docker ps: Cannot connect to the Docker daemon", "sudo systemctl start docker")
    batch.unreachable("eval6", "connect to 10.0.3.6 port 22: timed out")
    run, pick = batch.run, by_label.__getitem__
    unsolved = GOOD_FACTS.model_copy(update={"resolved": False, "f2p_success": 1, "patch_bytes": 900, "cost_usd": None})
    run(pick("1319601/gpt/run1"), "eval2", elapsed_s=723)
    batch.at(5)
    run(pick("1319602/gpt/run1"), "eval3", elapsed_s=1210, facts=unsolved)
    batch.at(6)
    run(pick("1319602/claude/run1"), "eval3", Outcome.FLAGGED, warn("patch-small", "patch is small"), elapsed_s=688)
    batch.at(7)
    broken = reject("no-tests-executed", "zero tests; the log says: pytest: command not found", "")
    nothing = Facts(patch_bytes=5100, history_entries=60, tests_passed=0, tests_failed=0, resolved=False)
    run(pick("1319603/gpt/run1"), "eval4", Outcome.REJECTED, broken, elapsed_s=655, cause=Cause.ENVIRONMENT, facts=nothing)
    batch.at(1300)
    second = batch.launch(pick("1319601/claude/run1"), "eval2")
    third = batch.launch(pick("1319606/gpt/run1"), "eval1")
    if finished:
        for attempt in (second, third):
            batch.at(2100)
            batch.finish(attempt, 800.0).collect(attempt).judge(attempt, Outcome.ACCEPTED)
        for label in ("1319603/claude/run1", "1319606/claude/run1"):
            batch.run(by_label[label], "eval4" if "03" in label else "eval1", elapsed_s=700, facts=unsolved)
        return batch.leave("incomplete")
    batch.at(1900)
    return batch
