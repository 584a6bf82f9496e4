"""The states of a task, of the link to a host, and of an attempt on its host.

    pending → checking → staged → launching → running → finished → collecting → collected → accepted
                            │          │          │          │            │            ├→ flagged
                            ▼          ▼          ▼          ▼            ▼            └→ rejected
                         blocked    failed    cancelled   (stays)    lost(reboot, killed)

`link` and `state` are two things: losing SSH is not losing the job. Only evidence from the host moves `state`; a terminal
state is never overwritten (a retry is a new attempt beside the old one).
"""

from __future__ import annotations

from enum import StrEnum


class TaskState(StrEnum):
    """Where a task is; the members below the line are terminal for the current attempt."""

    PENDING = "pending"
    BLOCKED = "blocked"
    LAUNCHING = "launching"
    RUNNING = "running"
    FINISHED = "finished"
    COLLECTING = "collecting"
    COLLECTED = "collected"
    # --- terminal ---
    ACCEPTED = "accepted"
    FLAGGED = "flagged"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    HELD = "held"
    """Ended, and something of it lives on; the one end that moves, to the verdict, once that is gone."""


TERMINAL = frozenset(
    {
        TaskState.ACCEPTED,
        TaskState.FLAGGED,
        TaskState.REJECTED,
        TaskState.FAILED,
        TaskState.CANCELLED,
        TaskState.LOST,
        TaskState.HELD,
    }
)
SUCCESS = frozenset({TaskState.ACCEPTED, TaskState.FLAGGED})
RETRYABLE = TERMINAL - SUCCESS
"""What ended without a result that counts: the operator may order a new attempt."""
UNDER_WAY = frozenset({TaskState.LAUNCHING, TaskState.RUNNING})
"""States in which the eval of an attempt runs, or may run or begin."""
ON_HOST = frozenset({TaskState.LAUNCHING, TaskState.RUNNING, TaskState.FINISHED, TaskState.COLLECTING, TaskState.COLLECTED})
"""States in which an attempt of the task exists, or may exist, on its host."""


class AttemptState(StrEnum):
    """What the host derives from the files of an attempt; never stored (docs/design.md)."""

    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    LOST = "lost"
    HELD = "held"


class Link(StrEnum):
    """What is known of the way to a host."""

    UNTRIED = "untried"
    OK = "ok"
    UNREACHABLE = "unreachable"
    AUTH_FAILED = "auth-failed"
    KEY_CHANGED = "host-key-changed"
    KEY_UNKNOWN = "host-key-unknown"
    CHANGED = "changed"
    """The pinned key answers, from a machine with another identity in its `~/.fleet`."""


NOT_PROVEN = frozenset({Link.KEY_CHANGED, Link.KEY_UNKNOWN, Link.CHANGED})
"""Something answers, and it is not known to be the host: nothing is asked of it."""


class HostState(StrEnum):
    """Whether a host may take the next task."""

    UNCHECKED = "unchecked"
    READY = "ready"
    BLOCKED = "blocked"
    BUSY = "busy"
    HELD = "held"
    """Something of an ended attempt is left there."""
