"""SymPy's own runner, `bin/test -v`: `test_name ok`, `F`, `E`, and `tests finished: 9 passed, 1 failed, in 1.20 seconds`."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_TEST = re.compile(r"(test_\w+) (ok|F|E|f|X|s|w|Timeout)(?: +\[(?:OK|FAIL)\])?$")
_FAILED = re.compile(r"_+ (\S+\.py:\w+) _+$")
_END = re.compile(r"=+ tests finished: (.*?)(?:, in [\d.]+ seconds)? ?=+$")
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|expected to fail but passed|expected to fail|exceptions)")
_WORDS = {
    "ok": "PASSED",
    "F": "FAILED",
    "E": "ERROR",
    "Timeout": "FAILED",
    "f": "XFAIL",
    "X": "XPASS",
    "s": "SKIPPED",
    "w": "SKIPPED",
}
_COUNTS = {"expected to fail but passed": "xpassed", "expected to fail": "xfailed", "exceptions": "errors"}


def parse_sympy(text: str, known: Collection[str]) -> Session | None:
    """Return what the runs of SymPy's runner in a log say, or None when there is none."""
    del known
    session, seen = Session(), False
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if line.startswith("=") and "test process starts" in line:
            seen, session.ended = True, False
        elif seen and (found := _TEST.match(line)):
            session.note(found.group(1), _WORDS[found.group(2)])
        elif seen and (found := _FAILED.match(line)):
            session.note(found.group(1).rpartition(":")[2], "FAILED", found.group(1))
        elif found := _END.match(line):
            seen = session.ended = True
            for number, word in _COUNT.findall(found.group(1)):
                session.counts[_COUNTS.get(word, word)] += int(number[:9])
    return session if seen else None
