"""An operator's machine: a batch directory that survives, and in it at most one controller that does not."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from fleet.collect.provenance import Provenance, TaskFacts
from fleet.dispatch.clockwatch import Noticed
from fleet.dispatch.controller import Controller
from fleet.dispatch.executor import Site, SshExecutor
from fleet.dispatch.recovery.evidence import Here
from fleet.dispatch.rules.care import Rules
from fleet.dispatch.rules.scheduler import Action
from fleet.dispatch.rules.stalls import StallRule
from fleet.dispatch.state.replay import apply
from fleet.dispatch.state.views import AttemptView, BatchState
from fleet.dispatch.state.waiting import WAITING
from fleet.errors import StorageError, TransferFailed, TransportError
from fleet.model.failures import FailureClass
from fleet.model.findings import Finding, HostReport, Mark
from fleet.model.records import AnyRecord, AttemptIntended, AttemptRefused, CancelOrdered, record_from
from fleet.model.states import Link, TaskState
from fleet.model.tasks import Task, TaskKey
from fleet.model.verdict import Outcome, Verdict
from fleet.testing import local_host
from tests.simulation.agent import AGENT
from tests.simulation.bugs import Bug
from tests.simulation.disk import Killed
from tests.simulation.link import Network, SimulatedClient
from tests.simulation.machine import Machine

_VERDICTS = {name: Verdict(path="", verdict=name) for name in Outcome}


class SimulatedJournal:
    """A journal as JSON lines; what is not in them is lost with the controller."""

    def __init__(self, clock: Any) -> None:
        self.lines: list[str] = []
        self.full = False
        self.fuse: int | None = None
        """Records until the controller that writes them is killed."""
        self.forestall = False
        """Whether another command cancels the next task right before its intent is written."""
        self.fuse_after_forestall: int | None = None
        self.forestalled: set[str] = set()
        """Tasks that were cancelled so, and not ordered again."""
        self.shadow = BatchState()
        """The lines read back and reduced, one by one as they are written."""
        self._clock = clock

    def read(self) -> list[AnyRecord]:
        return self.read_from(0)[0]

    def read_from(self, offset: int) -> tuple[list[AnyRecord], int]:
        found = (record_from(json.loads(line)) for line in self.lines[offset:])
        return [record for record in found if record is not None], len(self.lines)

    def append(self, *records: AnyRecord) -> list[AnyRecord]:
        if self.full:
            raise StorageError("the journal cannot be written")
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Killed
        first = records[0]
        if self.forestall and isinstance(first, AttemptIntended):
            # Written by another command between the controller's last look and this record of it.
            self.forestall = False
            self.fuse = self.fuse_after_forestall
            if self.shadow.tasks[first.task].state in WAITING:
                self.order(CancelOrdered(task=first.task))
                self.forestalled.add(first.task)
        return self.order(*records)

    def order(self, *records: AnyRecord) -> list[AnyRecord]:
        """Write records, as any other command does it beside the controller."""
        stamped = [record if record.t else record.model_copy(update={"t": self._clock()}) for record in records]
        for record in stamped:
            self.lines.append(json.dumps({"v": 1, **record.model_dump(mode="json")}))
            back = record_from(json.loads(self.lines[-1]))
            assert back is not None
            self.shadow = apply(self.shadow, back)
        return stamped


class SimulatedExecutor(SshExecutor):
    """The real executor; only its connection, its check and the files that it would move are simulated."""

    def __init__(self, machine: Machine, network: Network, laptop: Laptop) -> None:
        site = Site(
            connector=None,  # type: ignore[arg-type]
            pipelines=None,  # type: ignore[arg-type]
            agent_source=b"",
            batch=laptop.name,
            batch_dir=Path("/nowhere"),
            controller=laptop.name,
            active=threading.Semaphore(1000),
        )
        super().__init__(local_host(machine.name), site)
        self.machine, self.network, self.laptop = machine, network, laptop

    def launch(self, task: Task, attempt: Any, after: tuple[str, ...], tell: Any) -> None:
        try:
            super().launch(task, attempt, after, tell)
        except TransportError:
            if self.laptop.bug is not Bug.NEW_ID_AFTER_LOST_ANSWER:
                raise
            given_up = {"code": "busy", "reason": "no answer", "failure": FailureClass.HOST_BUSY}
            tell(AttemptRefused(attempt=attempt.attempt, **given_up))

    def check(self) -> HostReport:
        try:
            facts = SimulatedClient(self.machine, self.network).status()
        except TransportError as error:
            return HostReport(host=self.machine.name, link=Link(error.link), error=error.message)
        findings = []
        if self.machine.disk.room is not None:
            findings.append(Finding(check="disk", mark=Mark.FAIL, message="100 % used"))
        if facts["quarantine"] is not None:
            findings.append(
                Finding(check="quarantine", mark=Mark.FAIL, message=f"quarantined: {facts['quarantine']['reason']}")
            )
        if facts["lock"]["state"] == "held":
            findings.append(Finding(check="busy", mark=Mark.FAIL, message="an eval is running"))
        return HostReport(host=self.machine.name, link=Link.OK, findings=tuple(findings), host_uid=facts["host_uid"])

    def _client(self) -> Any:
        return SimulatedClient(self.machine, self.network)

    def _connection(self) -> Any:
        return self

    def _pipeline(self, task: Task) -> Any:
        return None


def _collect(client: Any, executor: SimulatedExecutor, *, attempt: Any, **_: Any) -> Any:
    """Stand for rsync: the listed files arrive, or the transfer fails; publishing is exclusive."""
    evidence = client.evidence(attempt.attempt_id)
    manifest = evidence["manifest"]
    network, laptop = executor.network, executor.laptop
    if network.random.random() < network.trouble / 2:
        raise TransferFailed("rsync: code 12", host=executor.machine.name)
    product = manifest["files"][0]["sha256"]
    laptop.files.setdefault(attempt.attempt_id, product)
    laptop.results.setdefault(attempt.attempt_id, _result(attempt, evidence["status"]))
    return SimpleNamespace(relative=attempt.relative, files=1, bytes=1, product=product, laptop=laptop, id=attempt.attempt_id)


def _result(attempt: Any, status: Mapping[str, Any]) -> Here:
    """Return what fleet.json and manifest.json keep of a collected attempt."""
    key = TaskKey.model_validate(status["key"])
    about = TaskFacts(instance_id=key.instance_id, model=key.model, run=key.run)
    told = {name: status[name] for name in ("state", "rc", "epoch", "cancelled") if status.get(name) is not None}
    provenance = Provenance(task=about, attempt=attempt.attempt_id, host=attempt.host, **told)
    return Here(attempt.attempt_id, key, attempt.host, attempt.number, attempt.relative, provenance, 1, 1)


def _judge(got: Any, *_: Any) -> Verdict:
    good = {"good": Outcome.ACCEPTED, "odd": Outcome.FLAGGED}
    verdict = _VERDICTS[good.get(got.product, Outcome.REJECTED)]
    got.laptop.results[got.id] = replace(got.laptop.results[got.id], verdict=verdict)
    return verdict


def _spec(task: Task, *_: Any) -> dict[str, Any]:
    outputs = {"root": "{output_dir}"}
    return {"argv": ["eval", str(task.max_iterations)], "workdir": "~/work", "outputs": outputs, "dataset_sha256": "0"}


@contextlib.contextmanager
def simulated_files(bug: Bug = Bug.NONE) -> Iterator[None]:
    """Let executors move no files, and controllers start no threads, while the block runs; plant what `bug` needs."""
    stand_ins = {
        "collect_attempt": _collect,
        "judge_here": _judge,
        "launch_spec": _spec,
        "dataset_of": lambda task: task,
        "code_facts": lambda *_: {},
        "task_facts": lambda *_, **__: {},
    }
    calm = {
        "start_thread": lambda *_: None,
        "random": SimpleNamespace(uniform=lambda low, high: 1.0),
        # Looks at real clocks, which are not those of a history.
        "ClockWatch": lambda: SimpleNamespace(look=Noticed),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.multiple("fleet.dispatch.executor", **stand_ins))
        stack.enter_context(mock.patch.multiple("fleet.dispatch.controller", **calm))
        if bug is Bug.VERDICT_OVERWRITTEN:
            for room in ("draft", "reduce_attempts"):
                stack.enter_context(mock.patch(f"fleet.dispatch.state.{room}.TERMINAL", frozenset()))
        if bug is Bug.LOST_IS_PENDING:
            stack.enter_context(mock.patch("fleet.dispatch.state.draft.Draft.end", _end_without_loss))
        if bug is Bug.NO_DUPLICATE_CHECK:
            stack.enter_context(mock.patch.object(AGENT, "refuse_duplicate", lambda key, after, attempt: None))
        if bug is Bug.INTENT_AFTER_CANCEL:
            stack.enter_context(mock.patch("fleet.dispatch.state.reduce_attempts.AttemptView", _not_cancelled))
        yield


def _not_cancelled(*parts: Any, **fields: Any) -> AttemptView:
    return AttemptView(*parts, **{**fields, "cancel_ordered": False})


def _end_without_loss(draft: Any, attempt: Any, state: TaskState, failure: FailureClass, reason: str) -> None:
    ended = TaskState.PENDING if state is TaskState.LOST else state
    draft.move(attempt, ended, failure=failure, reason=reason)
    draft.set_host(attempt.host, attempt=None, only_if=attempt.attempt)


class SimulatedController(Controller):
    """The real controller without its threads: the driver says when an action is carried out and a message is taken."""

    def __init__(
        self, journal: SimulatedJournal, executors: Mapping[str, SimulatedExecutor], bug: Bug, **settings: Any
    ) -> None:
        super().__init__(journal, executors, survey=lambda names: (), **settings)  # type: ignore[arg-type]
        self.pending: list[Action] = []
        self.bug = bug
        self._held_back: list[AnyRecord] = []

    def _start(self, action: Action) -> None:
        super()._start(action)
        self.pending.append(action)

    def _survey_first(self) -> None:
        """Leave the first checks to the loop, one host at a time."""

    def _mind_the_clock(self) -> None:
        """Nothing here depends on how long the simulation itself takes."""

    def _next_message(self, *_: object) -> Any:
        raise _Paused

    def decide(self) -> bool:
        """Go through the loop up to where it would wait; return True when the controller's work is over."""
        try:
            return self.run()
        except _Paused:
            return False

    def perform(self, index: int) -> None:
        """Carry out one started action, up to its messages."""
        self._work(self.pending.pop(index))
        late, self._held_back = self._held_back, []
        # Bounded to the bug that is meant: one that stays unwritten for ever would be found too soon.
        if late and not self.journal_full:
            self._journal.order(*late)

    def _record(self, *records: AnyRecord) -> list[AnyRecord]:
        if self.bug is Bug.JOURNAL_AFTER_LAUNCH and isinstance(records[0], AttemptIntended):
            self._held_back += records
            self.state = apply(self.state, *records)
            return list(records)
        return super()._record(*records)

    @property
    def journal_full(self) -> bool:
        return bool(getattr(self._journal, "full", False))

    @property
    def messages(self) -> bool:
        return not self._inbox.empty()

    def take(self) -> None:
        """Take one message in."""
        self._take(self._inbox.get_nowait())


class _Paused(Exception):
    """The controller has nothing to do before a message comes."""


class Laptop:
    """A batch directory: journal, results, and the lock of the one controller."""

    def __init__(self, name: str, tasks: tuple[Task, ...], clock: Any, bug: Bug) -> None:
        self.name, self.tasks, self.bug = name, tasks, bug
        self.journal = SimulatedJournal(clock)
        self.files: dict[str, str] = {}
        self.results: dict[str, Here] = {}
        """The same results as `fleet recover` finds them."""
        self.controller: SimulatedController | None = None
        self.rules = Rules(quarantine=0)
        self.stall_rule = StallRule(0.0)
        self.unread = False
        """Whether another command wrote an order that the controller has not read yet."""
