"""Exit codes: bits that add up, so that a script can tell "wait and run again" from "look at this".

0 is success and 130 an interruption; everything else is a sum of the bits below.
"""

from __future__ import annotations

from enum import IntFlag

INTERRUPTED = 130


class Exit(IntFlag):
    """One bit per kind of trouble; `Exit.FAILED | Exit.INCOMPLETE` is 6."""

    OK = 0
    INPUT = 1
    FAILED = 2
    INCOMPLETE = 4
    HALTED = 8
    SAFETY = 16
    LOCAL = 32
    OWNED = 64


MEANING: dict[Exit, str] = {
    Exit.OK: "all as asked: checks ready, tasks accepted or flagged",
    Exit.INPUT: "usage, configuration or input; nothing was touched",
    Exit.FAILED: "a host is not ready, an archive is missing, a task failed, or a result was rejected (results are kept)",
    Exit.INCOMPLETE: "incomplete or unknown: unreachable, lost or held; safe to run again",
    Exit.HALTED: "halted by a rule (--halt)",
    Exit.SAFETY: "safety: host identity changed or unknown, a tampered transfer, or an open bucket",
    Exit.LOCAL: "this machine's own storage failed",
    Exit.OWNED: "another controller or eval holds it",
}
