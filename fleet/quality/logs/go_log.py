"""`go test`, plain, `-v` and `-json`: `--- PASS: TestX (0.00s)`, `ok  package 0.01s`, builds that failed, panics."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

from fleet.quality.logs.evidence import Session

_RUN = re.compile(r"=== (?:RUN|CONT)\s+(\S+)$")
_RESULT = re.compile(r" *--- (PASS|FAIL|SKIP): (\S+) \(\d+(?:\.\d+)?s\)$")
_PACKAGE = re.compile(r"(?:ok  |FAIL)\t(\S+)(?:\t| \[(build|setup) failed\])")
_NO_TESTS = re.compile(r"\?   \t(\S+)\t\[no test files\]")
_WORDS = {"PASS": "PASSED", "FAIL": "FAILED", "SKIP": "SKIPPED"}


def parse_go(text: str, known: Collection[str]) -> Session | None:
    """Return what the `go test` runs in a log say, or None when there is none."""
    del known
    reader = _Reader()
    for line in _lines(text):
        reader.line(line)
    return reader.session if reader.seen else None


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of the plain output; of `-json`, the lines that its output events hold."""
    for line in text.split("\n"):
        if line.startswith('{"') and '"Action":"' in line:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                continue
            output = event.get("Output") if isinstance(event, dict) else None
            if isinstance(output, str):
                yield output.rstrip("\n")
        else:
            yield line.rstrip("\r")


class _Reader:
    def __init__(self) -> None:
        self.session = Session(complete=True)
        self.seen = False
        self._announced: set[str] = set()
        self._pending: list[tuple[str, str]] = []

    def line(self, line: str) -> None:
        """Take one line; what a test prints stands at the start of lines too, so with `-v` only announced tests count."""
        if found := _RUN.match(line):
            self._announced.add(found.group(1))
            self.session.ended = False
        elif found := _RESULT.match(line):
            self._pending.append((found.group(2), _WORDS[found.group(1)]))
        elif found := _PACKAGE.match(line):
            self._package(found.group(1), found.group(2) is not None)
        elif _NO_TESTS.match(line):
            self.seen = self.session.ended = True

    def _package(self, name: str, not_built: bool) -> None:
        """Give the tests since the last such line to their package; one that began and never ended went down with it."""
        self.seen = self.session.ended = True
        if not_built:
            self.session.broken_files.add(name)
            return
        verbose = bool(self._announced)
        results = [(test, word) for test, word in self._pending if not verbose or test in self._announced]
        results += [(test, "FAILED") for test in sorted(self._announced - {test for test, _ in results})]
        for test, word in results:
            self.session.note(test, word, *(f"{name}{separator}{test}" for separator in ("/", ".", ":", "::", " ")))
        # Without -v, tests that pass are not named.
        self.session.complete = bool(self.session.complete) and verbose
        self._announced.clear()
        self._pending.clear()
