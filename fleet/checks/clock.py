"""A clock that is off makes file ages, log times and expiring credentials wrong."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, duration, fail, ok, unanswered, warn

FACTOR = 10
"""A skew over the limit is a warning (fleet itself uses no host clock); ten times over, signed requests to S3 fail too."""


def skew(subject: Subject) -> float | None:
    """Return by how many seconds the host's clock is ahead, as far as the round trip allows to say.

    The host read its clock somewhere between question and answer; inside that window no skew can be shown.
    """
    host_time = subject.facts.time
    if host_time is None:
        return None
    earliest = subject.answered_at - subject.seconds
    if host_time < earliest:
        return host_time - earliest
    return max(0.0, host_time - subject.answered_at)


def judge(subject: Subject) -> Iterable[Said]:
    """Compare the host's clock with ours."""
    off = skew(subject)
    if off is None:
        yield unanswered("the clock")
        return
    limit = subject.pipeline.readiness.max_clock_skew_s
    if abs(off) <= limit:
        yield ok(f"clock within {max(1.0, abs(off)):.0f} s")
        return
    message = f"clock is {duration(abs(off))} {'ahead' if off > 0 else 'behind'} of this machine's ({limit:.0f} s allowed)"
    fix = f"on {subject.host.name}: sudo timedatectl set-ntp true (or: sudo chronyc makestep)"
    yield (fail if abs(off) > limit * FACTOR else warn)(message, fix)


CHECK = Check("clock", "setup", "the clock agrees with this machine's", judge)
