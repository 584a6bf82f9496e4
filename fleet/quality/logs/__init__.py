"""Read a captured test log again and say, id by id, what it proves.

A parser is a function `(text, known ids) -> Session | None`; another framework is one more file and one more line in
PARSERS. Ids are matched exactly. What a log does not say is unknown, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from fleet.quality.logs.cargo_log import parse_cargo
from fleet.quality.logs.evidence import Session, Status, TestLog
from fleet.quality.logs.go_log import parse_go
from fleet.quality.logs.gtest_log import parse_gtest
from fleet.quality.logs.java_log import parse_java
from fleet.quality.logs.jest_log import parse_jest
from fleet.quality.logs.mocha_log import parse_mocha
from fleet.quality.logs.phpunit_log import parse_phpunit
from fleet.quality.logs.pytest_log import parse_pytest
from fleet.quality.logs.ruby_log import parse_ruby
from fleet.quality.logs.sympy_log import parse_sympy
from fleet.quality.logs.tap_log import parse_tap
from fleet.quality.logs.unittest_log import parse_unittest

PARSERS: dict[str, Callable[[str, Collection[str]], Session | None]] = {
    "pytest": parse_pytest,
    "unittest": parse_unittest,
    "sympy": parse_sympy,
    "gtest": parse_gtest,
    "go": parse_go,
    "cargo": parse_cargo,
    "jest": parse_jest,
    "mocha": parse_mocha,
    "tap": parse_tap,
    "java": parse_java,
    "phpunit": parse_phpunit,
    "ruby": parse_ruby,
}
CUT_AT = 50_000
"""Characters after which the evaluation cuts `test_output`."""

_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][0-9A-B]")
_START, _END = ">>>>> Start Test Output", ">>>>> End Test Output"
_CUT_MARK = re.compile(r"(?:\.\.\.|\[|<)\s*(?:output |log |observation )?truncated\b[^\n]{0,80}\s*\Z", re.IGNORECASE)

__all__ = ["CUT_AT", "PARSERS", "Session", "Status", "TestLog", "read_log"]


def read_log(text: str, known: Collection[str] = (), *, cut: bool = False) -> TestLog:
    """Return what `text` says; `known` ids help where a line does not show where an id ends; `cut` = the middle is missing."""
    clean = _ANSI.sub("", text) if "\x1b" in text else text
    clean = clean.replace("\r\n", "\n")
    body, ended = _between_markers(clean)
    sessions: dict[str, Session] = {}
    for name, parser in PARSERS.items():
        found = parser(body, known)
        if found is not None:
            sessions[name] = found
            body = _without(body, found.spans)
    marked = cut or not ended or _CUT_MARK.search(clean[-400:]) is not None
    return TestLog(text=clean, sessions=sessions, cut=marked or _looks_cut(text, sessions))


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """Return the text without these lines."""
    if not spans:
        return text
    lines = text.split("\n")
    for first, last in reversed(spans):
        del lines[first : last + 1]
    return "\n".join(lines)


def _between_markers(text: str) -> tuple[str, bool]:
    """Return the part that SWE-bench marks as test output; the flag is false when its end is missing."""
    start = text.find(_START)
    if start < 0:
        return text, True
    end = text.rfind(_END)
    return (text[start:end], True) if end > start else (text[start:], False)


def _looks_cut(text: str, sessions: dict[str, Session]) -> bool:
    """Tell whether the length gives a cut away; a log of that length whose lists are whole was not cut."""
    if not CUT_AT - 10 <= len(text) <= CUT_AT + 100:
        return False
    return not sessions or not all(session.ended and session.lists_all for session in sessions.values())
