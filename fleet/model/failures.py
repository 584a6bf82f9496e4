"""Why an attempt did not become an accepted result: a closed list, each with who is to blame and what to do."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


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
    UNREACHABLE = "unreachable"
    LAUNCH_REFUSED = "launch-refused"
    DUPLICATE = "duplicate"
    LOST_REBOOT = "lost-reboot"
    LOST_KILLED = "lost-killed"
    HELD = "held"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    COLLECT_FAILED = "collect-failed"
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
    FailureClass.UNREACHABLE: Failure(Blame.HOST, True, "no SSH connection to the host", "fleet check HOST"),
    FailureClass.LAUNCH_REFUSED: Failure(Blame.OPERATOR, False, "the host agent refused the launch", "fleet why TASK"),
    FailureClass.DUPLICATE: Failure(Blame.OPERATOR, False, "the host already has an attempt of this task", "fleet collect"),
    FailureClass.LOST_REBOOT: Failure(Blame.HOST, True, "the host rebooted during the eval", "fleet retry TASK"),
    FailureClass.LOST_KILLED: Failure(Blame.UNKNOWN, True, "the eval and its supervisor were killed", "fleet retry TASK"),
    FailureClass.HELD: Failure(
        Blame.HOST, False, "something of the ended attempt still lives", "fleet cancel TASK"
    ),
    FailureClass.TIMEOUT: Failure(Blame.TASK, True, "the eval ran into its timeout", "fleet logs TASK"),
    FailureClass.CANCELLED: Failure(Blame.OPERATOR, True, "cancelled by the operator", "fleet retry TASK"),
    FailureClass.COLLECT_FAILED: Failure(
        Blame.HOST, True, "the outputs are still on the host", "fleet collect"
    ),
    FailureClass.OUTPUT_REJECTED: Failure(Blame.UNKNOWN, True, "the result failed validation", "fleet why TASK"),
    FailureClass.ENVIRONMENT: Failure(Blame.HOST, True, "the environment was broken while the tests ran", "fleet check HOST"),
    FailureClass.PROVIDER: Failure(Blame.PROVIDER, True, "the model's provider failed", "fleet retry TASK"),
    FailureClass.HARNESS: Failure(Blame.OPERATOR, True, "the harness failed", "fleet logs TASK"),
}
# fmt: on
