"""pytest, 3.x to 9.x: the short summary (`-rA`), verbose lines, xdist lines and the final count.

Where an id ends is the hard part: `FAILED t.py::test_x[a - b] - assert 1 == 2`. Ids that verbose lines or the caller know
decide first; else the first ` - ` outside of a parameter's brackets.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_WORDS = "PASSED|FAILED|ERROR|XFAIL|XPASS|SKIPPED"
_STARTS = re.compile(r"=+ test session starts\b")
_HEADER = re.compile(r"=+ short test summary info =+$")
_SUMMARY = re.compile(rf"(?:{_WORDS}|FAIL|SKIP|SUBPASS(?:ED)?|SUBFAIL(?:ED)?)\b")
_RESULT = re.compile(rf"({_WORDS}|FAIL|SKIP) (\S.*)$")
_OLD_WORDS = {"FAIL": "FAILED", "SKIP": "SKIPPED"}
"""pytest 3 in its summary."""
_SUBTEST = re.compile(r"(?:\[[^\]]*\] )?SUBFAIL(?:ED)?(?:\([^)]*\)|\[[^\]]*\])* (?:\([^)]*\) )?(\S.*)$")
_COUNTED_SKIP = re.compile(r"\[\d+\] ")
_MARK = re.compile(rf" ({_WORDS})(?=[ (\[]|$)")
_REASON = frozenset({"SKIPPED", "XFAIL", "XPASS"})
_TAIL = re.compile(r" *(?:\[ *\d+(?:%|/\d+)\]|\[?\d+(?:\.\d+)?(?:s|ms|us)\]?)?")
_XDIST = re.compile(rf"\[gw\d+\] (?:\[ *\d+%\] )?({_WORDS}) (\S.*)$")
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)\b")
_FINAL = re.compile(
    r"(?:=+ )?((?:\d+ [a-z][a-z -]*(?:, )?)+|no tests ran|no tests collected[^=]*) in \d+(?:\.\d+)? ?s(?:econds?)?"
    r"(?: \(\d+(?: days?, )?[\d:]*\))?(?: =+)?$"
)
_BROKEN = re.compile(r"_{3,} ERROR collecting (\S.*?) _{3,}$")
_REPORTS = re.compile(r"=+ (?:FAILURES|ERRORS|PASSES|XPASSES|XFAILURES|warnings summary.*) =+$")
_LOCATION = re.compile(r" <- \S+$")
_PATH = re.compile(r"\[/(?!/)[^*]*/([^/*]*)\]$")
_LONGEST = 16_000
"""A longer line is output, not a result; no id is that long, and no pattern runs over a megabyte."""


def parse_pytest(text: str, known: Collection[str]) -> Session | None:
    """Return what the pytest runs in a log say, or None when there is none."""
    reader = _Reader()
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if line and len(line) <= _LONGEST:
            reader.line(line)
    return reader.finish(known)


class _Reader:
    """Where in a log the reader is: tests running, reports of failures, or the short summary."""

    def __init__(self) -> None:
        self.session = Session()
        self.summary: list[tuple[str, bool]] = []
        self.inside = self.reporting = self.headed = self.seen = False

    def line(self, line: str) -> None:
        """Take one line."""
        if (line[0] == "=" or " in " in line) and self._frame(line):
            return
        if _SUMMARY.match(line) or (self.inside and line[0] == "[" and _SUBTEST.match(line)):
            # Among the reports it is what a failed test printed, not a result.
            if self.inside or not self.reporting:
                self.summary.append((line, self.inside))
        elif line[0] == "_" and (found := _BROKEN.match(line)):
            self.session.broken_files.add(found.group(1))
            self.seen = True
        elif line.startswith("collected 0 items"):
            self.seen = True
        elif not self.reporting and self._live(line):
            # What a failed test printed is shown again among the reports; a line in there proves nothing.
            self.seen = True

    def _frame(self, line: str) -> bool:
        """Take a line that opens or closes a part of pytest's output."""
        if _HEADER.match(line):
            self.inside = self.headed = self.seen = True
        elif _STARTS.match(line):
            self.inside = self.reporting = self.session.ended = False
            self.seen = True
        elif final := _FINAL.match(line):
            self.inside = self.reporting = False
            self.session.ended = self.seen = True
            _count(self.session, final.group(1))
        elif _REPORTS.match(line):
            # pytest 3 has its summary before the reports.
            self.inside, self.reporting = False, True
        else:
            return False
        return True

    def _live(self, line: str) -> bool:
        if line[0] == "[" and (found := _XDIST.match(line)):
            _note(self.session, found.group(2), found.group(1))
            return True
        return "::" in line and _verbose_line(self.session, line)

    def finish(self, known: Collection[str]) -> Session | None:
        """Read the summary lines, now that the ids of the verbose lines are known."""
        ids = {*self.session.results, *known}
        for line, inside in self.summary:
            # Without a header the log may have been cut inside the summary; with one, only its own lines count.
            if inside or not self.headed:
                self.seen = _summary_line(self.session, line, inside, ids) or self.seen
        _shortened(self.session)
        return self.session if self.seen or self.session.results else None


def _count(session: Session, text: str) -> None:
    for number, name in _COUNT.findall(text):
        session.counts["errors" if name.startswith("error") else name] += int(number[:9])


def _note(session: Session, test_id: str, word: str) -> None:
    # pytest 3 has instances in its ids, `Class::()::test`, in its summary only.
    session.results[test_id.replace("::()::", "::")].add(word)


def _verbose_line(session: Session, line: str) -> bool:
    """Take `ID PASSED [ 10%]`; ids and reasons may themselves hold such a word, so the whole line has to fit."""
    for mark in itertools.islice(_MARK.finditer(line), 5):
        test_id, word, end = line[: mark.start()], mark.group(1), mark.end()
        if word in _REASON and line.startswith(" (", end) and ")" in line:
            end = line.rindex(")") + 1
        # `test a::b ... FAILED` is a Rust test's line.
        if "::" in test_id and not test_id.endswith(" ...") and _TAIL.fullmatch(line, end):
            _note(session, _LOCATION.sub("", test_id), word)
            return True
    return False


def _summary_line(session: Session, line: str, inside: bool, ids: set[str]) -> bool:
    """Take one line that starts with an outcome; outside of the summary only what is unmistakably an id counts."""
    subtest = _SUBTEST.match(line)
    if subtest:
        if inside:
            session.subtests += 1
            _note(session, _cut_message(subtest.group(1), ids), "FAILED")
        return inside
    found = _RESULT.match(line)
    if found is None:
        return False
    word, rest = _OLD_WORDS.get(found.group(1), found.group(1)), found.group(2)
    if word == "SKIPPED" and _COUNTED_SKIP.match(rest):
        return inside
    test_id = rest if word == "PASSED" else _cut_message(rest, ids)
    if "::" in test_id and (inside or " " not in test_id.split("::", 1)[0]):
        _note(session, test_id, word)
        return True
    if inside and word == "ERROR":
        session.broken_files.add(test_id)
    elif inside:
        _note(session, test_id, word)
    return inside


def _cut_message(rest: str, ids: set[str]) -> str:
    """Return the id at the start of `ID - message`."""
    ends = [match.start() for match in itertools.islice(re.finditer(" - ", rest), 50)]
    if not ends:
        return rest
    for end in (len(rest), *reversed(ends)):
        if rest[:end] in ids:
            return rest[:end]
    for end in ends:
        if "[" not in rest[:end] or rest[:end].endswith("]"):
            return rest[:end]
    return rest[: ends[0]]


def _shortened(session: Session) -> None:
    """Index ids as the parsers of SWE-bench leave them in its datasets.

    They split lines at spaces (`t.py::test_x[a`), keep only the end of a parameter that is a path (`t.py::test_x[/c.txt]`), and
    write matplotlib's mouse buttons as numbers.
    """
    for test_id in session.results:
        if "[/" in test_id and (found := _PATH.search(test_id)):
            session.alias.setdefault(f"{test_id[: found.start()]}[/{found.group(1)}]", set()).add(test_id)
        if "MouseButton." in test_id:
            other = test_id.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3")
            session.alias.setdefault(other, set()).add(test_id)
        if " " in test_id and "[" in test_id:
            first = test_id.split(" ", 1)[0]
            if "[" in first:
                session.alias.setdefault(first, set()).add(test_id)
