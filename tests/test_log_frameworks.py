"""Logs of test frameworks other than Python's, as the programs themselves wrote them, prove what they should and no more."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.quality.logs import PARSERS, Status, read_log

LOGS = Path(__file__).parent / "fixtures/logs"
P, F, S, M, U = Status.PASSED, Status.FAILED, Status.SKIPPED, Status.MISSING, Status.UNKNOWN


class Expected(NamedTuple):
    """What a log proves; `whole`: an id that it does not name was certainly not run."""

    framework: str
    whole: bool
    executed: int
    says: dict[str, Status]


NODE = {"calc > adds": P, "fails on purpose": F, "is skipped": S, "stands alone": P, "calc": M}
TABLE: dict[str, Expected] = {
    "go_verbose": Expected(
        "go", True, 8,
        {
            "TestAdd": P, "TestTable": F, "TestTable/one_two": P, "TestTable/three": F, "TestSkipped": S, "ExampleAdd": P,
            "TestPanics": F, "example.org/calc/calc/TestAdd": P, "example.org/calc/good.TestGood": P,
            # Printed by a test, never announced by the framework.
            "TestForged": M,
            # Its package was not built, and the one behind the panic was never reached.
            "TestNever": M, "TestAfter": M,
        },
    ),
    "go_json": Expected("go", True, 8, {"TestAdd": P, "TestTable/three": F, "TestForged": M, "TestNever": M}),
    "go_noisy": Expected(
        "go", True, 12,
        {
            # Its outcome stands behind what it printed without an end of line.
            "TestPartial": P, "TestPartialFail": F, "TestPar/g/x/y": P, "TestForged": M, "FuzzX/seed#0": P,
            # Two packages have a test of this name.
            "TestSame": U, "example.org/calc/a.TestSame": P, "example.org/calc/b/TestSame": F,
        },
    ),
    "go_noisy_json": Expected(
        "go", True, 12,
        {"TestPartial": P, "TestPartialFail": F, "TestPar/g/z": F, "TestForged": M, "example.org/calc/b.TestSame": F},
    ),
    "go_quiet": Expected("go", False, 1, {"TestSame": U}),
    "go_none": Expected("go", True, 0, {"TestSame": M}),
    "go_good": Expected("go", True, 1, {"TestGood": P}),
    "go_plain": Expected("go", False, 4, {"TestTable": F, "TestAdd": U, "TestPanics": F}),
    "cargo": Expected(
        "cargo", True, 5,
        {
            "tests::adds": P, "tests::fails_on_purpose": F, "tests::is_ignored": S, "tests::panics": P,
            "tests::panics - should panic": P, "integration": P, "src/lib.rs - add": P, "tests::forged": M,
        },
    ),
    "cargo_broken": Expected("cargo", True, 0, {"tests::adds": M}),
    "jest_verbose": Expected(
        "jest", True, 4,
        {
            "calc > adds two numbers": P, "adds two numbers": P, "calc with strings fails on purpose": F, "fails on purpose": F,
            'calc > with strings > concatenates "a" > "b"': P, "calc > is skipped": S, "stands alone": P, "never runs": M,
        },
    ),
    "jest_plain": Expected("jest", False, 4, {"calc > with strings > fails on purpose": F, "calc > adds two numbers": U}),
    "vitest_verbose": Expected(
        "jest", True, 3,
        {
            "calc > adds two numbers": P, "v.vtest.mjs > calc > with strings > passes": P, "with strings": M,
            "calc > with strings > fails on purpose": F, "calc > is skipped": S,
        },
    ),
    "vitest_plain": Expected("jest", True, 3, {"calc > adds two numbers": P, "calc > with strings > fails on purpose": F}),
    "mocha_spec": Expected(
        "mocha", True, 3,
        {"calc > adds two numbers": P, "calc with strings concatenates": P, "fails on purpose": F, "calc > is pending": S},
    ),
    "mocha_tap": Expected("tap", True, 3, {"calc adds two numbers": P, "calc with strings fails on purpose": F}),
    "node_spec": Expected("mocha", True, 3, NODE),
    "node_tap": Expected("tap", True, 3, NODE),
    "phpunit": Expected(
        "phpunit", False, 4,
        {r"App\Tests\CalcTest::testFailsOnPurpose": F,
         r"App\Tests\CalcTest::testErrors": F, r"App\Tests\CalcTest::testAdds": U},
    ),
    "phpunit_testdox": Expected("phpunit", False, 5, {r"App\Tests\Calc::Adds": P, "Fails on purpose": F, "Skipped": S}),
    "minitest_verbose": Expected(
        "ruby", True, 3,
        {
            "CalcTest#test_adds": P, "CalcTest#test_fails_on_purpose": F, "CalcTest::test_errors": F,
            "CalcTest#test_skipped": S, "CalcTest#test_none": M,
        },
    ),
    "minitest_plain": Expected("ruby", False, 2, {"CalcTest#test_fails_on_purpose": F, "CalcTest#test_adds": U}),
    "rspec_doc": Expected("ruby", False, 2, {"Calc with strings fails on purpose": F, "./calc_spec.rb:4": F, "Calc adds": U}),
    "surefire": Expected(
        "java", False, 4,
        {
            "org.example.CalcTest": F, "org.example.OtherTest": P, "org.example.LaterTest": S,
            "org.example.CalcTest.failsOnPurpose": F, "org.example.CalcTest#errors": F, "org.example.OtherTest.any": U,
        },
    ),
    "sympy": Expected(
        "sympy", True, 5,
        {
            "test_bug1": P, "test_pow_issue": F, "test_broken": F, "test_known": P, "test_gone": M,
            "sympy/core/tests/test_arith.py:test_broken": F,
        },
    ),
    "sympy_noisy": Expected(
        "sympy", False, 10,
        {
            # Its outcome cannot be told from what it printed without an end of line.
            "test_prints_partial": U,
            "test_prints": P, "test_warns": P, "test_bad": F, "test_err": F, "test_known": P,
            "test_skipped": S, "test_skips": S, "test_last": P, "sympy/core/tests/test_noisy.py:test_bad": F,
        },
    ),
    "gtest": Expected("gtest", True, 2, {"CalcTest.Adds": P, "CalcTest.FailsOnPurpose": F, "CalcTest.Later": S}),
    "gradle": Expected("java", False, 2, {"org.example.CalcTest.adds": P, "org.example.CalcTest > failsOnPurpose": F}),
}  # fmt: skip


def text(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8")


def test_every_recorded_log_is_in_the_table() -> None:
    assert {path.stem for path in LOGS.glob("*.txt")} == set(TABLE)
    assert {expected.framework for expected in TABLE.values()} | {"pytest", "unittest"} == set(PARSERS)


@pytest.mark.parametrize("name", TABLE)
def test_a_log_proves_what_the_program_said(name: str) -> None:
    expected = TABLE[name]
    log = read_log(text(name))
    assert list(log.sessions) == [expected.framework]
    assert (log.ended, log.whole, log.executed) == (True, expected.whole, expected.executed)
    assert {test: log.status(test) for test in expected.says} == expected.says


@pytest.mark.parametrize("name", TABLE)
def test_a_log_whose_end_is_missing_proves_no_absence(name: str) -> None:
    whole = text(name)
    log = read_log(whole[: len(whole) // 2], cut=True)
    assert log.status("no::such::test") is Status.UNKNOWN
    for test, said in TABLE[name].says.items():
        assert log.status(test) in (said, Status.UNKNOWN)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_mixture_of_lines_breaks_a_parser(data: st.DataObject) -> None:
    lines = [line for name in TABLE for line in text(name).split("\n")]
    chosen = data.draw(st.lists(st.sampled_from(lines), max_size=60))
    chosen += data.draw(st.lists(st.text(max_size=40), max_size=5))
    log = read_log("\n".join(chosen), {"a::b"})
    assert log.executed >= 0
    assert log.status("a::b") in Status
