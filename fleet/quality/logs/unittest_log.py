"""unittest (and Django's runner) with `-v`: `test_x (module.Class) ... ok`, the FAIL/ERROR headers and the final count.

What a test prints lands between its name and its outcome, and a test whose subtests failed has no outcome at all there, so the
name of the next one follows on its line. The header of a failure is the last word on a test in its run.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from fleet.quality.logs.evidence import Session

_NAME = r"(\w+) \(([\w.<>]+)\)"
_PARAMETERS = r"((?: \[.*\])?(?: \(.*\))?)"
_START = re.compile(rf"\s*{_NAME}{_PARAMETERS}")
_ALONE = re.compile(rf"{_NAME}$")
_BEHIND_OUTPUT = re.compile(r"(?<!\w)(\w{1,300}) \((\w+(?:\.[\w<>]+)+)\)$")
_OUTCOME = re.compile(r"(ok|FAIL|ERROR|skipped\b.*|expected failure|unexpected success)(?: \(?\d+(?:\.\d+)?s\)?)?\s*$")
_HEADER = re.compile(rf"(FAIL|ERROR|UNEXPECTED SUCCESS): {_NAME}")
_RAN = re.compile(r"Ran (\d+) tests? in \d+(?:\.\d+)?s")
_DETAIL = re.compile(r"(failures|errors|skipped|expected failures|unexpected successes)=(\d+)")
_IMPORT = re.compile(r"ERROR: (\S+) \(unittest\.loader\._FailedTest(?:\.\S+)?\)")
_LONGEST = 16_000
_WORD = {"ok": "PASSED", "FAIL": "FAILED", "ERROR": "ERROR", "expected failure": "XFAIL", "unexpected success": "XPASS"}
_FIXTURES = frozenset({"setUpClass", "tearDownClass", "setUpModule", "tearDownModule"})


@dataclass
class _Test:
    """A test whose outcome has not been seen."""

    method: str
    where: str
    docstrings: list[str] = field(default_factory=list)
    """Where it ends is not always clear: dots may be part of it, or of what the test printed."""
    announced: bool = False
    """The dots that stand before an outcome were printed."""

    @property
    def id(self) -> str:
        return f"{self.method} ({self.where})"


def parse_unittest(text: str, known: Collection[str]) -> Session | None:
    """Return what the unittest runs in a log say, or None when there is none."""
    reader = _Reader(frozenset(known))
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if line and len(line) <= _LONGEST:
            reader.line(line)
    return reader.finish()


class _Reader:
    def __init__(self, known: frozenset[str]) -> None:
        self.session = Session()
        self._known = known
        self._run: dict[str, set[str]] = {}
        self._headed: set[str] = set()
        self._pending: _Test | None = None
        self._ran: int | None = None
        self._tests = self._repeated = 0
        self._seen = False
        self._latest = ""
        """The test whose header was the line before."""

    def line(self, line: str) -> None:
        """Take one line."""
        headed, self._latest = self._latest, ""
        if headed and not line.startswith("---"):
            # The docstring of the test whose failure follows.
            self._alias(line.strip(), headed)
        elif line.startswith("ERROR: ") and (broken := _IMPORT.match(line)):
            self.session.broken_files.add(broken.group(1))
            self._seen = True
        elif ": " in line and (header := _HEADER.match(line)):
            word = {"FAIL": "FAILED", "ERROR": "ERROR"}.get(header.group(1), "XPASS")
            self._header(_Test(header.group(2), header.group(3)), word)
        elif found := _RAN.match(line):
            self._ran, self._seen = (self._ran or 0) + int(found.group(1)[:9]), True
        elif self._ran is not None and (line == "OK" or line.startswith(("OK (", "FAILED", "NO TESTS RAN"))):
            self._end(line, self._ran)
        else:
            self._test_line(line)

    def _header(self, test: _Test, word: str) -> None:
        """Take the header of a failure: whatever its line seemed to say before was not the test's own."""
        self._seen = True
        if test.id not in self._headed:
            self._headed.add(test.id)
            self._run.pop(test.id, None)
        self._note(test, word)
        self._latest = test.id

    def _test_line(self, line: str) -> None:
        """Take `test (where) ... ok`, also when a docstring or output stands between the name and the outcome."""
        if " ... " not in line and not line.endswith(" ..."):
            self._bare(line)
            return
        start = _START.match(line)
        test = _Test(start.group(1), start.group(2)) if start and "_FailedTest" not in start.group(2) else None
        owner, described = test or self._pending, False
        begin = 0
        for dots in itertools.islice(re.finditer(r" \.\.\.(?: |$)", line), 20):
            # From the left, because the reason of a skip may itself end like an outcome.
            before = line[begin : dots.start()]
            described = described or (test is None and owner is not None and not owner.announced)
            if begin and (named := _ALONE.match(before)):
                owner, described = _Test(named.group(1), named.group(2)), False
            elif described and owner is not None:
                owner.docstrings.append(line[: dots.start()].strip())
            elif owner is None or (owner.announced and test is None):
                owner = self._behind_output(before) or owner
            if outcome := _OUTCOME.match(line, dots.end()):
                self._outcome(owner, line[: dots.start()].strip(), outcome.group(1))
                return
            begin = dots.end()
        if owner is not None:
            owner.announced = True
        rest = _ALONE.match(line, begin)
        self._pending = _Test(rest.group(1), rest.group(2)) if rest else owner

    def _bare(self, line: str) -> None:
        if named := _START.match(line):
            if named.end() == len(line) and "_FailedTest" not in named.group(2):
                self._pending = _Test(named.group(1), named.group(2))
        elif self._pending is not None and (outcome := _OUTCOME.match(line)):
            self._outcome(self._pending, "", outcome.group(1))

    def _behind_output(self, before: str) -> _Test | None:
        """Return the test that is named right behind what another one printed without ending its line."""
        found = _BEHIND_OUTPUT.search(before[-1000:])
        return _Test(found.group(1), found.group(2)) if found and "_FailedTest" not in found.group(2) else None

    def _outcome(self, test: _Test | None, text: str, outcome: str) -> None:
        self._pending = None
        word = "SKIPPED" if outcome.startswith("skipped") else _WORD[outcome]
        if test is not None:
            self._note(test, word)
        elif text in self._known:
            # Another runner's names, or a docstring whose test was named far above.
            self._run.setdefault(text, set()).add(word)

    def _note(self, test: _Test, word: str) -> None:
        """Note one outcome under the id as printed, and remember its other exact spellings."""
        self._repeated += test.id in self._run and word == "PASSED"
        self._run.setdefault(test.id, set()).add(word)
        owner = test.where.removesuffix(f".{test.method}")
        spelled = (f"{test.method} ({owner})", f"{test.method} ({owner}.{test.method})", f"{owner}.{test.method}")
        for other in (*spelled, *test.docstrings):
            self._alias(other, test.id)

    def _alias(self, other: str, test_id: str) -> None:
        if other and other != test_id:
            self.session.alias.setdefault(other, set()).add(test_id)

    def _end(self, line: str, ran: int) -> None:
        self.session.ended = True
        self._ran = self._pending = None
        self._tests += ran
        self._merge()
        _final(self.session, line, ran)

    def _merge(self) -> None:
        for test_id, words in self._run.items():
            self._repeated += test_id in self.session.results
            self.session.results[test_id] |= words
        self._run, self._headed = {}, set()

    def finish(self) -> Session | None:
        """Return the session; it lists every test when as many were named as ran."""
        if self._run:
            self.session.ended = False
        self._merge()
        # What stands for a class or a module is not counted among the tests that ran.
        named = sum(1 for test_id in self.session.results if test_id.split(" ", 1)[0] not in _FIXTURES)
        self.session.complete = named + self._repeated + len(self.session.broken_files) >= self._tests
        return self.session if self._seen or self.session.results else None


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
