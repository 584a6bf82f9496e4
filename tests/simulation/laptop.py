"""An operator's machine: a batch directory that survives, and in it at most one controller that does not."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from fleet.dispatch.controller import Controller
from fleet.dispatch.executor import Site, SshExecutor
from fleet.dispatch.scheduler import Action, Begin
from fleet.dispatch.state import apply
from fleet.dispatch.views import BatchState
from fleet.errors import StorageError, TransferFailed, TransportError
from fleet.model.failures import FailureClass
from fleet.model.findings import Finding, HostReport, Mark
from fleet.model.records import AnyRecord, AttemptIntended, AttemptObserved, AttemptRefused, record_from
from fleet.model.states import Link, TaskState
from fleet.model.tasks import Task
from fleet.model.verdict import Outcome, Verdict
from fleet.testing import local_host
from tests.simulation.bugs import Bug
from tests.simulation.link import Network, SimulatedClient
from tests.simulation.machine import Machine

_VERDICTS = {name: Verdict(path="", verdict=name) for name in Outcome}


class SimulatedJournal:
    """A journal as JSON lines; what is not in them is lost with the controller."""

    def __init__(self, clock: Any) -> None:
        self.lines: list[str] = []
        self.full = False
        self.shadow = BatchState()
        """The lines read back and reduced, one by one as they are written."""
        self._clock = clock

    def read(self) -> list[AnyRecord]:
        found = (record_from(json.loads(line)) for line in self.lines)
        return [record for record in found if record is not None]

    def append(self, *records: AnyRecord) -> list[AnyRecord]:
        if self.full:
            raise StorageError("the journal cannot be written")
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
    manifest = client.evidence(attempt.attempt_id)["manifest"]
    network, laptop = executor.network, executor.laptop
    if network.random.random() < network.trouble / 2:
        raise TransferFailed("rsync: code 12", host=executor.machine.name)
    product = manifest["files"][0]["sha256"]
    laptop.files.setdefault(attempt.attempt_id, product)
    return SimpleNamespace(relative=attempt.attempt_id, files=1, bytes=1, product=product)


def _judge(got: Any, *_: Any) -> Verdict:
    good = {"good": Outcome.ACCEPTED, "odd": Outcome.FLAGGED}
    return _VERDICTS[good.get(got.product, Outcome.REJECTED)]


def _spec(task: Task, *_: Any) -> dict[str, Any]:
    outputs = {"root": "{output_dir}"}
    return {"argv": ["eval", str(task.max_iterations)], "workdir": "~/work", "outputs": outputs, "dataset_sha256": "0"}


@contextlib.contextmanager
def simulated_files() -> Iterator[None]:
    """Let executors move no files, and controllers start no threads, while the block runs."""
    stand_ins = {
        "collect_attempt": _collect,
        "judge_here": _judge,
        "launch_spec": _spec,
        "dataset_of": lambda task: task,
        "code_facts": lambda *_: {},
        "task_facts": lambda *_, **__: {},
    }
    calm = {"threading": SimpleNamespace(Thread=_NoThread), "random": SimpleNamespace(uniform=lambda low, high: 1.0)}
    with mock.patch.multiple("fleet.dispatch.executor", **stand_ins), mock.patch.multiple("fleet.dispatch.controller", **calm):
        yield


class SimulatedController(Controller):
    """The real controller without its threads: the driver says when an action is carried out and a message is taken."""

    def __init__(self, journal: SimulatedJournal, executors: Mapping[str, SimulatedExecutor], bug: Bug, **settings: Any) -> None:
        super().__init__(journal, executors, survey=lambda names: (), **settings)  # type: ignore[arg-type]
        self.pending: list[Action] = []
        self.bug = bug
        self._held_back: list[AnyRecord] = []

    def _start(self, action: Action) -> None:
        super()._start(action)
        self.pending.append(action)

    def decide(self) -> bool:
        """Start what is to be started; return True when the controller's work is over."""
        self._start_actions()
        return self._nothing_left()

    def perform(self, index: int) -> None:
        """Carry out one started action, up to its messages."""
        self._work(self.pending.pop(index))
        late, self._held_back = self._held_back, []
        if late:
            self._journal.append(*late)

    def _record(self, *records: AnyRecord) -> None:
        if self.bug is Bug.JOURNAL_AFTER_LAUNCH and isinstance(records[0], AttemptIntended):
            self._held_back += records
            self.state = apply(self.state, *records)
            return
        super()._record(*records)
        if self.bug is Bug.LOST_IS_PENDING and isinstance(records[0], AttemptObserved):
            view = self.state.tasks[self.state.attempts[records[0].attempt].task]
            if view.state is TaskState.LOST and view.host is not None:
                self._begin(Begin(view.host, view.task.label))

    @property
    def messages(self) -> bool:
        return not self._inbox.empty()

    def take(self) -> None:
        """Take one message in."""
        self._take(self._inbox.get_nowait())


class _NoThread:
    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


class Laptop:
    """A batch directory: journal, results, and the lock of the one controller."""

    def __init__(self, name: str, tasks: tuple[Task, ...], clock: Any, bug: Bug) -> None:
        self.name, self.tasks, self.bug = name, tasks, bug
        self.journal = SimulatedJournal(clock)
        self.files: dict[str, str] = {}
        self.controller: SimulatedController | None = None
        self.unread = False
        """Whether another command wrote an order that the controller has not read yet."""
