"""What a test log proves: a status per id, whether the log is whole, and how many tests ran."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Status(StrEnum):
    """What the log says about one test id."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    MISSING = "missing"
    """The log is whole and lists every test, and this one is not among them."""
    NOT_RUN = "not-run"
    """The log is whole and lists every test that ran; it counts skipped ones without their names."""
    UNKNOWN = "unknown"


_NO_TEST = re.compile(r"\[ *\d+%\]")
"""A column of pytest's progress, which the harness took for an id; two lists of SWE-bench Verified hold it."""
_PASS = frozenset({"PASSED", "XFAIL"})
_FAIL = frozenset({"FAILED", "ERROR"})


@dataclass
class Session:
    """The runs of one framework found in a log."""

    results: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Id → words the framework used: PASSED, FAILED, ERROR, SKIPPED, XFAIL, XPASS."""
    broken_files: set[str] = field(default_factory=set)
    """Test files that could not even be imported."""
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """What the final lines say, added up: passed, failed, errors, skipped, xfailed, xpassed."""
    ended: bool = False
    """The final line of the last run is there."""
    alias: dict[str, set[str]] = field(default_factory=dict)
    """Other exact spellings of an id → ids in `results`."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """First and last lines that are certainly this framework's: what looks like another's in there was printed by a test."""
    complete: bool | None = None
    """Whether every test is listed by name, where the framework's output itself tells; else the counts decide."""

    def note(self, test_id: str, word: str, *others: str) -> None:
        """Take one outcome; `others` are further spellings that people and datasets use for the id."""
        self.results[test_id].add(word)
        for other in others:
            if other != test_id:
                self.alias.setdefault(other, set()).add(test_id)

    @property
    def lists_all(self) -> bool:
        """Whether every test that the final lines count is also listed by name."""
        if not self.ended:
            return False
        if self.complete is not None:
            return self.complete
        listed: dict[str, int] = defaultdict(int)
        for words in self.results.values():
            for word in words:
                listed[word] += 1
        errors = listed["ERROR"] + len(self.broken_files)
        return (
            listed["PASSED"] >= self.counts["passed"]
            and listed["FAILED"] >= self.counts["failed"]
            and errors >= self.counts["errors"]
            and listed["XFAIL"] >= self.counts["xfailed"]
            and listed["XPASS"] >= self.counts["xpassed"]
        )

    @property
    def names_skipped(self) -> bool:
        """Whether every skipped test that the final lines count is also listed by name."""
        return sum(1 for words in self.results.values() if "SKIPPED" in words) >= self.counts["skipped"]

    @property
    def executed(self) -> int:
        """How many tests ran: skipped ones and files that could not be imported did not."""
        ran = sum(1 for words in self.results.values() if words - {"SKIPPED"})
        counted = sum(self.counts[name] for name in ("passed", "failed", "xfailed", "xpassed"))
        # A test that passed and failed in its teardown is counted in both, so errors only count where there is nothing else.
        return max(ran, counted or self.counts["errors"] - len(self.broken_files))

    def words(self, test_id: str) -> set[str]:
        """Return what was said about an id, in any of its exact spellings."""
        if test_id in self.results:
            return self.results[test_id]
        if "::()" in test_id:
            # An id of pytest 3, with the instance in it.
            return self.words(test_id.replace("::()", ""))
        return {word for name in self.alias.get(test_id, ()) for word in self.results[name]}


@dataclass(frozen=True)
class TestLog:
    """A log after all parsers have read it."""

    text: str = ""
    sessions: dict[str, Session] = field(default_factory=dict)
    cut: bool = False
    """Part of the log is missing, so an id that it does not name is unknown, not failed."""

    __test__ = False

    @property
    def blank(self) -> bool:
        """Whether there is nothing to read."""
        return not self.text.strip()

    @property
    def recognised(self) -> bool:
        """Whether a parser knew the format."""
        return bool(self.sessions)

    @property
    def ended(self) -> bool:
        """Whether the framework's final line is there."""
        return bool(self.sessions) and any(session.ended for session in self.sessions.values())

    @property
    def executed(self) -> int:
        """How many tests the log shows to have run."""
        return sum(session.executed for session in self.sessions.values())

    @cached_property
    def whole(self) -> bool:
        """Whether an id that is not named was certainly not run."""
        return not self.cut and self.ended and all(session.lists_all for session in self.sessions.values())

    def names(self, test_id: str) -> bool:
        """Tell whether the log says anything about this very id, or about the file that could not be imported."""
        return any(session.words(test_id) or _file(test_id) in session.broken_files for session in self.sessions.values())

    def status(self, test_id: str) -> Status:
        """Return what the log says about an id; two runs that disagree are unknown."""
        words = {word for session in self.sessions.values() for word in session.words(test_id)}
        if not words:
            if any(_file(test_id) in session.broken_files for session in self.sessions.values()):
                return Status.FAILED
            if not self.whole or _NO_TEST.fullmatch(test_id):
                return Status.UNKNOWN
            return Status.MISSING if all(session.names_skipped for session in self.sessions.values()) else Status.NOT_RUN
        if words <= _PASS:
            return Status.PASSED
        if words <= _FAIL:
            return Status.FAILED
        return Status.SKIPPED if words == {"SKIPPED"} else Status.UNKNOWN


def _file(test_id: str) -> str:
    return test_id.split("::", 1)[0]
