"""pytest, 3.x to 9.x: the short summary (`-rA`), verbose lines, xdist lines and the final count.

A log is taken apart into sessions, and a session into tests running, reports of failures and the short summary. Reports repeat
what tests printed, which may look like results or like a whole session inside the session: nothing in there proves anything,
and of several summaries in a row only the last is pytest's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from fleet.quality.logs.evidence import Session
from fleet.quality.logs.pytest_lines import shortened, verbose_line, xdist_line
from fleet.quality.logs.pytest_run import Run, is_old, plain, take

_WORDS = "PASSED|FAILED|ERROR|XFAIL|XPASS|SKIPPED"
_STARTS = re.compile(r"=+ test session starts\b|Test session starts \(platform: ")
_VERSION = re.compile(r"platform \S.*, pytest-(\d+)\.")
_HEADER = re.compile(r"=+ short test summary info =+$")
_SUMMARY = re.compile(rf"(?:{_WORDS}|FAIL|SKIP|SUBPASS(?:ED)?|SUBFAIL(?:ED)?|SUBSKIP(?:PED)?)\b|[\[(].{{0,400}} SUB[FPS]")
_COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected)\b")
_COUNTED = r"(?:\d{1,9} [a-z][a-z ]{0,40}(?:, )?)"
_FINAL = re.compile(
    rf"(?:=+ )?({_COUNTED}{{1,12}}|no tests ran|no tests collected[^=]*) in \d+(?:\.\d+)? ?s(?:econds?)?"
    r"(?: \(\d+(?: days?, )?[\d:]*\))?(?: =+)?$"
)
_RESULTS = re.compile(r"Results \(\d[\d.]*(?:m?s|m|h)?[^)]{0,20}\):$")
_RESULT = re.compile(r" +(\d{1,9}) (passed|failed|errors?|skipped|xfailed|xpassed)$")
"""pytest-sugar counts in lines of their own."""
_COLLECTED = re.compile(
    r"(?:collecting \.\.\. )?collected (\d+) items?\b(?:.* (\d+) deselected)?|(?:\d+ workers?|gw0) \[(\d+)(?: items?)?\]"
)
_DOTS = re.compile(r"(?:\S+\.py )?([.FEsxX]+)(?: +\[ *\d+%\])?$")
_BROKEN = re.compile(r"_{3,} ERROR collecting (\S.*?) _{3,}$")
_REPORTS = re.compile(r"=+ (?:FAILURES|ERRORS|PASSES|XPASSES|XFAILURES|warnings summary.*) =+$")
_LATE = ("PASSES", "warnings summary")
_REPORTED = re.compile(r"_{3,} \S.* _{3,}$|-{3,} Captured (?:stdout|stderr|log)\b.* -{3,}$")
_LONGEST = 16_000
"""A longer line is output, not a result; no id is that long, and no pattern runs over a megabyte."""


def parse_pytest(text: str, known: Collection[str]) -> Session | None:
    """Return what the pytest runs in a log say, or None when there is none."""
    reader = _Reader()
    for number, raw in enumerate(text.split("\n")):
        line = raw.rstrip("\r ")
        if line and len(line) <= _LONGEST:
            reader.number = number
            reader.line(line)
    return reader.finish(known)


class _Reader:
    """Where in a log the reader is."""

    def __init__(self) -> None:
        self.seen = False
        self.number = 0
        self._runs = [Run()]
        self._summary: list[str] | None = None
        self._reporting = False
        self._inside = 0
        """Sessions printed by tests of this one that have begun and not ended."""
        self._last: tuple[list[str] | None, Counter[str]] | None = None

    @property
    def _run(self) -> Run:
        return self._runs[-1]

    def line(self, line: str) -> None:
        """Take one line."""
        if self._run.sugar and (count := _RESULT.match(line)):
            self._run.counts[plain(count.group(2))] += int(count.group(1))
            return
        if (line[0] in "=RT" or " in " in line) and self._frame(line):
            return
        if line[0] == "_" and (found := _BROKEN.match(line)):
            if not self._inside:
                self._run.broken.add(found.group(1))
            self.seen = self._reporting = True
        elif line[0] in "_-" and _REPORTED.match(line):
            # The final line that seemed to precede it was not pytest's own.
            self._reporting, self._summary = True, None
            self._run.reopen()
        elif self._summary is not None:
            if _SUMMARY.match(line):
                self._summary.append(line)
        elif not self._reporting:
            self._live(line)

    def _frame(self, line: str) -> bool:
        """Take a line that opens or closes a part of pytest's output."""
        if _HEADER.match(line):
            self.seen = True
            self._summary = []
            self._run.reopen()
        elif _STARTS.match(line):
            self.seen = True
            self._start()
        elif final := _FINAL.match(line):
            self.seen = True
            self._end(Counter({plain(name): int(number) for number, name in _COUNT.findall(final.group(1))}))
        elif _RESULTS.match(line):
            self._inside = 0
            self._end(Counter())
            self._run.sugar = self._run.ended
        elif _REPORTS.match(line):
            self._report(line.strip("= "))
        else:
            return False
        return True

    def _report(self, title: str) -> None:
        run, summary = self._run, self._summary
        if summary is not None and not self._inside and not run.settled and title.startswith(_LATE) and is_old(run, summary):
            run.summary, run.settled = summary, True
        self._reporting, self._summary = True, None

    def _start(self) -> None:
        run = self._run
        if self._reporting and not run.ended:
            self._inside += 1
            self._summary = None
            return
        if run.started or run.ended:
            run.unsure |= not run.ended
            self._runs.append(Run())
        self._run.started, self._run.first = True, self.number
        self._run.live, self._run.early = [], []
        self._close()

    def _close(self) -> None:
        self._reporting, self._summary, self._inside, self._last = False, None, 0, None

    def _end(self, counts: Counter[str]) -> None:
        run = self._run
        self._last = (self._summary, counts)
        run.last = self.number
        if self._inside:
            self._inside -= 1
            run.unsure = True
        else:
            run.ended, run.counts = True, counts
            if not run.settled:
                run.summary = self._summary
            run.unsure = False
        self._summary = None

    def _live(self, line: str) -> None:
        """Take a line from where tests run; what a failed test printed comes later and is not read."""
        run = self._run
        if _SUMMARY.match(line):
            run.early.append(line)
        elif found := (xdist_line(line) if line[0] == "[" else verbose_line(line) if "::" in line else None):
            run.live.append(found)
            self.seen = True
        elif line.startswith("platform ") and (version := _VERSION.match(line)):
            run.version = int(version.group(1))
        elif not run.collected and (number := _COLLECTED.match(line)):
            self.seen = True
            run.collected = int((number.group(1) or number.group(3))[:9])
        elif line.startswith("Ran ") and not run.started:
            # The dots before it were unittest's.
            run.first, run.dots = None, 0
        elif dots := _DOTS.match(line):
            run.dots += len(dots.group(1))
            run.first = self.number if run.first is None else run.first

    def finish(self, known: Collection[str]) -> Session | None:
        """Read the summaries, now that the ids of the verbose lines are known."""
        run = self._run
        if not run.ended:
            if self._inside == 0 and self._summary is not None and not run.settled:
                run.summary = self._summary
            elif self._last is not None and run.fits(self._last[1]):
                # One of the sessions inside did not end, and took the end of the outer one for its own.
                run.ended, run.unsure = True, False
                summary, run.counts = self._last
                run.summary = run.summary if run.settled else summary
        session = Session(complete=True)
        ids = {test_id for one in self._runs for test_id, _ in one.live} | set(known)
        for one in self._runs:
            self.seen = take(session, one, ids) or self.seen
        session.ended = run.ended
        session.spans = [(one.first, one.last) for one in self._runs if one.first is not None and one.ended]
        shortened(session)
        return session if self.seen or session.results else None
