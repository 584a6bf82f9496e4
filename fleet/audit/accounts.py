"""Every assigned task in exactly one bucket: by the verdict on what is here, else by what the journal says. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from fleet.audit.document import Accounts
from fleet.dispatch.state.views import BatchState, TaskView
from fleet.model.names import plain
from fleet.model.states import SUCCESS, TaskState
from fleet.model.verdict import Verdict

_JUDGED = SUCCESS | {TaskState.REJECTED}


def accounts(state: BatchState, verdicts: Mapping[str, Verdict]) -> Accounts:
    """Return where the tasks of a batch are; `verdicts` are those of now, by the result's path below the batch directory."""
    buckets: Counter[str] = Counter()
    uncollected = []
    used: set[str] = set()
    for label, view in state.tasks.items():
        path = view.path or _path(state, view)
        verdict = verdicts.get(path or "")
        used.update(one.path for name in view.attempts if (one := state.attempts.get(name)) is not None and one.path)
        if path is not None:
            used.add(path)
        if verdict is not None and view.state in _JUDGED:
            buckets[str(verdict.verdict)] += 1
        elif view.state in _JUDGED:
            buckets["missing here"] += 1
            uncollected.append(plain(label, 200))
        else:
            buckets[str(view.state)] += 1
    return Accounts(
        batch=plain(state.batch, 200),
        assigned=len(state.tasks),
        buckets=dict(buckets.most_common()),
        uncollected=tuple(uncollected),
        strangers=tuple(plain(path, 300) for path in verdicts if path not in used),
    )


def _path(state: BatchState, view: TaskView) -> str | None:
    attempt = state.attempts.get(view.attempt or "")
    return attempt.path if attempt is not None else None
