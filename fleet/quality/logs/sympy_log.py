"""SymPy's own runner, `bin/test -v`: `test_name ok`, `F`, `E`, and `tests finished: 9 passed, 1 failed, in 1.20 seconds`.

What a test prints stands between its name and its outcome, and the final line is broken where it is long.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_FILE = re.compile(r"(\S+\.py)\[(\d+|\?)\](?: |$)")
_TEST = re.compile(r"(test_\w*) (?:(.*) )?(ok|F|E|T|f|X|s|w|Timeout)(?: +\[(?:OK|FAIL)\])?$")
_STARTED = re.compile(r"(test_\w*) ")
_OUTCOME = re.compile(r"(ok|F|E|T|f|X|s|w)(?: +\[(?:OK|FAIL)\])?$")
_FAILED = re.compile(r"_+ (\S+\.py:\w+) _+$")
_END = re.compile(r"=* ?tests finished: (.*)$")
_SECONDS = re.compile(r", in [\d.]+ seconds ?=*$")
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|expected to fail but passed|expected to fail|exceptions)")
_LONGEST = 4_000
_WORDS = {
    "ok": "PASSED",
    "F": "FAILED",
    "E": "ERROR",
    "T": "FAILED",
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
    reader = _Reader()
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if len(line) <= _LONGEST:
            reader.line(line)
    return reader.session if reader.seen else None


class _Reader:
    def __init__(self) -> None:
        self.session = Session()
        self.seen = False
        self._file = self._pending = ""
        self._final: list[str] = []

    def line(self, line: str) -> None:
        """Take one line."""
        if self._final:
            self._end(line)
        elif line.startswith("=") and "test process starts" in line:
            self.seen, self.session.ended, self._file = True, False, ""
        elif "tests finished: " in line and (found := _END.match(line.lstrip())):
            self._end(found.group(1))
        elif self.seen:
            self._inside(line)

    def _inside(self, line: str) -> None:
        if line.startswith("_") and (found := _FAILED.match(line)):
            self._failed(found.group(1))
        elif found := _FILE.match(line):
            self._began("")
            self._file = found.group(1)
            if found.group(2) == "?":
                self.session.broken_files.add(self._file)
        elif line.startswith("test_") and (found := _TEST.match(line)):
            # A reason may stand before an `s`; whatever else does was printed by the test.
            self._began(found.group(1))
            self._note(found.group(1), _WORDS[found.group(3)])
        elif found := _STARTED.match(f"{line} "):
            self._began(found.group(1))
        elif self._pending and (found := _OUTCOME.match(line)):
            self._note(self._pending, _WORDS[found.group(1)])

    def _began(self, name: str) -> None:
        """Take the beginning of a test; of the one before it no outcome was seen, so not every test is listed."""
        if self._pending:
            self.session.complete = False
        self._pending = name

    def _note(self, name: str, word: str) -> None:
        self._pending = ""
        if self._file:
            self.session.note(f"{self._file}:{name}", word, name)
        else:
            self.session.note(name, word)

    def _failed(self, name: str) -> None:
        """Take the heading of a traceback, which is the last word on a test."""
        words = self.session.results[name]
        words.discard("PASSED")
        if not words:
            words.add("FAILED")
        self.session.note(name, "FAILED" if "ERROR" not in words else "ERROR", name.rpartition(":")[2])

    def _end(self, line: str) -> None:
        """Take the final line, or the rest of it: it goes on until it says how long it all took."""
        self._final.append(line)
        ended = _SECONDS.search(line) is not None
        if not ended and len(self._final) < 3:
            return
        self.seen = True
        self.session.ended = ended
        for number, word in _COUNT.findall(" ".join(self._final)) if ended else ():
            self.session.counts[_COUNTS.get(word, word)] += int(number[:9])
        self._final, self._file, self._pending = [], "", ""
