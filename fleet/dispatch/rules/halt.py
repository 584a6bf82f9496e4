"""`--halt soon|now,fail=N|N%`: when enough tasks have failed, nothing new is started; `now` also ends what runs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet.dispatch.rules.retries import will_retry
from fleet.dispatch.state.views import BatchState
from fleet.errors import InputError
from fleet.model.states import TERMINAL, TaskState

_RULE = re.compile(r"(soon|now),fail=(\d{1,9})(%?)\Z")
_FAILED = frozenset({TaskState.REJECTED, TaskState.FAILED, TaskState.LOST, TaskState.HELD})
MIN_ENDED = 5
"""A percentage says nothing about the first few results."""


@dataclass(frozen=True)
class HaltRule:
    """Stop starting tasks after `limit` failures, or `limit` percent of the ended ones."""

    limit: int
    percent: bool
    now: bool = False

    def verdict(self, state: BatchState) -> str | None:
        """Return why to halt, or None; a task that its retry policy will try again has not failed yet."""
        ended = [view for view in state.tasks.values() if view.state in TERMINAL and not will_retry(state, view)]
        failed = sum(view.state in _FAILED for view in ended)
        if self.percent:
            if len(ended) >= MIN_ENDED and 100 * failed >= self.limit * len(ended):
                return f"{failed} of {len(ended)} ended tasks failed, the limit is {self.limit} %"
        elif failed >= self.limit:
            return f"{failed} tasks failed, the limit is {self.limit}"
        return None


def halt_rule(text: str) -> HaltRule:
    """Return the rule written in `text`, e.g. `soon,fail=10%`."""
    match = _RULE.match(text)
    if match is None or int(match[2]) == 0 or (match[3] and int(match[2]) > 100):
        raise InputError(f"--halt {text!r} is not a rule", hint="e.g. --halt soon,fail=3 or --halt now,fail=20%")
    return HaltRule(int(match[2]), bool(match[3]), match[1] == "now")
