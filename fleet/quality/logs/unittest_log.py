"""unittest (and Django's runner) with `-v`: `test_x (module.Class) ... ok`, the FAIL/ERROR headers and the final count."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_NAME = r"(\w+) \(([\w.<>]+)\)"
_START = re.compile(rf"\s*{_NAME}((?: \[.*\])?(?: \(.*\))?)")
_OUTCOME = re.compile(r"(ok|FAIL|ERROR|skipped\b.*|expected failure|unexpected success)(?: \(?\d+(?:\.\d+)?s\)?)?\s*$")
_HEADER = re.compile(rf"(FAIL|ERROR|UNEXPECTED SUCCESS): {_NAME}")
_RAN = re.compile(r"Ran (\d+) tests? in \d+(?:\.\d+)?s")
_DETAIL = re.compile(r"(failures|errors|skipped|expected failures|unexpected successes)=(\d+)")
_IMPORT = re.compile(r"ERROR: (\S+) \(unittest\.loader\._FailedTest(?:\.\S+)?\)")
_LONGEST = 16_000
_WORD = {"ok": "PASSED", "FAIL": "FAILED", "ERROR": "ERROR", "expected failure": "XFAIL", "unexpected success": "XPASS"}


def parse_unittest(text: str, known: Collection[str]) -> Session | None:  # noqa: ARG001 - a parser's signature
    """Return what the unittest runs in a log say, or None when there is none."""
    session = Session()
    pending: tuple[str, str] | None = None
    ran: int | None = None
    seen = False
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if not line or len(line) > _LONGEST:
            continue
        broken = _IMPORT.match(line) if line.startswith("ERROR: ") else None
        if broken:
            session.broken_files.add(broken.group(1))
            seen = True
            continue
        header = _HEADER.match(line) if ": " in line else None
        if header:
            word = {"FAIL": "FAILED", "ERROR": "ERROR"}.get(header.group(1), "XPASS")
            _note(session, header.group(2), header.group(3), word)
            seen = True
        elif found := _RAN.match(line):
            ran, seen = (ran or 0) + int(found.group(1)[:9]), True
        elif ran is not None and (line == "OK" or line.startswith(("OK (", "FAILED", "NO TESTS RAN"))):
            session.ended = True
            _final(session, line, ran)
            ran = None
        else:
            pending = _test_line(session, line, pending)
    return session if seen or session.results else None


def _test_line(session: Session, line: str, pending: tuple[str, str] | None) -> tuple[str, str] | None:
    """Take `test (where) ... ok`, also when a docstring or output stands between the name and the outcome."""
    start = _START.match(line)
    name = (start.group(1), start.group(2)) if start and "_FailedTest" not in start.group(2) else None
    if " ... " in line or line.endswith(" ..."):
        owner = name or pending
        if owner is None:
            return None
        for dots in itertools.islice(re.finditer(r" \.\.\. ", line), 20):
            # From the left, because the reason of a skip may itself end like an outcome.
            outcome = _OUTCOME.match(line, dots.end())
            if outcome:
                _note(session, *owner, _word(outcome.group(1)), None if name else line[: dots.start()].strip())
                return None
        return owner
    if name and start is not None and start.end() == len(line):
        return name
    outcome = _OUTCOME.match(line)
    if outcome and pending:
        _note(session, *pending, _word(outcome.group(1)))
        return None
    return pending


def _word(text: str) -> str:
    return "SKIPPED" if text.startswith("skipped") else _WORD[text]


def _note(session: Session, method: str, where: str, word: str, docstring: str | None = None) -> None:
    """Note one outcome under the id as printed, and remember its other exact spellings."""
    owner = where.removesuffix(f".{method}")
    test_id = f"{method} ({where})"
    session.results[test_id].add(word)
    for other in (f"{method} ({owner})", f"{method} ({owner}.{method})", f"{owner}.{method}", docstring):
        if other and other != test_id:
            session.alias.setdefault(other, set()).add(test_id)


def _final(session: Session, line: str, ran: int) -> None:
    found = {name: int(number[:9]) for name, number in _DETAIL.findall(line)}
    failed, errors, skipped = found.get("failures", 0), found.get("errors", 0), found.get("skipped", 0)
    expected, unexpected = found.get("expected failures", 0), found.get("unexpected successes", 0)
    session.counts["failed"] += failed
    session.counts["errors"] += errors
    session.counts["skipped"] += skipped
    session.counts["xfailed"] += expected
    session.counts["xpassed"] += unexpected
    session.counts["passed"] += max(0, ran - failed - errors - skipped - expected - unexpected)
