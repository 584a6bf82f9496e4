"""Why an attempt did not become an accepted result: a closed list, each with who is to blame and what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from fleet.model.verdict import Cause


class Blame(StrEnum):
    """Whose fault a failure is."""

    HOST = "host"
    TASK = "task"
    MODEL = "model"
    PROVIDER = "provider"
    OPERATOR = "operator"
    UNKNOWN = "unknown"


class FailureClass(StrEnum):
    """The closed list of failure classes; `fleet retry --class NAME` takes these names."""

    HOST_NOT_READY = "host-not-ready"
    HOST_BUSY = "host-busy"
    HOST_IDENTITY = "host-identity"
    HOST_CHANGED = "host-changed"
    HOST_QUARANTINED = "host-quarantined"
    UNREACHABLE = "unreachable"
    LAUNCH_REFUSED = "launch-refused"
    DUPLICATE = "duplicate"
    LOST_REBOOT = "lost-reboot"
    LOST_KILLED = "lost-killed"
    HELD = "held"
    UNCERTAIN = "uncertain"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    COLLECT_FAILED = "collect-failed"
    OUTPUTS_CHANGED = "outputs-changed"
    TRANSFER_TAMPERED = "transfer-tampered"
    OUTPUT_REJECTED = "output-rejected"
    ENVIRONMENT = "environment"
    PROVIDER = "provider"
    HARNESS = "harness"


class Failure(NamedTuple):
    """One row of the table: who is to blame, whether a new attempt can help, one line for people."""

    blame: Blame
    retryable: bool
    line: str
    fix: str


# One row per class reads as a table; the formatter would make it eighty lines.
# fmt: off
FAILURES: dict[FailureClass, Failure] = {
    FailureClass.HOST_NOT_READY: Failure(Blame.HOST, True, "the host failed a readiness check", "fleet check HOST"),
    FailureClass.HOST_BUSY: Failure(Blame.HOST, True, "an eval is already running on the host", "fleet status"),
    FailureClass.HOST_IDENTITY: Failure(Blame.HOST, False, "the host's key is unknown or has changed", "fleet trust HOST"),
    FailureClass.HOST_CHANGED: Failure(
        Blame.HOST, False, "another machine answers under the host's name with its key", "fleet why HOST"
    ),
    FailureClass.HOST_QUARANTINED: Failure(
        Blame.HOST, True, "the host is in quarantine: several tasks in a row ended badly there", "fleet why HOST"
    ),
    FailureClass.UNREACHABLE: Failure(Blame.HOST, True, "no SSH connection to the host", "fleet check HOST"),
    FailureClass.LAUNCH_REFUSED: Failure(Blame.OPERATOR, False, "the host agent refused the launch", "fleet why TASK"),
    FailureClass.DUPLICATE: Failure(Blame.OPERATOR, False, "the host already has an attempt of this task", "fleet collect"),
    FailureClass.LOST_REBOOT: Failure(Blame.HOST, True, "the host rebooted during the eval", "fleet retry TASK"),
    FailureClass.LOST_KILLED: Failure(Blame.UNKNOWN, True, "the eval and its supervisor were killed", "fleet retry TASK"),
    FailureClass.HELD: Failure(
        Blame.HOST, False, "something of the ended attempt still lives", "fleet cancel TASK"
    ),
    FailureClass.UNCERTAIN: Failure(
        Blame.UNKNOWN, False, "the journal was lost, and a host that may have run it gave no answer", "fleet recover BATCH"
    ),
    FailureClass.TIMEOUT: Failure(Blame.TASK, True, "the eval ran into its timeout", "fleet logs TASK"),
    FailureClass.CANCELLED: Failure(Blame.OPERATOR, True, "cancelled by the operator", "fleet retry TASK"),
    FailureClass.COLLECT_FAILED: Failure(
        Blame.HOST, True, "the outputs are still on the host", "fleet collect"
    ),
    FailureClass.OUTPUTS_CHANGED: Failure(
        Blame.HOST, True, "outputs on the host were changed or removed after it had sealed them", "fleet retry TASK"
    ),
    FailureClass.TRANSFER_TAMPERED: Failure(
        Blame.HOST, False, "the host sent something else than it had sealed; nothing of it was kept", "fleet check HOST"
    ),
    FailureClass.OUTPUT_REJECTED: Failure(Blame.UNKNOWN, True, "the result failed validation", "fleet why TASK"),
    FailureClass.ENVIRONMENT: Failure(Blame.HOST, True, "the environment was broken while the tests ran", "fleet check HOST"),
    FailureClass.PROVIDER: Failure(Blame.PROVIDER, True, "the model's provider failed", "fleet retry TASK"),
    FailureClass.HARNESS: Failure(Blame.OPERATOR, True, "the harness failed", "fleet logs TASK"),
}
# fmt: on

LOST = frozenset({FailureClass.LOST_REBOOT, FailureClass.LOST_KILLED})
NOT_BROUGHT = frozenset({FailureClass.COLLECT_FAILED, FailureClass.OUTPUTS_CHANGED, FailureClass.TRANSFER_TAMPERED})
"""The attempt has ended, and a verified copy of its outputs could not be had; the host keeps what it has."""
_MAY_BE_THE_HOST = (
    LOST
    | {
        FailureClass.HELD,
        FailureClass.ENVIRONMENT,
        FailureClass.HARNESS,
        FailureClass.HOST_IDENTITY,
    }
    | NOT_BROUGHT
)


def host_suspected(failure: FailureClass, cause: Cause | None = None) -> bool:
    """Tell whether the host may be at fault for a bad end; a rejection whose cause is known is judged by that cause."""
    return failure in _MAY_BE_THE_HOST or (failure is FailureClass.OUTPUT_REJECTED and cause is None)


SHORT_LOST = "lost"
"""Short form of both lost classes where a retry policy names them; their attempts are counted together."""
RETRIED_BY_POLICY = LOST | {
    FailureClass.TIMEOUT,
    FailureClass.OUTPUT_REJECTED,
    FailureClass.ENVIRONMENT,
    FailureClass.PROVIDER,
    FailureClass.HARNESS,
}
"""Classes that an operator may have retried without being asked again: the attempt is over, and its outputs can be here."""
POLICY_WORDS = (SHORT_LOST, *sorted(str(one) for one in RETRIED_BY_POLICY))
MAX_POLICY = 100


def policy_problem(word: str, count: object) -> str:
    """Return what is wrong with one entry of a retry policy; empty when nothing is."""
    if word not in POLICY_WORDS:
        return f"{word[:60]!r} is not a class that can be retried by itself; there is {', '.join(POLICY_WORDS)}"
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MAX_POLICY:
        return f"{word}: {str(count)[:60]!r} is not a number from 0 to {MAX_POLICY}"
    return ""
