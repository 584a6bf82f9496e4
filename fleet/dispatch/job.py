"""The main job as a library call: open the batch, run the controller, say what it came to."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fleet
from fleet.checks import check_as_they_answer
from fleet.dispatch.answers.outcome import exit_code
from fleet.dispatch.controller import PATIENCE_S, Controller
from fleet.dispatch.executor import AT_ONCE, Site, SshExecutor, close_all
from fleet.dispatch.files.batch import Batch, controller_name
from fleet.dispatch.lanes import Observer
from fleet.dispatch.resolve import Resolved
from fleet.dispatch.rules.care import QUARANTINE_AFTER, Rules
from fleet.dispatch.rules.halt import HaltRule
from fleet.dispatch.rules.stalls import StallRule
from fleet.dispatch.state.views import AttemptView, BatchState, TaskView
from fleet.dispatch.state.waiting import WAITING
from fleet.errors import InputError
from fleet.inventory import Inventory
from fleet.inventory.pipelines import Pipelines, agent_source
from fleet.model.exitcodes import Exit
from fleet.model.failures import LOST, SHORT_LOST
from fleet.model.findings import HostReport
from fleet.model.hosts import Host
from fleet.model.records import AnyRecord, ArchiveSeen, BatchOpened, ControllerLeft, ImagesChecked, RetryOrdered
from fleet.model.states import ON_HOST, RETRYABLE, TaskState
from fleet.model.tasks import Task
from fleet.transport import Connector, Transport
from fleet.transport.allowance import affordable


@dataclass(frozen=True)
class Job:
    """What to run: an assignment as resolved, and the operator's limits."""

    batch: Batch
    assignment_file: Path
    resolved: Resolved
    hosts: tuple[str, ...] = ()
    """Only these hosts take new tasks; empty = all."""
    retry: frozenset[TaskState] = field(default_factory=frozenset)
    """Ended tasks in these states get a new attempt, and only those are run."""
    halt: HaltRule | None = None
    quarantine: int = QUARANTINE_AFTER
    """Different tasks that end badly in a row put a host in quarantine; 0 = never."""
    policy: Mapping[str, int] = field(default_factory=dict)
    """Failure class → new attempts without an order; wins over what the assignment says."""
    collect: bool = True
    archives: Mapping[str, ArchiveSeen] = field(default_factory=dict)
    """Image archives as S3 described them just now, for the journal; empty when nobody asked."""

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks with their hosts narrowed to the chosen ones; a task left without a host is dropped."""
        tasks = self.resolved.tasks
        if self.policy:
            tasks = tuple(task.model_copy(update={"retry": self._policy_of(task)}) for task in tasks)
        if not self.hosts:
            return tasks
        chosen = frozenset(self.hosts)
        narrowed = (task.model_copy(update={"hosts": tuple(host for host in task.hosts if host in chosen)}) for task in tasks)
        return tuple(task for task in narrowed if task.hosts)

    def _policy_of(self, task: Task) -> dict[str, int]:
        """Return the task's retry policy with the job's laid over it; its `lost` stands for both lost classes."""
        over = {str(one) for one in LOST} if SHORT_LOST in self.policy else set()
        return {word: count for word, count in task.retry.items() if word not in over} | dict(self.policy)


@dataclass(frozen=True)
class Ended:
    """What a run of the controller came to."""

    state: BatchState
    detached: bool
    code: Exit


def known_state(job: Job) -> BatchState:
    """Return what the journal says of the batch so far, after refusing an assignment that changed under it."""
    job.batch.require_memory()
    if not job.batch.exists:
        return BatchState()
    state = job.batch.load()
    changed = [task.label for task in job.tasks() if _changed(state.tasks.get(task.label), task)]
    if changed:
        raise InputError(
            f"batch {job.batch.name}: {', '.join(changed[:5])} already started with other settings than "
            f"{job.assignment_file} now says",
            hint="give the changed assignment a batch of its own: --batch NAME",
        )
    return state


def _changed(view: TaskView | None, task: Task) -> bool:
    """Tell whether a task that has begun is now described differently; where it may run next is allowed to change."""
    if view is None or not view.attempts:
        return False
    fixed = {"hosts", "place", "env", "dataset_file", "repo", "retry"}
    return view.task.model_dump(exclude=fixed) != task.model_dump(exclude=fixed)


class Runner:
    """A batch opened for running; `nudge` and `detach` may be called from signal handlers."""

    def __init__(self, controller: Controller, job: Job) -> None:
        self._controller = controller
        self._job = job

    def nudge(self) -> None:
        """Have the journal read again."""
        self._controller.nudge()

    def detach(self) -> None:
        """Stop controlling; evals go on."""
        self._controller.detach()

    def run(self) -> Ended:
        """Run to the end or until detached, and note in the journal how it ended."""
        finished = self._controller.run()
        state = self._controller.state
        labels = [task.label for task in self._job.tasks()]
        code = exit_code(state, labels)
        why = "halted" if state.halted else "done" if code == Exit.OK or state.complete else "incomplete"
        left = ControllerLeft(why="detached", exit_code=130) if not finished else ControllerLeft(why=why, exit_code=int(code))
        self._job.batch.journal.append(left)
        return Ended(state, not finished, code)


@contextmanager
def opened(
    job: Job,
    inventory: Inventory,
    pipelines: Pipelines,
    connector: Connector,
    observer: Observer | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Runner]:
    """Take the batch, journal what is to be done, and yield the runner; OwnedElsewhere when another controller has it."""
    known_state(job)
    job.batch.prepare()
    with job.batch.controlled():
        state = known_state(job)
        tasks = job.tasks()
        names = tuple(dict.fromkeys([*(host for task in tasks for host in task.hosts), *_occupied(state)]))
        hosts = [host for host in inventory.hosts if host.name in names]
        at_once = affordable(AT_ONCE, kept=len(hosts))
        only = _only(job, state, tasks)
        images: list[AnyRecord] = [ImagesChecked(archives=dict(job.archives))] if job.archives else []
        job.batch.journal.append(_opening(job, tasks, hosts, only), *images, *_retries(job, state))
        job.batch.keep(job.resolved.raw)
        site = Site(
            connector=connector,
            pipelines=pipelines,
            agent_source=agent_source(),
            batch=job.batch.name,
            batch_dir=job.batch.directory,
            controller=controller_name(),
            # Of all tasks: an attempt on a host that gets no new tasks may have to be sent again, with the same variables.
            env={task.label: task.env for task in job.resolved.tasks if task.env},
            assigned=frozenset(task.label for task in job.resolved.tasks),
            active=threading.Semaphore(at_once),
        )
        seen = {name: view.host_uid for name, view in state.hosts.items()}
        executors = {host.name: SshExecutor(host, site, seen.get(host.name, "")) for host in hosts}
        by_name = {host.name: host for host in hosts}

        def survey(wanted: Sequence[str]) -> Iterator[Sequence[HostReport]]:
            chosen = [by_name[name] for name in wanted]
            for reports in check_as_they_answer(
                chosen, _Kept(executors), pipelines, site.agent_source, inventory.defaults.in_flight
            ):
                for report in reports:
                    executors[report.host].host_uid = executors[report.host].host_uid or report.host_uid
                    if report.error is not None:
                        executors[report.host].close()
                yield reports

        def stall_rule(attempt: AttemptView) -> StallRule:
            view = controller.state.tasks[attempt.task]
            pipeline = pipelines.get(view.task.pipeline or by_name[attempt.host].pipeline)
            return StallRule(pipeline.stall_after_s, pipeline.on_stall == "cancel", pipeline.readiness.docker)

        controller = Controller(
            job.batch.journal,
            executors,
            survey=survey,
            observer=observer,
            only=only,
            collect=job.collect,
            rules=Rules(quarantine=job.quarantine, halt=job.halt),
            stall_rule=stall_rule,
            patience_s=patience_s,
        )
        try:
            yield Runner(controller, job)
        finally:
            close_all(executors)


class _Kept:
    """A connector that hands out the executors' kept connections, so that a check opens nothing twice."""

    def __init__(self, executors: dict[str, SshExecutor]) -> None:
        self._executors = executors

    def open(self, host: Host) -> Transport:
        """Return the host's kept connection."""
        return self._executors[host.name].open(host)

    def close(self) -> None:
        """Leave the connections to their executors."""


def _opening(job: Job, tasks: Sequence[Task], hosts: Sequence[Host], only: frozenset[str]) -> BatchOpened:
    return BatchOpened(
        batch=job.batch.name,
        assignment_sha256=job.resolved.sha256,
        assignment_file=str(job.assignment_file.resolve()),
        controller=controller_name(),
        tasks=tuple(tasks),
        hosts={host.name: host.pipeline for host in hosts},
        only=tuple(sorted(only)) if job.retry else None,
        fleet_version=fleet.__version__,
    )


def _occupied(state: BatchState) -> list[str]:
    """Return the hosts that may still hold something of the batch, chosen for new tasks or not."""
    pending = ON_HOST | {TaskState.LOST}
    return [
        state.attempts[view.attempt].host for view in state.tasks.values() if view.attempt is not None and view.state in pending
    ]


def _retries(job: Job, state: BatchState) -> list[RetryOrdered]:
    wanted = job.retry & RETRYABLE
    labels = [task.label for task in job.tasks() if task.label in state.tasks]
    return [
        RetryOrdered(task=label, after=state.tasks[label].attempt) for label in labels if state.tasks[label].state in wanted
    ]


def _only(job: Job, state: BatchState, tasks: Sequence[Task]) -> frozenset[str]:
    """Return the tasks that may begin: those of this assignment, or with `retry` those that it names."""
    labels = frozenset(task.label for task in tasks)
    if job.retry:
        return frozenset(label for label in labels if label in state.tasks and chosen_again(job, state.tasks[label]))
    return labels


def chosen_again(job: Job, view: TaskView) -> bool:
    """Tell whether `--only` means the task: it ended so, or waits since it was ordered again."""
    return view.state in job.retry or (view.ordered_again and view.state in WAITING)
