"""Every fault and every attack that is known has a test that produces it, and the documentation says so, row by row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.support.catalogue import ATTACKS, FAULTS, NOT_INJECTED, marks

TESTS = Path(__file__).parent
DOCS = TESTS.parent / "docs/guarantees.md"
ROWS = {**FAULTS, **ATTACKS}
WEB = {f"S{number}" for number in range(17, 24)}
"""What only a web server can be attacked with."""
MARKS = marks()


def test_the_catalogue_is_whole() -> None:
    assert (len(FAULTS), len(ATTACKS)) == (69, 46)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_has_a_test(row: str) -> None:
    assert MARKS.get(row) or row in NOT_INJECTED, f"{row} ({ROWS[row]}) has no test"


def test_a_mark_has_a_row() -> None:
    assert set(MARKS) - set(ROWS) == set()


def test_a_test_of_a_row_is_neither_skipped_nor_expected_to_fail() -> None:
    """Only what attacks the web dashboard waits for it, by name and strictly."""
    found = {
        path.relative_to(TESTS).as_posix()
        for path in sorted(TESTS.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "xfail", "importorskip")
    }
    assert found == {"attacks/test_web.py"}
    assert all(any("test_web.py" in test for test in MARKS[row]) for row in WEB)


def test_the_documentation_lists_every_row_with_its_words() -> None:
    documented = dict(re.findall(r"^\| ([A-Z]\d+) \| (.*?) \|$", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert {row: words for row, words in documented.items() if row in ROWS} == ROWS


def test_what_cannot_be_produced_here_is_documented_with_its_reason() -> None:
    text = DOCS.read_text(encoding="utf-8")
    assert [row for row, reason in NOT_INJECTED.items() if f"**{row}**" not in text or reason not in text] == []
