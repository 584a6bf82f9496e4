"""PHPUnit: the numbered failures and the final counts; with `--testdox` also the titles of what passed."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_SECTION = re.compile(r"There (?:was|were) \d+ (error|failure|skipped test|incomplete test|risky test|warning)s?:$")
_NUMBERED = re.compile(r"\d+\) ([\w\\]+::\w+(?: with data set (?:#\d+|\".*?\"))?)")
_OK = re.compile(r"OK \((\d+) tests?, \d+ assertions?\)$")
_FINAL = re.compile(r"Tests: (\d+), Assertions: \d+((?:, [A-Z][A-Za-z ]+: \d+)*)\.$")
_PART = re.compile(r", ([A-Z][A-Za-z ]+): (\d+)")
_SUITE = re.compile(r"(.*?) ?\(([\w\\]+)\)$")
_DOX = re.compile(r" (✔|✘|↩|∅|☢) (\S.*?)(?: +\d+ ms)?$")
_DOX_WORDS = {"✔": "PASSED", "✘": "FAILED"}
_WORDS = {"error": "ERROR", "failure": "FAILED"}


def parse_phpunit(text: str, known: Collection[str]) -> Session | None:
    """Return what the PHPUnit runs in a log say, or None when there is none."""
    del known
    session, seen = Session(), False
    section = suite = title = ""
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if line.startswith("PHPUnit ") and " by Sebastian Bergmann" in line:
            seen, section = True, ""
            session.ended = False
        elif found := _SECTION.match(line):
            section = found.group(1)
        elif section and (found := _NUMBERED.match(line)):
            session.note(found.group(1), _WORDS.get(section, "SKIPPED"))
        elif seen and not section and (found := _DOX.match(line)):
            word = _DOX_WORDS.get(found.group(1), "SKIPPED")
            session.note(f"{suite}::{found.group(2)}", word, found.group(2), f"{title} > {found.group(2)}")
        elif seen and (found := _OK.match(line)):
            session.counts["passed"] += int(found.group(1)[:9])
            session.ended = True
        elif seen and (found := _FINAL.match(line)):
            _count(session, int(found.group(1)[:9]), dict(_PART.findall(found.group(2))))
        elif seen and (found := _SUITE.match(line)):
            suite, title = found.group(2), found.group(1)
        elif line.startswith("Summary of non-successful tests"):
            section = "summary"
    return session if seen else None


def _count(session: Session, tests: int, parts: dict[str, str]) -> None:
    failed, errors = int(parts.get("Failures", "0")[:9]), int(parts.get("Errors", "0")[:9])
    skipped = sum(int(parts.get(name, "0")[:9]) for name in ("Skipped", "Incomplete"))
    session.counts["failed"] += failed
    session.counts["errors"] += errors
    session.counts["skipped"] += skipped
    session.counts["passed"] += max(0, tests - failed - errors - skipped)
    session.ended = True
