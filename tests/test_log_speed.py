"""No line that a log may hold makes reading it slow."""

from __future__ import annotations

import time

import pytest

from fleet.quality.logs import read_log

HOSTILE_LINES = {
    "marks": "a::b" + " PASSED" * 2200,
    "dashes": "FAILED a::b[" + " - x" * 3900,
    "brackets": "[" * 15_900,
    "underscores": "_" * 7000 + " x" + " _" * 4000,
    "rules": "=" * 15_000 + " x",
    "counts": "1 passed, " * 1500 + "in",
    "numbers": "9" * 15_900 + " passed in 1s",
    "dots": "test_x (a.B)" + " ... x" * 2600,
    "parentheses": "x (" * 5000,
    "names": "t" * 15_000 + " (a.b",
    "spaces": " " * 15_900 + "ok",
    "arrows": "a::b <- c" * 1700,
    "subtests": "[x] SUBFAIL" + "(a)[b]" * 2600,
    "open subtests": "SUBFAIL" + "[" * 15_000,
    "closed subtests": "SUBFAIL" + "[(" * 3000 + "])" * 3000,
    "sympy": "test_" + "x" * 15_000 + " F" * 400,
    "go": "--- PASS: " * 1500 + "(0.00s)",
    "json": '{"Action":"' * 1400,
    "jest": "  ● " + " › " * 4000,
    "tree": "  ✓ " + " > " * 4000,
    "rust": "test " + "x ... " * 2600 + "ok",
    "java": "Tests run: " * 1400,
    "gradle": "a" * 8000 + " > " * 2000,
    "escapes": "\x1b[" + "0;" * 7000,
    "operating system command": "\x1b]" * 7000,
    "php": "1) " + "A\\" * 7000,
    "ruby": "A:" * 7000 + "#x = 1.0",
    "tap": "ok 1 - " + " # skip" * 2000,
}


@pytest.mark.parametrize("name", HOSTILE_LINES)
def test_reading_takes_time_in_proportion_to_the_log_whatever_its_lines(name: str) -> None:
    line = HOSTILE_LINES[name]
    starts = "= test session starts =\n= test process starts =\nPHPUnit 9 by Sebastian Bergmann\nrunning 3 tests\nPASS a.js\n"
    log = starts + f"{line}\n" * (2_000_000 // len(line))
    began = time.process_time()
    read_log(log, ["a::b"])
    # 2 MB; what grows faster than its input takes minutes.
    assert time.process_time() - began < 8
