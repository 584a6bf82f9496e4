"""One causal sentence about a task or a host, and the next command to type. Pure: from the batch state alone."""

from __future__ import annotations

from typing import NamedTuple

from fleet.dispatch.answers.images import image_differences
from fleet.dispatch.answers.resume import anew_command, resume_command, typed
from fleet.dispatch.rules.faults import bad_ends, is_tasks_fault, said_of
from fleet.dispatch.rules.retries import backoff_s, will_retry
from fleet.dispatch.state.views import UNFIT, AttemptView, BatchState, HostView, TaskView
from fleet.model.failures import FAILURES, FailureClass
from fleet.model.findings import Mark
from fleet.model.states import ON_HOST, SUCCESS, Link, TaskState
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
    orphan = state.hosts[attempt.host].orphan if attempt is not None and attempt.host in state.hosts else ""
    if orphan and view.state not in SUCCESS and attempt is not None:
        return Why(label, f"is {view.state} on {attempt.host}, an orphan: {orphan}", typed("fleet collect", state))
    if view.state in SUCCESS:
        where = f" on {attempt.host}" if attempt is not None else ""
        differs = image_differences(state).get(label, "")
        sentence = f"is {view.state}{where}: {_judgement(view)}" + (f"; {differs}" if differs else "")
        return Why(label, sentence, typed("fleet dashboard", state))
    if view.state in (TaskState.RUNNING, TaskState.LAUNCHING) and attempt is not None:
        return _under_way(state, view, attempt)
    if view.state is TaskState.PENDING:
        return _waiting(state, view)
    if view.state in ON_HOST:
        reason = f": {view.reason}" if view.reason else "; its outputs are still to be collected"
        where = f" on {attempt.host}" if attempt is not None else ""
        return Why(label, f"is {view.state}{where}{reason}", typed("fleet collect", state))
    if view.state is TaskState.BLOCKED:
        return _blocked(state, view)
    return _ended(state, view, attempt)


def why_host(state: BatchState, host: HostView) -> Why:
    """Return why the host is doing what it does."""
    name = host.name
    if host.orphan:
        return Why(name, f"is an orphan: {host.orphan}", typed("fleet collect", state))
    if host.quarantine is not None:
        return _quarantined(state, host)
    if host.link is Link.CHANGED:
        return _changed(state, host)
    if host.link not in (Link.OK, Link.UNTRIED):
        since = f" since {host.link_since}" if host.link_since else ""
        error = host.trouble or (host.report.error if host.report is not None and host.report.error else "")
        fix = f"fleet trust {name}" if host.link in (Link.KEY_CHANGED, Link.KEY_UNKNOWN) else f"fleet check {name}"
        error = error.removeprefix(f"{name}: ")
        return Why(name, f"is {host.link}{since}" + (f": {error}" if error else ""), fix)
    attempt = state.attempts.get(host.attempt or "")
    if host.trouble:
        return Why(name, f"answers, but: {host.trouble}", f"fleet check {name}")
    if attempt is not None:
        stalled = f"; {_standing_still(attempt)}" if attempt.stalled_since else ""
        return Why(name, f"runs {attempt.task}{_since(attempt)}{stalled}", _look(state, attempt))
    if host.state in UNFIT:
        fixes = [one.fix for one in host.report.findings if one.mark is Mark.FAIL and one.fix] if host.report else []
        return Why(name, f"is {host.state}: {host.reason}", fixes[0] if fixes else f"fleet check {name}")
    waiting = [view for view in state.tasks.values() if name in view.task.hosts and view.state is TaskState.PENDING]
    if waiting:
        return Why(name, f"is {host.state} with {len(waiting)} tasks waiting", resume_command(state))
    return Why(name, "has nothing left to do", typed("fleet dashboard", state))


def _quarantined(state: BatchState, host: HostView) -> Why:
    note = host.quarantine
    assert note is not None
    untold = "" if note.told else "; the host has not been told yet"
    busy = state.attempts.get(host.attempt or "")
    running = f"; {busy.task} still runs there" if busy is not None else ""
    since = f" since {note.since}" if note.since else ""
    return Why(host.name, f"is quarantined{since}: {note.reason}{running}{untold}", f"fleet release {host.name}")


def _changed(state: BatchState, host: HostView) -> Why:
    """Say what nobody can know, and who decides: only the right machine can tell how its evals went on."""
    there = [view.task.label for view in state.tasks.values() if view.host == host.name and view.state in ON_HOST]
    since = f" since {host.link_since}" if host.link_since else ""
    sentence = f"is changed{since}: {host.trouble or host.reason or 'another machine answers under this name'}"
    if not there:
        return Why(host.name, f"{sentence}; nothing of the batch is left there", resume_command(state))
    rest = f" and {len(there) - 3} more" if len(there) > 3 else ""
    gone = f"if it is gone for good, a new batch may run that a second time: {anew_command(state, host.name)}"
    fate = f"only the right machine can say what became of {', '.join(there[:3])}{rest}: bring it back; {gone}"
    return Why(host.name, f"{sentence}; {fate}", resume_command(state))


def _under_way(state: BatchState, view: TaskView, attempt: AttemptView) -> Why:
    label, where = view.task.label, f" on {attempt.host}"
    host = state.hosts.get(attempt.host)
    if host is not None and host.link is Link.CHANGED:
        why = _changed(state, host)
        return Why(label, f"was {view.state}{where}, which {why.sentence}", why.next)
    if host is not None and host.link is not Link.OK:
        since = f" since {host.link_since}" if host.link_since else ""
        sentence = f"was {view.state}{where} when the link was lost ({host.link}{since}); the eval itself may go on"
        return Why(label, sentence, resume_command(state))
    ending = (
        "; its end is ordered" if attempt.cancel_ordered else "; nothing ends it by itself" if attempt.stalled_since else ""
    )
    stalled = f", but {_standing_still(attempt)}" if attempt.stalled_since else ""
    return Why(label, f"is {view.state}{where}{_since(attempt)}{stalled}{ending}", _look(state, attempt))


def _standing_still(attempt: AttemptView) -> str:
    since = attempt.stalled_since
    if "cpu_s" in attempt.stalled_unknown:
        return f"is STALLED: its log has not grown since {since}, and the host does not tell whether it computes"
    return f"is STALLED: neither its log nor CPU nor containers moved since {since}"


def _look(state: BatchState, attempt: AttemptView) -> str:
    """Return how to look at what runs; what stands still has said what it will, so the end of its log is enough."""
    return typed(f"fleet logs TASK{'' if attempt.stalled_since else ' -f'}", state, task=attempt.task)


def _waiting(state: BatchState, view: TaskView) -> Why:
    label = view.task.label
    if state.halted:
        return Why(label, f"waits because the batch was halted: {state.halted}", resume_command(state))
    again = ""
    if view.ordered_again and view.by_policy:
        pause = f", at the earliest {backoff_s(view):.0f} s after it ended" if backoff_s(view) else ""
        again = f" for another attempt, which its retry policy allows after {view.by_policy[-1]}{pause}"
    places = ", ".join(view.task.hosts[:3])
    follow = typed("fleet status", state) if state.controller else resume_command(state)
    return Why(label, f"waits for its turn on {places}{again}", follow)


def _blocked(state: BatchState, view: TaskView) -> Why:
    failure = view.failure or FailureClass.HOST_NOT_READY
    held = next((name for name in view.task.hosts if name in state.hosts and not state.hosts[name].fit), view.task.hosts[0])
    host = state.hosts.get(held)
    if host is not None and host.quarantine is not None:
        why = _quarantined(state, host)
        return Why(view.task.label, f"is blocked: {why.subject} {why.sentence}", why.next)
    line = FAILURES[failure].line
    reason = view.reason or line
    sentence = f"is blocked: {reason}" + (f" ({line})" if line != reason else "")
    return Why(view.task.label, sentence, typed(FAILURES[failure].fix, state, task=view.task.label, host=held))


def _ended(state: BatchState, view: TaskView, attempt: AttemptView | None) -> Why:
    label = view.task.label
    host = attempt.host if attempt is not None else view.task.hosts[0]
    where = f" on {attempt.host}" if attempt is not None else ""
    if is_tasks_fault(state, view):
        chain = "; ".join(f"{one.host}: {said_of(one).removeprefix(f'{one.task}: ')}" for one in bad_ends(state, view))
        sentence = f"is {view.state}, and it is the task's fault, because it failed on different hosts ({chain})"
        return Why(label, f"{sentence}; it counts against none of them and is not tried again by itself", _logs(state, label))
    soon = "; its retry policy tries it again" if will_retry(state, view) else ""
    if view.state is TaskState.REJECTED:
        reasons = joined(one.message for one in view.reasons if one.severity is Severity.REJECT) or view.reason
        fix = next((one.fix for one in view.reasons if one.severity is Severity.REJECT and one.fix), "fleet retry TASK")
        blame = f" (cause: {view.cause})" if view.cause else ""
        return Why(label, f"was rejected{where}{blame}: {reasons}{soon}", typed(fix, state, task=label, host=host))
    known = FAILURES.get(view.failure) if view.failure is not None else None
    line = known.line if known is not None else ""
    fix = typed(known.fix, state, task=label, host=host) if known is not None else resume_command(state)
    reason = view.reason or line
    return Why(label, f"is {view.state}{where}: {reason}" + (f" ({line})" if line and line != reason else "") + soon, fix)


def _logs(state: BatchState, label: str) -> str:
    return typed("fleet logs TASK", state, task=label)


def _since(attempt: AttemptView) -> str:
    return f" since {attempt.started_at}" if attempt.started_at else ""


def _judgement(view: TaskView) -> str:
    resolved = None if view.facts is None else view.facts.resolved
    result = {True: "resolved", False: "not resolved, which is a valid result", None: "judged"}[resolved]
    warnings = joined(one.message for one in view.reasons if one.severity is Severity.WARN)
    return result + (f"; {warnings}" if warnings else "")
