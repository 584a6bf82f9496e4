"""minitest and RSpec: verbose lines, numbered failures and the final counts."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_VERBOSE = re.compile(r"([\w:]+#\S.*?) = \d+\.\d+ s = ([.FES])$")
_HEADING = re.compile(r" +\d+\) (Failure|Error|Skipped):$")
_NAMED = re.compile(r"([\w:]+#.+?)(?: \[[^\]]+\])?:$")
_MINITEST = re.compile(r"(\d+) (?:runs|tests), \d+ assertions, (\d+) failures, (\d+) errors, (\d+) skips")
_RSPEC = re.compile(r"(\d+) examples?, (\d+) failures?(?:, (\d+) pending)?$")
_RSPEC_FAILED = re.compile(r"rspec (\S+:\d+|'[^']+') # (\S.*)$")
_WORDS = {
    ".": "PASSED",
    "F": "FAILED",
    "E": "ERROR",
    "S": "SKIPPED",
    "Failure": "FAILED",
    "Error": "ERROR",
    "Skipped": "SKIPPED",
}


def parse_ruby(text: str, known: Collection[str]) -> Session | None:
    """Return what the minitest or RSpec runs in a log say, or None when there is none."""
    del known
    session, seen, heading = Session(), False, ""
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if found := _VERBOSE.match(line):
            _named(session, found.group(1), _WORDS[found.group(2)])
        elif found := _HEADING.match(line):
            heading = found.group(1)
            continue
        elif heading and (found := _NAMED.match(line)):
            _named(session, found.group(1), _WORDS[heading])
        elif found := _MINITEST.match(line):
            run, failed, errors, skipped = (int(part[:9]) for part in found.groups())
            _count(session, run, failed, errors, skipped)
            seen = True
        elif found := _RSPEC.match(line):
            _count(session, int(found.group(1)[:9]), int(found.group(2)[:9]), 0, int((found.group(3) or "0")[:9]))
            seen = True
        elif found := _RSPEC_FAILED.match(line):
            session.note(found.group(2), "FAILED", found.group(1), found.group(1).removeprefix("./"))
        heading = ""
    return session if seen else None


def _named(session: Session, name: str, word: str) -> None:
    owner, _, method = name.partition("#")
    session.note(name, word, f"{owner}::{method}", f"{owner}.{method}")


def _count(session: Session, run: int, failed: int, errors: int, skipped: int) -> None:
    session.counts["failed"] += failed
    session.counts["errors"] += errors
    session.counts["skipped"] += skipped
    session.counts["passed"] += max(0, run - failed - errors - skipped)
    session.ended = True
