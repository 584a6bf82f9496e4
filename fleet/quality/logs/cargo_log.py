"""`cargo test` and `cargo nextest`: sections from `running N tests` to `test result:`, builds that failed."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_RUNNING = re.compile(r"running (\d+) tests?$")
_TEST = re.compile(r"test (.+?) \.\.\. (ok|FAILED|ignored)\b")
_RESULT = re.compile(r"test result: (?:ok|FAILED)\. (\d+) passed; (\d+) failed; (\d+) ignored;")
_BROKEN = re.compile(r"error: could not compile `([^`]+)`")
_KIND = re.compile(r" - (?:should panic|compile fail|compile)$| \(line \d+\)$")
_NEXTEST = re.compile(r"\s+(PASS|FAIL|SKIP|TIMEOUT|ABORT|SIG\w+) \[ *[\d.]*s?\] (?:\( *\d+/\d+\) )?(\S+) (\S.*)$")
_NEXTEST_END = re.compile(r"\s+Summary \[ *[\d.]+s\] +\d+ tests? run: (\d+) passed(?: \([^)]*\))?(?:, (\d+) failed)?")
_WORDS = {"ok": "PASSED", "FAILED": "FAILED", "ignored": "SKIPPED"}


def parse_cargo(text: str, known: Collection[str]) -> Session | None:
    """Return what the Rust test runs in a log say, or None when there is none."""
    del known
    session, seen, inside = Session(complete=True), False, False
    expected = listed = 0
    for raw in text.split("\n"):
        line = raw.rstrip("\r")
        if found := _RUNNING.match(line):
            expected, listed, inside, seen = int(found.group(1)[:9]), 0, True, True
            session.ended = False
        elif found := _RESULT.match(line):
            if inside:
                session.complete = bool(session.complete) and listed >= expected
            inside, session.ended, seen = False, True, True
            session.counts["passed"] += int(found.group(1)[:9])
            session.counts["failed"] += int(found.group(2)[:9])
        elif line == "failures:":
            # What failed tests printed follows, and may look like results.
            session.complete = bool(session.complete) and (not inside or listed >= expected)
            inside = False
        elif inside and (found := _TEST.match(line)):
            listed += 1
            session.note(found.group(1), _WORDS[found.group(2)], _KIND.sub("", found.group(1)))
        elif found := _BROKEN.match(line):
            session.broken_files.add(found.group(1))
            seen = session.ended = True
        elif found := _NEXTEST.match(line):
            word, binary, test = found.groups()
            outcome = {"PASS": "PASSED", "SKIP": "SKIPPED"}.get(word, "FAILED")
            session.note(test, outcome, f"{binary} {test}", f"{binary}::{test}")
            seen = True
        elif found := _NEXTEST_END.match(line):
            session.ended = seen = True
            session.counts["passed"] += int(found.group(1)[:9])
            session.counts["failed"] += int((found.group(2) or "0")[:9])
    return session if seen else None
