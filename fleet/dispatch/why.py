"""One causal sentence about a task or a host, and the next command to type. Pure: from the batch state alone."""

from __future__ import annotations

from typing import NamedTuple

from fleet.dispatch.images import image_differences
from fleet.dispatch.resume import resume_command
from fleet.dispatch.views import AttemptView, BatchState, HostView, TaskView
from fleet.dispatch.waiting import UNFIT
from fleet.model.failures import FAILURES
from fleet.model.findings import Mark
from fleet.model.states import ON_HOST, Link, TaskState
from fleet.model.verdict import Severity, joined


class Why(NamedTuple):
    """The answer of `fleet why`."""

    subject: str
    sentence: str
    next: str


def why_task(state: BatchState, view: TaskView) -> Why:
    """Return why the task is where it is."""
    label = view.task.label
    attempt = state.attempts.get(view.attempt or "")
    where = f" on {attempt.host}" if attempt is not None else ""
    resume = resume_command(state)
    if view.state in (TaskState.ACCEPTED, TaskState.FLAGGED):
        differs = image_differences(state).get(label, "")
        sentence = f"is {view.state}{where}: {_judgement(view)}" + (f"; {differs}" if differs else "")
        return Why(label, sentence, f"fleet dashboard {state.batch}")
    if view.state is TaskState.REJECTED:
        reasons = joined(one.message for one in view.reasons if one.severity is Severity.REJECT) or view.reason
        fix = next((one.fix for one in view.reasons if one.severity is Severity.REJECT and one.fix), "")
        blame = f" (cause: {view.cause})" if view.cause else ""
        return Why(label, f"was rejected{where}{blame}: {reasons}", fix or f"fleet retry {label}")
    if view.state in (TaskState.RUNNING, TaskState.LAUNCHING) and attempt is not None:
        host = state.hosts.get(attempt.host)
        if host is not None and host.link is not Link.OK:
            since = f" since {host.link_since}" if host.link_since else ""
            sentence = f"was {view.state}{where} when the link was lost ({host.link}{since}); the eval itself may go on"
            return Why(label, sentence, resume)
        return Why(label, f"is {view.state}{where}{_since(attempt)}", f"fleet logs {label} -f")
    if view.state is TaskState.PENDING:
        if state.halted:
            return Why(label, f"waits because the batch was halted: {state.halted}", resume)
        places = ", ".join(view.task.hosts[:3])
        return Why(label, f"waits for its turn on {places}", f"fleet status {state.batch}" if state.controller else resume)
    if view.state in ON_HOST:
        reason = f": {view.reason}" if view.reason else "; its outputs are still to be collected"
        return Why(label, f"is {view.state}{where}{reason}", f"fleet collect {state.batch}")
    fix = FAILURES[view.failure].fix if view.failure is not None else resume
    host_name = attempt.host if attempt is not None else view.task.hosts[0]
    fix = fix.replace("TASK", label).replace("HOST", host_name)
    line = FAILURES[view.failure].line if view.failure is not None else ""
    reason = view.reason or line
    return Why(label, f"is {view.state}{where}: {reason}" + (f" ({line})" if line and line != reason else ""), fix)


def why_host(state: BatchState, host: HostView) -> Why:
    """Return why the host is doing what it does."""
    if host.link not in (Link.OK, Link.UNTRIED):
        since = f" since {host.link_since}" if host.link_since else ""
        error = host.trouble or (host.report.error if host.report is not None and host.report.error else "")
        fix = f"fleet trust {host.name}" if host.link in (Link.KEY_CHANGED, Link.KEY_UNKNOWN) else f"fleet check {host.name}"
        return Why(host.name, f"is {host.link}{since}" + (f": {error}" if error else ""), fix)
    attempt = state.attempts.get(host.attempt or "")
    if host.trouble:
        return Why(host.name, f"answers, but: {host.trouble}", f"fleet check {host.name}")
    if attempt is not None:
        return Why(host.name, f"runs {attempt.task}{_since(attempt)}", f"fleet logs {attempt.task} -f")
    if host.state in UNFIT:
        fixes = [one.fix for one in host.report.findings if one.mark is Mark.FAIL and one.fix] if host.report else []
        return Why(host.name, f"is {host.state}: {host.reason}", fixes[0] if fixes else f"fleet check {host.name}")
    waiting = [view for view in state.tasks.values() if host.name in view.task.hosts and view.state is TaskState.PENDING]
    if waiting:
        return Why(host.name, f"is {host.state} with {len(waiting)} tasks waiting", resume_command(state))
    return Why(host.name, "has nothing left to do", f"fleet dashboard {state.batch}")


def _since(attempt: AttemptView) -> str:
    return f" since {attempt.started_at}" if attempt.started_at else ""


def _judgement(view: TaskView) -> str:
    resolved = None if view.facts is None else view.facts.resolved
    result = {True: "resolved", False: "not resolved, which is a valid result", None: "judged"}[resolved]
    warnings = joined(one.message for one in view.reasons if one.severity is Severity.WARN)
    return result + (f"; {warnings}" if warnings else "")
