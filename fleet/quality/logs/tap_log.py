"""TAP, the Test Anything Protocol: `ok 1 - title`, `not ok 2 - title`, `# SKIP`, nested by four spaces, plans `1..N`."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session
from fleet.quality.logs.tree import spellings

_POINT = re.compile(r"( *)(not )?ok\b(?: (\d+))?(?: - | )?(.*)$")
_SUBTEST = re.compile(r"( *)# Subtest: (.*)$")
_PLAN = re.compile(r"( *)1\.\.(\d+)(?: #.*)?$")
_DIRECTIVE = re.compile(r" # (skip|todo|time=)\b.*$", re.IGNORECASE)
_SPACES = 4


def parse_tap(text: str, known: Collection[str]) -> Session | None:
    """Return what the TAP streams in a log say, or None when there is none: a stream has a version or a plan."""
    del known
    session = Session(complete=True)
    titles: dict[int, str] = {}
    deepest_after: dict[int, bool] = {}
    points = planned = 0
    seen = False
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if found := _SUBTEST.match(line):
            titles[len(found.group(1)) // _SPACES] = found.group(2)
        elif found := _POINT.match(line):
            level = len(found.group(1)) // _SPACES
            directive = _DIRECTIVE.search(found.group(4))
            title = _DIRECTIVE.sub("", found.group(4))
            word = "SKIPPED" if directive and directive.group(1).upper() == "SKIP" else "FAILED" if found.group(2) else "PASSED"
            points += level == 0
            # The point of a suite sums up those nested before it, and is not a test.
            if title and not deepest_after.pop(level + 1, False):
                chain = (*(titles[upper] for upper in range(level) if upper in titles), title)
                session.note(" > ".join(chain), word, *spellings(chain))
                session.counts[{"PASSED": "passed", "FAILED": "failed"}.get(word, "skipped")] += 1
            deepest_after[level] = True
        elif line.startswith("TAP version "):
            seen = True
        elif (found := _PLAN.match(line)) and not found.group(1):
            planned += int(found.group(2)[:9])
            seen = True
    session.ended = seen and planned > 0 and points >= planned
    return session if seen and (points or planned) else None
