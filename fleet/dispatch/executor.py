"""Carries actions out on one host over SSH and reports what happened as journal records.

One connection is opened when it is first needed and kept for probe, launch, wait and collect. Nothing here decides anything:
errors of the link rise to the controller, which sends the same request again later.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fleet.agent import AgentClient
from fleet.agent.status import identity_of, observed_record, started_record, state_of
from fleet.checks import check_hosts
from fleet.collect import AttemptRef, collect_attempt, task_facts
from fleet.collect.judged import ack_word, dataset_of, judge_here, result_records
from fleet.collect.provenance import code_facts
from fleet.collect.result import NumberTaken
from fleet.dispatch.spec import dataset_name, launch_spec, task_key
from fleet.dispatch.state.views import AttemptView, Quarantine
from fleet.errors import AgentError, FleetError, InputError, OutputsChanged, TamperedTransfer, TransferFailed, TransportError
from fleet.inventory.pipelines import Pipelines
from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.hosts import Host
from fleet.model.names import is_name, plain
from fleet.model.pipeline import Pipeline
from fleet.model.records import (
    AnyRecord,
    AttemptAcked,
    AttemptAdopted,
    AttemptRefused,
    CollectFailed,
    QuarantineTold,
)
from fleet.model.states import AttemptState
from fleet.model.tasks import Task
from fleet.transport import Connector, Transport

AT_ONCE = 64
BEAT_S = 10.0
"""How often a waiting host sends a sign of life with the log's last line."""
CANCEL_GRACE_S = 30.0
"""Between TERM and KILL when a cancel is sent that was ordered earlier; as `fleet cancel` has it."""

Tell = Callable[..., None]


@dataclass(frozen=True)
class Site:
    """What all executors of a batch share."""

    connector: Connector
    pipelines: Pipelines
    agent_source: bytes
    batch: str
    batch_dir: Path
    controller: str
    env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Task label → variables from the assignment; kept out of the journal because they may be keys."""
    assigned: frozenset[str] | None = None
    """The tasks of the assignment as it is now; the variables of any other are not known. None = all."""
    active: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))
    """Bounds the hosts being worked on at once; a host that is only waited for does not count."""


class Executor(Protocol):
    """One host's hands: the controller calls one method at a time and journals what it tells."""

    def check(self) -> HostReport:
        """Ask the host whether it is ready."""

    def launch(self, task: Task, attempt: AttemptView, after: tuple[str, ...], tell: Tell) -> None:
        """Stage the inputs and send the launch, for the first time or again."""

    def quarantine(self, note: Quarantine, tasks: Sequence[str], tell: Tell) -> None:
        """Have the host refuse new attempts of every controller."""

    def wait(
        self, attempt: AttemptView, tell: Tell, beat: Callable[[dict[str, Any]], None], ordered: Callable[[], bool] = ...
    ) -> None:
        """Tell every change of the attempt until it has ended; `beat` gets each sign of life.

        The attempt is ended once `ordered` says so: a rule has ordered it meanwhile.
        """

    def collect(self, task: Task, attempt: AttemptView, tell: Tell) -> None:
        """Bring the outputs here, judge them and acknowledge."""

    def close(self) -> None:
        """Drop the connection."""


class SshExecutor:
    """The executor for hosts reached over SSH."""

    def __init__(self, host: Host, site: Site, host_uid: str = "") -> None:
        self._host = host
        self.host_uid = host_uid
        """The identity that the host had when it was first seen; one with another is asked and told nothing."""
        self._site = site
        self._transport: Transport | None = None
        self._code: dict[str, Any] | None = None

    def check(self) -> HostReport:
        """Ask the readiness questions over the kept connection."""
        with self._site.active:
            report = check_hosts([self._host], self, self._site.pipelines, self._site.agent_source, 1)[0]
        # One that could not be reached when the batch began is known from its first answer on.
        self.host_uid = self.host_uid or report.host_uid
        return report

    def open(self, host: Host) -> Transport:
        """Return the kept connection under a handle whose close does nothing; makes this a Connector for the checks."""
        del host
        return _Kept(self._connection())

    def launch(self, task: Task, attempt: AttemptView, after: tuple[str, ...], tell: Tell) -> None:
        """Stage the dataset and have the attempt taken; every refusal of the host becomes a record.

        The same launch may have arrived before, or be on its way still: a refusal ends the attempt only once the host has noted
        that it will never start.
        """
        pipeline = self._pipeline(task)
        with self._site.active:
            client = self._client()
            withdrawn = self._site.assigned is not None and task.label not in self._site.assigned
            if attempt.cancel_ordered or withdrawn:
                # Never sent again: cancelled, or its variables are not known any more. Begun after all, it is followed; the
                # first thing that `wait` does is to end what was cancelled.
                why = ("cancelled" if attempt.cancel_ordered else "taken out of the assignment") + " before it started"
                refused = _refused(attempt.attempt, "cancelled", why, FailureClass.CANCELLED)
                tell(_begun(client, attempt.attempt, why) or refused)
                return
            try:
                if dataset_of(task) is None:
                    raise AgentError(f"{task.dataset_file} is no longer the file that was assigned", code="conflict")
                client.stage({task.key.dataset_sha256: (dataset_name(task), task.dataset_file.read_bytes())})
                answer = client.launch(
                    attempt=attempt.attempt,
                    key=task_key(task),
                    spec=launch_spec(task, pipeline, self._host, self._site.env.get(task.label, {})),
                    after=after,
                    batch=self._site.batch,
                    controller=self._site.controller,
                )
            except AgentError as error:
                if error.code == "internal":
                    # A supervisor that was slow to come up has been reported so, and ran: no answer, to be asked again.
                    raise
                begun = _begun(client, attempt.attempt, error.message)
                tell(*([begun] if begun else _launch_refusal(attempt.attempt, error)))
                return
        taken = answer.get("status")
        tell(started_record(attempt.attempt, taken if isinstance(taken, dict) else {}))

    def quarantine(self, note: Quarantine, tasks: Sequence[str], tell: Tell) -> None:
        """Leave the note on the host; one that refuses it is not asked again, and says why."""
        error = ""
        try:
            if not self._client().quarantine(note.reason, tasks, self._site.batch, self._site.controller, note.epoch):
                error = "a person has released it since: it takes tasks of other controllers"
        except AgentError as refusal:
            error = plain(f"it did not note its quarantine: {refusal.message}", 300)
        tell(QuarantineTold(host=self._host.name, error=error))

    def wait(
        self,
        attempt: AttemptView,
        tell: Tell,
        beat: Callable[[dict[str, Any]], None],
        ordered: Callable[[], bool] = lambda: False,
    ) -> None:
        """Follow the host's long poll; the records are the changes, the beats are for the display."""
        client = self._client()
        cancelled = False
        if attempt.cancel_ordered:
            # `fleet cancel` asked the host when it did not have the attempt yet, or could not ask it at all.
            cancelled = self._end(client, attempt)
        seen: AttemptState | None = attempt.state if attempt.state is AttemptState.RUNNING else None
        for status, final in client.wait(attempt.attempt, beat_s=BEAT_S):
            state = state_of(status)
            beat(status)
            if state is AttemptState.UNKNOWN and attempt.epoch is not None:
                gone = {"reason": "the host no longer knows the attempt: its ~/.fleet was removed, or it is another machine"}
                tell(observed_record(attempt.attempt, gone, AttemptState.LOST))
                return
            ended = state is AttemptState.FINISHED
            # A finished attempt is told once it is sealed: before that there is nothing to collect.
            if state is not seen and (not ended or final):
                seen = state
                tell(observed_record(attempt.attempt, status))
            if not cancelled and not final and ordered():
                cancelled = self._end(client, attempt)

    def _end(self, client: AgentClient, attempt: AttemptView) -> bool:
        """Send a cancel beside the long poll, which then says what came of it."""
        with suppress(AgentError):
            client.cancel(attempt.attempt, attempt.epoch, CANCEL_GRACE_S)
        return True

    def collect(self, task: Task, attempt: AttemptView, tell: Tell) -> None:
        """Collect, judge, acknowledge; what cannot be brought here is told and stays on the host."""
        pipeline = self._pipeline(task)
        dataset = dataset_of(task)
        reference = AttemptRef(
            attempt_id=attempt.attempt,
            instance_id=task.key.instance_id,
            model=task.key.model,
            run=task.key.run,
            number=attempt.number,
            host=self._host.name,
        )
        with self._site.active:
            client = self._client()
            if self._code is None:
                self._code = code_facts(client, pipeline, self._host.workdir)
            provenance = task_facts(task, dataset, batch=self._site.batch) | self._code
            try:
                got = collect_attempt(
                    client,
                    self._connection(),
                    attempt=reference,
                    batch_dir=self._site.batch_dir,
                    pipeline=pipeline,
                    provenance=provenance,
                )
            except TamperedTransfer as error:
                tell(CollectFailed(attempt=attempt.attempt, reason=error.message, failure=FailureClass.TRANSFER_TAMPERED))
                return
            except (TransferFailed, AgentError, NumberTaken) as error:
                if isinstance(error, AgentError) and error.code == "busy" and attempt.state is AttemptState.FINISHED:
                    # Its outputs are sealed when the other eval there has ended: no failure of this one, nor of its host.
                    raise
                changed = isinstance(error, OutputsChanged)
                failure = FailureClass.OUTPUTS_CHANGED if changed else FailureClass.COLLECT_FAILED
                tell(CollectFailed(attempt=attempt.attempt, reason=plain(error.message, 500), failure=failure))
                return
            except InputError as error:
                # rsync was here when the batch began.
                tell(CollectFailed(attempt=attempt.attempt, reason=plain(f"{error.message} → {error.hint}", 500)))
                return
            verdict = judge_here(got, task, dataset, pipeline)
            tell(*result_records(attempt.attempt, got, verdict))
            status = {"state": attempt.state, "cancelled": attempt.cancelled}
            try:
                client.ack(attempt.attempt, attempt.epoch, ack_word(status, verdict))
            except (AgentError, TransportError):
                # The result is here and judged; `fleet collect` acknowledges later.
                return
            tell(AttemptAcked(attempt=attempt.attempt))

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _connection(self) -> Transport:
        if self._transport is None:
            self._transport = self._site.connector.open(self._host)
        return self._transport

    def _client(self) -> AgentClient:
        return AgentClient(self._connection(), self._site.agent_source, self.host_uid)

    def _pipeline(self, task: Task) -> Pipeline:
        return self._site.pipelines.get(task.pipeline or self._host.pipeline)


class _Kept:
    """A transport that outlives its borrower: everything but close goes through."""

    def __init__(self, transport: Transport) -> None:
        self.host = transport.host
        self.dead_after_s = transport.dead_after_s
        self.start = transport.start
        self.alive = transport.alive
        self.pull = transport.pull

    def close(self) -> None:
        """Keep it open; the executor closes it."""


def _begun(client: AgentClient, attempt: str, why: str) -> AnyRecord | None:
    """Have the host settle whether the attempt has started; None when it has not, and never will."""
    status = client.withdraw(attempt, why)
    return None if state_of(status) is AttemptState.UNKNOWN else started_record(attempt, status)


def _refused(attempt: str, code: str, reason: str, failure: FailureClass) -> AttemptRefused:
    return AttemptRefused(attempt=attempt, code=code, reason=reason, failure=failure)


_REFUSALS = {
    "busy": FailureClass.HOST_BUSY,
    "not-ready": FailureClass.HOST_NOT_READY,
    "held": FailureClass.HELD,
    "duplicate": FailureClass.DUPLICATE,
}


def _launch_refusal(attempt: str, error: AgentError) -> tuple[AnyRecord, ...]:
    """Translate a refusal; a duplicate is adopted: the work was started once already, and that is the one to follow."""
    status = error.detail.get("status")
    other = status.get("attempt") if isinstance(status, dict) else None
    if error.code == "duplicate" and isinstance(status, dict) and isinstance(other, str) and is_name(other):
        epoch, boot_id = identity_of(status)
        return (AttemptAdopted(intended=attempt, attempt=other, epoch=epoch, boot_id=boot_id),)
    failure = _REFUSALS.get(error.code, FailureClass.LAUNCH_REFUSED)
    return (_refused(attempt, error.code, error.message, failure),)


def close_all(executors: Mapping[str, Executor]) -> None:
    """Close every connection; a link that fails while it is closed is of no interest."""
    for executor in executors.values():
        try:
            executor.close()
        except (FleetError, OSError):
            continue
