"""Failures grouped by what caused them, each group with its hosts, a few of its tasks and the command that comes next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from fleet.dashboard.figures import FailureGroup, Flag
from fleet.dashboard.funnel import state_of
from fleet.dashboard.hosts import first_problem, fix_of
from fleet.dispatch.answers.images import CODE, image_differences
from fleet.dispatch.answers.resume import typed
from fleet.dispatch.state.replay import BatchState, HostView, TaskView
from fleet.model.failures import FAILURES, FailureClass
from fleet.model.names import plain
from fleet.model.states import TaskState
from fleet.model.verdict import Cause, Reason, Severity

SAMPLES = 5
MAX_TEXT = 300
_FAILED = frozenset(
    {TaskState.BLOCKED, TaskState.REJECTED, TaskState.FAILED, TaskState.CANCELLED, TaskState.LOST, TaskState.HELD}
)
_CLASSES = {str(one): one for one in FailureClass}
_NOWHERE = "the journal names no attempt on any host"


@dataclass
class _Group:
    """A failure group while tasks are added to it."""

    failure: str
    cause: Cause | None
    code: str
    message: str
    advice: str
    states: Counter[str] = field(default_factory=Counter)
    hosts: dict[str, HostView | None] = field(default_factory=dict)
    tasks: list[str] = field(default_factory=list)


def failures_of(batch: BatchState) -> tuple[FailureGroup, ...]:
    """Return the groups of all tasks that are blocked or ended without an accepted result, largest first."""
    groups: dict[tuple[str, Cause | None, str], _Group] = {}
    for label, view in batch.tasks.items():
        state = state_of(batch, view)
        if state not in _FAILED:
            continue
        one = _one(batch, view, state)
        group = groups.setdefault((one.failure, one.cause, one.code), one)
        group.states[str(state)] += 1
        group.tasks.append(label)
        group.hosts.update({name: batch.hosts.get(name) for name in _hosts(batch, view, state)})
    # A cancellation is what the operator asked for, so it comes after what needs one.
    last = str(FailureClass.CANCELLED)
    order = sorted(groups.items(), key=lambda item: (item[1].failure == last, -len(item[1].tasks), str(item[0])))
    return tuple(_finished(batch, group) for _, group in order)


def _one(batch: BatchState, view: TaskView, state: TaskState) -> _Group:
    failure = str(view.failure) if view.failure is not None else str(state)
    message = plain(view.reason, MAX_TEXT)
    if state is TaskState.BLOCKED:
        blocking = [host for name in _hosts(batch, view, state) if (host := batch.hosts.get(name)) is not None]
        code, advice = first_problem(blocking[0]) if blocking else ("", "")
        return _Group(failure, None, code, message, advice)
    if state is not view.state:
        return _Group(failure, None, "", _NOWHERE, "")
    if state is TaskState.CANCELLED:
        # What was left of it may have been judged; that it is no result is the operator's doing, and nothing else's.
        return _Group(str(FailureClass.CANCELLED), None, "", "", "")
    reason = top_reason(view.reasons) if state is TaskState.REJECTED else None
    if reason is None:
        return _Group(failure, view.cause, "", message, "")
    return _Group(failure, view.cause, plain(reason.code, 60), plain(reason.message, MAX_TEXT), plain(reason.fix, MAX_TEXT))


def top_reason(reasons: Iterable[Reason]) -> Reason | None:
    """Return the reason that decided: the first reject, else the first warning, else None."""
    ranked = sorted(
        (reason for reason in reasons if reason.severity is not Severity.INFO),
        key=lambda reason: reason.severity is not Severity.REJECT,
    )
    return ranked[0] if ranked else None


def _hosts(batch: BatchState, view: TaskView, state: TaskState) -> tuple[str, ...]:
    if state is not TaskState.BLOCKED:
        return (view.host,) if view.host is not None else ()
    return tuple(name for name in view.task.hosts if name in batch.hosts)


def _finished(batch: BatchState, group: _Group) -> FailureGroup:
    known = _CLASSES.get(group.failure)
    row = FAILURES[known] if known is not None else None
    return FailureGroup(
        failure=group.failure,
        cause=group.cause,
        code=group.code,
        line=row.line if row is not None else "nothing is known of the attempt" if group.failure == "lost" else group.failure,
        message=group.message,
        states={str(state): group.states[str(state)] for state in TaskState if group.states[str(state)]},
        count=len(group.tasks),
        hosts=tuple(group.hosts),
        tasks=tuple(group.tasks[:SAMPLES]),
        retryable=row.retryable if row is not None else True,
        blame=row.blame if row is not None else None,
        fix=_fix(batch, group, row.fix if row is not None else "fleet why TASK"),
        advice=group.advice if group.advice != group.message else "",
    )


def _fix(batch: BatchState, group: _Group, template: str) -> str:
    """Fill a command of the failure table so that it can be typed as it is."""
    if "blocked" in group.states and len(group.hosts) == 1:
        (host,) = group.hosts.values()
        if host is not None and fix_of(batch, host):
            return fix_of(batch, host)
    if "HOST" in template:
        hosts = list(group.hosts)[: 1 if template.startswith("fleet why") else SAMPLES]
        return typed(template.replace("HOST", " ".join(hosts)).strip(), batch)
    if template == "fleet retry TASK" and group.failure in _CLASSES and len(group.tasks) > 1:
        return typed(f"fleet retry --class {group.failure}", batch)
    return typed(template, batch, task=group.tasks[0])


def flags_of(batch: BatchState) -> tuple[Flag, ...]:
    """Return the warnings of tasks with a result that counts, the most frequent first; a task counts once per code."""
    tasks: dict[str, list[str]] = {}
    for label, view in batch.tasks.items():
        if view.state is TaskState.FLAGGED:
            for code in dict.fromkeys(plain(one.code, 60) for one in view.reasons if one.severity is Severity.WARN):
                tasks.setdefault(code, []).append(label)
    if different := list(image_differences(batch)):
        tasks[CODE] = different
    ordered = sorted(tasks.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(Flag(code=code, count=len(labels), task=labels[0]) for code, labels in ordered)
