"""A mutable copy of a state while records are reduced into it, and the few moves that all reducers are made of."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet.dispatch.state.views import AttemptView, BatchState
from fleet.dispatch.state.waiting import settle
from fleet.model.failures import FailureClass, host_suspected
from fleet.model.states import TERMINAL, UNDER_WAY, TaskState
from fleet.model.verdict import Cause

MAX_ROW = 20
_FIELDS = (
    "batch", "assignment_sha256", "assignment_file", "controller",
    "halted", "halted_now", "scope", "opened_at", "last_record_at", "archives", "clock_set",
)  # fmt: skip


class Draft:
    """Tasks, hosts and attempts as plain dicts, and `fields` for the rest."""

    def __init__(self, state: BatchState) -> None:
        self.fields: dict[str, Any] = {name: getattr(state, name) for name in _FIELDS}
        self.tasks = dict(state.tasks)
        self.hosts = dict(state.hosts)
        self.attempts = dict(state.attempts)

    def freeze(self) -> BatchState:
        """Return what the draft has become."""
        return BatchState(**self.fields, tasks=self.tasks, hosts=self.hosts, attempts=self.attempts)

    def settle_waiting(self) -> None:
        """Block and unblock waiting tasks as their hosts are now."""
        settle(self.tasks, self.hosts)

    def set_attempt(self, attempt: str, **changes: Any) -> AttemptView | None:
        """Change an attempt and return it; None when it is not known."""
        known = self.attempts.get(attempt)
        if known is None:
            return None
        self.attempts[attempt] = replace(known, **changes)
        return self.attempts[attempt]

    def set_host(self, name: str, *, only_if: str | None = None, **changes: Any) -> None:
        """Change a host, with `only_if` as long as it has that attempt."""
        host = self.hosts.get(name)
        if host is not None and (only_if is None or host.attempt == only_if):
            self.hosts[name] = replace(host, **changes)

    def occupy(self, name: str, attempt: str) -> None:
        """Give a host an attempt; one that is under way there comes back when this one leaves."""
        host = self.hosts.get(name)
        if host is not None:
            kept = host.attempt if self._under_way(host.attempt) else host.displaced
            self.set_host(name, attempt=attempt, displaced=kept)

    def leave(self, attempt: AttemptView) -> None:
        """Free the attempt's host of it."""
        host = self.hosts.get(attempt.host)
        if host is None:
            return
        back = host.displaced if self._under_way(host.displaced) else None
        self.set_host(attempt.host, only_if=attempt.attempt, attempt=back, displaced=None)

    def _under_way(self, attempt: str | None) -> bool:
        known = self.attempts.get(attempt or "")
        view = None if known is None else self.tasks[known.task]
        return view is not None and view.attempt == attempt and view.state in UNDER_WAY

    def move(self, attempt: AttemptView, state: TaskState, **changes: Any) -> None:
        """Move the attempt's task, unless it has ended or has gone on to another attempt."""
        view = self.tasks[attempt.task]
        if view.attempt == attempt.attempt and view.state not in TERMINAL:
            self.tasks[attempt.task] = replace(view, state=state, **changes)

    def end(self, attempt: AttemptView, state: TaskState, failure: FailureClass, reason: str) -> None:
        """End the attempt's task without a result."""
        if self.tasks[attempt.task].state not in TERMINAL:
            self.note_bad_end(attempt, failure, reason)
        self.move(attempt, state, failure=failure, reason=reason)
        self.leave(attempt)

    def note_bad_end(self, attempt: AttemptView, failure: FailureClass, reason: str, cause: Cause | None = None) -> None:
        """Lengthen the row of the attempt's host, when that may be at fault."""
        if not host_suspected(failure, cause) or self.tasks[attempt.task].attempt != attempt.attempt:
            return
        if attempt.epoch is None:
            # Adopted by hand: fleet ran nothing there, so it says nothing about the host of today.
            return
        self.set_attempt(attempt.attempt, suspected=failure, ended_with=reason)
        host = self.hosts.get(attempt.host)
        if host is not None:
            row = [one for one in host.row if one != attempt.attempt]
            self.set_host(attempt.host, row=(*row, attempt.attempt)[-MAX_ROW:])

    def forget_bad_end(self, attempt: AttemptView) -> None:
        """Take a bad end back that was none after all."""
        self.set_attempt(attempt.attempt, suspected=None, ended_with="")
        host = self.hosts.get(attempt.host)
        if host is not None:
            self.set_host(attempt.host, row=tuple(one for one in host.row if one != attempt.attempt))

    def note_good_end(self, attempt: AttemptView) -> None:
        """End the row of the attempt's host: it can bring an eval to its end."""
        self.set_attempt(attempt.attempt, suspected=None, ended_with="")
        self.set_host(attempt.host, row=())
