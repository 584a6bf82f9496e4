"""Which waiting tasks can run at all: blocked when no host that may run them is fit, else pending."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace

from fleet.dispatch.state.views import HostView, TaskView
from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport, Mark
from fleet.model.states import HostState, Link, TaskState
from fleet.model.tasks import Task

WAITING = frozenset({TaskState.PENDING, TaskState.BLOCKED})
_FAILURES = {HostState.BUSY: FailureClass.HOST_BUSY, HostState.HELD: FailureClass.HELD}


def settle(tasks: MutableMapping[str, TaskView], hosts: Mapping[str, HostView]) -> None:
    """Move waiting tasks between PENDING and BLOCKED, as their hosts are now.

    Thousands of tasks of a pool share one tuple of hundreds of hosts (`with_shared_hosts`), which is looked at once.
    """
    unfit: dict[int, HostView | None] = {}
    for label, view in tasks.items():
        if view.state not in WAITING:
            continue
        names = view.task.hosts
        if id(names) not in unfit:
            unfit[id(names)] = _first_of_only_unfit(names, hosts)
        host = unfit[id(names)]
        if host is not None:
            failure, reason = host_failure(host), f"{host.name}: {host.why_unfit.removeprefix(f'{host.name}: ')}"
            if (view.state, view.failure, view.reason) != (TaskState.BLOCKED, failure, reason):
                tasks[label] = replace(view, state=TaskState.BLOCKED, failure=failure, reason=reason)
        elif view.state is TaskState.BLOCKED:
            tasks[label] = replace(view, state=TaskState.PENDING, failure=None, reason="")


def with_shared_hosts(tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks with equal tuples of hosts made one and the same object."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    shared = []
    for task in tasks:
        hosts = known.setdefault(task.hosts, task.hosts)
        shared.append(task if hosts is task.hosts else task.model_copy(update={"hosts": hosts}))
    return shared


def unfit_state(report: HostReport) -> HostState:
    """Return why a host that is not ready is not: an eval runs there, something of one is left, or anything else."""
    failing = {one.check for one in report.findings if one.mark is Mark.FAIL}
    if any(check.startswith("busy") for check in failing):
        return HostState.BUSY
    return HostState.HELD if failing == {"leftover"} else HostState.BLOCKED


def host_failure(host: HostView) -> FailureClass:
    """Return the class of failure of a task that waits for this unfit host."""
    if host.quarantine is not None:
        return FailureClass.HOST_QUARANTINED
    if host.link is Link.CHANGED:
        return FailureClass.HOST_CHANGED
    if host.link in (Link.KEY_CHANGED, Link.KEY_UNKNOWN):
        return FailureClass.HOST_IDENTITY
    if host.link is not Link.OK and host.link is not Link.UNTRIED:
        return FailureClass.UNREACHABLE
    return _FAILURES.get(host.state, FailureClass.HOST_NOT_READY)


def _first_of_only_unfit(names: tuple[str, ...], hosts: Mapping[str, HostView]) -> HostView | None:
    """Return the first host when all are unfit, None when one of them may take a task, or none is known."""
    first = None
    for name in names:
        host = hosts.get(name)
        if host is None:
            continue
        if host.fit:
            return None
        first = first or host
    return first
