"""One pytest session of a log: what its lines say, what its final line counts, and whether the two agree."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fleet.quality.logs.evidence import Session
from fleet.quality.logs.pytest_lines import summary_line

_COUNTED_AS = {"PASSED": "passed", "FAILED": "failed", "ERROR": "errors", "XFAIL": "xfailed", "XPASS": "xpassed"}
_PHASES = 3


@dataclass
class Run:
    """One session: what its lines say, and what its final line counts."""

    live: list[tuple[str, str]] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    """Lines that look like a summary's where no summary has begun: the log may start inside of it."""
    summary: list[str] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    broken: set[str] = field(default_factory=set)
    collected: int = 0
    dots: int = 0
    """Tests in the lines of progress, for where -q keeps to itself how many were collected."""
    version: int = 0
    first: int | None = None
    last: int = 0
    """The numbers of its first and its final line."""
    started: bool = False
    sugar: bool = False
    ended: bool = False
    settled: bool = False
    """The summary was seen where pytest 3 has it: before what passing tests printed, and before warnings."""
    unsure: bool = False
    """A session inside of it did not end where it should."""

    def reopen(self) -> None:
        """Forget an end that was printed by a test: more of the session follows it."""
        self.ended = self.sugar = False
        self.counts = Counter()
        if not self.settled:
            self.summary = None

    def lists_all(self, results: list[tuple[str, str]]) -> bool:
        """Tell whether these are as many of each kind as the final line counts; skipped ones may go unnamed."""
        listed = Counter(word for _, word in results)
        if not any(word == "ERROR" and "::" not in test for test, word in results):
            listed["ERROR"] += len(self.broken)
        return self.ended and all(listed[word] >= self.counts[name] for word, name in _COUNTED_AS.items())

    def fits(self, counts: Counter[str]) -> bool:
        """Tell whether as many tests are counted as were collected."""
        total = sum(counts[word] for word in ("passed", "failed", "skipped", "xfailed", "xpassed"))
        ran = self.collected - counts["deselected"] if self.collected else self.dots
        return ran > 0 and total <= ran <= total + counts["errors"]


def is_old(run: Run, summary: list[str]) -> bool:
    """Tell whether this is pytest 3; where its version is not shown, its words tell."""
    return run.version < 4 if run.version else any(line.startswith(("FAIL ", "SKIP ")) for line in summary)


def plain(name: str) -> str:
    return "errors" if name.startswith("error") else name


def _of_tests(summary: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Leave out what does not speak of a whole test: pytest-sugar says PASSED of set-up, call and tear-down each."""
    passed = Counter(test_id for test_id, word in summary if word == "PASSED")
    if max(passed.values(), default=0) < _PHASES:
        return summary
    return [(test_id, word) for test_id, word in summary if word != "PASSED" or passed[test_id] >= _PHASES]


def take(session: Session, run: Run, ids: set[str]) -> bool:
    """Take a session's results; every test is listed when its lines of one kind are as many as its final line counts."""
    inside = run.summary is not None
    told = [summary_line(line, inside, ids) for line in (run.summary if run.summary is not None else run.early)]
    live, summary = run.live, _of_tests([one for one in told if one is not None])
    if run.lists_all(live):
        # A message of many lines, as -vv has them, may hold whatever a test said.
        named = {test_id for test_id, _ in live}
        summary = [(test_id, word) for test_id, word in summary if test_id in named]
    for test_id, word in (*live, *summary):
        if word == "ERROR" and "::" not in test_id:
            session.broken_files.add(test_id)
        else:
            session.results[test_id].add(word)
    session.broken_files |= run.broken
    for name, number in run.counts.items():
        session.counts[name] += number
    if run.started or run.ended or summary or live:
        all_listed = run.lists_all(live) or run.lists_all(summary)
        session.complete = bool(session.complete) and run.ended and not run.unsure and all_listed
    return bool(summary)
