"""mocha and node's own runner, reporter `spec`: a tree of marked titles, then how many passed, failed and are pending."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session
from fleet.quality.logs.tree import Tree, spellings

_MARKED = re.compile(r"( *)(✓|✔|√|✖|﹣|\d+\)|-) (\S.*)$")
_GROUP = re.compile(r"( *)(?:▶ )?(\S.*)$")
_PASSING = re.compile(r" *(\d+) passing\b(?: \(.*\))?$")
_FAILING = re.compile(r" *(\d+) failing$")
_NODE = re.compile(r"ℹ (tests|pass|fail|skipped) (\d+)$")
_WORDS = {"✓": "PASSED", "✔": "PASSED", "√": "PASSED", "✖": "FAILED", "﹣": "SKIPPED", "-": "SKIPPED"}
_NODE_COUNTS = {"pass": "passed", "fail": "failed", "skipped": "skipped"}
_SKIP_NOTE = re.compile(r" # (?:skip|todo)\b.*$", re.IGNORECASE)


def parse_mocha(text: str, known: Collection[str]) -> Session | None:
    """Return what the mocha or `node --test` runs in a log say, or None when there is none."""
    del known
    session, tree = Session(), Tree()
    marked: list[tuple[tuple[str, ...], str]] = []
    suites: set[tuple[str, ...]] = set()
    seen = reported = False
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if found := _PASSING.match(line):
            session.counts["passed"] += int(found.group(1)[:9])
            seen = reported = session.ended = True
        elif found := _FAILING.match(line):
            session.counts["failed"] += int(found.group(1)[:9])
        elif found := _NODE.match(line):
            seen = reported = session.ended = True
            if found.group(1) in _NODE_COUNTS:
                session.counts[_NODE_COUNTS[found.group(1)]] += int(found.group(2)[:9])
        elif reported:
            # What failed is told again below the counts, in another shape.
            continue
        elif found := _MARKED.match(line):
            chain = tree.chain(len(found.group(1)), _SKIP_NOTE.sub("", found.group(3)))
            marked.append((chain, _WORDS.get(found.group(2), "FAILED")))
        elif line and (found := _GROUP.match(line)):
            if "▶ " in line:
                suites.add(tree.chain(len(found.group(1)), found.group(2)))
            if "▶ " in line or found.group(1):
                tree.group(len(found.group(1)), found.group(2))
            else:
                # mocha indents all of its tree; what starts at the edge is somebody else's output.
                tree.clear()
    if not seen:
        return None
    for chain, word in marked:
        # node closes a suite with a mark of its own, which is not a test.
        if chain not in suites:
            session.note(" > ".join(chain), word, *spellings(chain))
    return session
