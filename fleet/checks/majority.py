"""What the majority of the hosts has, for files that nobody else vouches for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from fleet.checks.base import UNKNOWN, Authority, Expectation
from fleet.checks.critical import short
from fleet.checks.facts import FileFacts

MAX_NAMES = 4


def vote(files: Mapping[str, FileFacts]) -> Expectation:
    """Return what one file should be, from host name → what that host has.

    Only more than half of the hosts that have the file decide; a plurality or a tie does not tell right from wrong, and one
    host alone proves nothing.
    """
    ballots = _count(files)
    voters = sum(len(hosts) for hosts in ballots.values())
    if voters < 2:
        return UNKNOWN
    digest, hosts = max(ballots.items(), key=lambda item: len(item[1]))
    if 2 * len(hosts) > voters:
        return Expectation(Authority.MAJORITY, f"{len(hosts)} of {voters} hosts", sha256=digest)
    parties = "; ".join(
        f"{_names(names)}: {short(digest)}" for digest, names in sorted(ballots.items(), key=lambda item: item[1])
    )
    return Expectation(Authority.NOBODY, f"the hosts disagree and no majority tells which is right ({parties})")


def is_decided(files: Mapping[str, FileFacts], outstanding: int) -> bool:
    """Tell whether so many further votes, all for something else, would leave the majority what it is."""
    counts = [len(hosts) for hosts in _count(files).values()]
    return max(counts, default=0) > 1 and 2 * max(counts) > sum(counts) + outstanding


def _count(files: Mapping[str, FileFacts]) -> dict[str, list[str]]:
    ballots: dict[str, list[str]] = defaultdict(list)
    for host, file in files.items():
        if file.exists and file.sha256:
            ballots[file.sha256].append(host)
    return ballots


def _names(hosts: list[str]) -> str:
    return ", ".join(hosts[:MAX_NAMES]) + (f" and {len(hosts) - MAX_NAMES} more" if len(hosts) > MAX_NAMES else "")
