"""`go test`, plain, `-v` and `-json`: `--- PASS: TestX (0.00s)`, `ok  package 0.01s`, builds that failed, panics."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from fleet.quality.logs.evidence import Session

_RUN = re.compile(r"=== (?:RUN|CONT)\s+(\S+)$")
_RESULT = re.compile(r" *--- (PASS|FAIL|SKIP): (\S+) \(\d+(?:\.\d+)?s\)$")
_BEHIND_OUTPUT = re.compile(r"--- (PASS|FAIL|SKIP): (\S+) \(\d+(?:\.\d+)?s\)$")
_PACKAGE = re.compile(r"(ok  |FAIL)\t(\S+)(?:\t| \[(build|setup) failed\])")
_NO_TESTS = re.compile(r"\?   \t(\S+)\t\[no test files\]")
_NOTHING_TO_RUN = "[no tests to run]"
_WORDS = {"PASS": "PASSED", "FAIL": "FAILED", "SKIP": "SKIPPED"}
_LONGEST = 16_000


def parse_go(text: str, known: Collection[str]) -> Session | None:
    """Return what the `go test` runs in a log say, or None when there is none."""
    del known
    reader = _Reader()
    for raw in text.split("\n"):
        if raw.startswith('{"') and '"Action":"' in raw:
            reader.event(_event(raw))
        elif len(raw) <= _LONGEST:
            reader.line(raw.rstrip("\r"))
    return reader.finish()


def _event(line: str) -> dict[str, Any]:
    """Return an event of `-json`; the packages of one run take turns in it."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


class _Reader:
    def __init__(self) -> None:
        self.session = Session(complete=True)
        self.seen = False
        self._announced: set[str] = set()
        self._pending: list[tuple[str, str]] = []
        self._unnamed = 0
        self._running: dict[str, dict[str, str]] = {}
        """Of `-json`: packages that have not ended → their tests that have not → what their output says of them."""

    def event(self, event: dict[str, Any]) -> None:
        """Take one event: those that end a test or a package say so themselves."""
        package, test, action = (event.get(name) for name in ("Package", "Test", "Action"))
        output = event.get("Output")
        if not isinstance(package, str) or not isinstance(action, str):
            return
        word = _WORDS.get(action.upper())
        tests = self._running.setdefault(package, {})
        if isinstance(test, str):
            if action == "run":
                tests[test] = "FAILED"
            elif test not in tests:
                # Never announced: some test printed what looks like an outcome.
                return
            elif word:
                del tests[test]
                self._note(package, test, word)
            elif isinstance(output, str) and (found := _BEHIND_OUTPUT.search(output.rstrip())) and found.group(2) == test:
                tests[test] = _WORDS[found.group(1)]
        elif word:
            # What began and has no end went down with its package, or its end stands behind something that it printed.
            for name, said in self._running.pop(package).items():
                self._note(package, name, said)
        elif isinstance(output, str) and (found := _PACKAGE.match(output)) and found.group(3):
            self.session.broken_files.add(package)
        self.seen = True
        self.session.ended = not self._running

    def line(self, line: str) -> None:
        """Take one line; what a test prints stands at the start of lines too, so with `-v` only announced tests count."""
        if found := _RUN.match(line):
            self._announced.add(found.group(1))
            self.session.ended = False
        elif found := _RESULT.match(line):
            self._pending.append((found.group(2), _WORDS[found.group(1)]))
        elif "--- " in line and (found := _BEHIND_OUTPUT.search(line)) and found.group(2) in self._announced:
            # The test printed something and did not end its line.
            self._pending.append((found.group(2), _WORDS[found.group(1)]))
        elif found := _PACKAGE.match(line):
            self._package(found.group(2), found.group(1) != "FAIL", found.group(3) is not None, _NOTHING_TO_RUN in line)
        elif _NO_TESTS.match(line):
            self.seen = self.session.ended = True

    def _package(self, name: str, passed: bool, not_built: bool, nothing: bool) -> None:
        """Give the tests since the last such line to their package; one that began and never ended went down with it."""
        self.seen = self.session.ended = True
        if not_built:
            self.session.broken_files.add(name)
            return
        verbose = bool(self._announced)
        results = [(test, word) for test, word in self._pending if not verbose or test in self._announced]
        results += [(test, "FAILED") for test in sorted(self._announced - {test for test, _ in results})]
        for test, word in results:
            self._note(name, test, word)
        if passed and not results and not nothing:
            # Without -v, tests that pass are not named; at least one there was.
            self._unnamed += 1
            self.session.counts["passed"] = self._unnamed + len(self.session.results)
        self.session.complete = bool(self.session.complete) and (verbose or nothing)
        self._announced.clear()
        self._pending.clear()

    def finish(self) -> Session | None:
        """Return the session; tests whose package did not end are known by their names alone."""
        for test, word in self._pending:
            if test in self._announced:
                self.session.note(test, word)
                self.seen, self.session.ended, self.session.complete = True, False, False
        return self.session if self.seen else None

    def _note(self, package: str, test: str, word: str) -> None:
        self.session.note(
            f"{package}.{test}", word, test, *(f"{package}{separator}{test}" for separator in ("/", ":", "::", " "))
        )
