"""GoogleTest: `[       OK ] Suite.Name (0 ms)`, `[  FAILED  ] Suite.Name (0 ms)`, and how many tests ran."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_TEST = re.compile(r"(?:\d+: )?\[ +(OK|FAILED|SKIPPED) +\] (\S+?)(?:, where .*)? \(\d+ ms\)$")
_END = re.compile(r"(?:\d+: )?\[=+\] (\d+) tests? from \d+ test (?:suites?|cases?) ran\.")
_PASSED = re.compile(r"(?:\d+: )?\[ +PASSED +\] (\d+) tests?\.")
_FAILED = re.compile(r"(?:\d+: )?\[ +FAILED +\] (\d+) tests?, listed below:")
_WORDS = {"OK": "PASSED", "FAILED": "FAILED", "SKIPPED": "SKIPPED"}


def parse_gtest(text: str, known: Collection[str]) -> Session | None:
    """Return what the GoogleTest runs in a log say, or None when there is none."""
    del known
    session, seen = Session(), False
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if found := _TEST.match(line):
            session.note(found.group(2), _WORDS[found.group(1)])
            seen, session.ended = True, False
        elif _END.match(line):
            seen = session.ended = True
        elif found := _PASSED.match(line):
            session.counts["passed"] += int(found.group(1)[:9])
        elif found := _FAILED.match(line):
            session.counts["failed"] += int(found.group(1)[:9])
    return session if seen else None
