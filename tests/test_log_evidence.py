"""Reading a test log again gives what the test run itself knew: compared with real pytest and unittest runs made here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.quality.logs import CUT_AT, Status, TestLog, read_log

TESTS = r"""
import pytest
WORDS = ["a b", "a - b", "a] - b", "[x] y", "é ü", "PASSED", " lead", "a::b", "x FAILED [ 50%]", "x - FAILED"]

@pytest.mark.parametrize("word", WORDS)
def test_passes(word): pass

@pytest.mark.parametrize("word", WORDS)
def test_fails(word): assert word == "no - way [1] - 2", "message - with - dashes [x] - y"

@pytest.fixture
def broken(): raise RuntimeError("boom - here")
def test_setup_error(broken): pass

@pytest.fixture
def late():
    yield
    raise RuntimeError("late")
def test_teardown_error(late): pass

@pytest.mark.skip(reason="because PASSED (x)")
def test_skipped(): pass
@pytest.mark.xfail(reason="known - bug")
def test_expected(): assert 0
@pytest.mark.xfail
def test_unexpected(): pass

class TestInside:
    def test_method(self):
        print("PASSED test_words.py::test_forged\ntest_words.py::test_forged PASSED [ 10%]")
        print("=========== short test summary info ===========")
"""
CONFTEST = """
import json
def pytest_runtest_logreport(report):
    word = {"passed": "PASSED", "failed": "FAILED", "skipped": "SKIPPED"}[report.outcome]
    if report.when != "call" and report.failed:
        word = "ERROR"
    elif report.when != "call" and not report.skipped:
        return
    if hasattr(report, "wasxfail"):
        word = "XFAIL" if report.skipped else "XPASS"
    with open("truth.jsonl", "a") as file:
        file.write(json.dumps([report.nodeid, word]) + "\\n")
"""
LOOKS = {
    "short summary": ["-rA"],
    "verbose": ["-v"],
    "verbose and summary": ["-v", "-rA"],
    "colours": ["-v", "-rA", "--color=yes"],
    "not captured": ["-rA", "-s"],
    "no traceback": ["-rA", "--tb=no", "-q"],
    "classic": ["-v", "-o", "console_output_style=classic"],
    "count": ["-v", "-o", "console_output_style=count"],
    "warnings": ["-rA", "-W", "default"],
}


def run_pytest(directory: Path, *options: str) -> tuple[str, dict[str, set[str]]]:
    """Run pytest over TESTS and return its output and what it knew, id → words."""
    (directory / "test_words.py").write_text(TESTS)
    (directory / "conftest.py").write_text(CONFTEST)
    truth = directory / "truth.jsonl"
    truth.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    known: dict[str, set[str]] = {}
    for line in truth.read_text().splitlines() if truth.exists() else []:
        test, word = json.loads(line)
        known.setdefault(test, set()).add(word)
    return done.stdout, known


def status_of(words: set[str]) -> Status:
    if words <= {"PASSED", "XFAIL"}:
        return Status.PASSED
    if words <= {"FAILED", "ERROR"}:
        return Status.FAILED
    return Status.SKIPPED if words == {"SKIPPED"} else Status.UNKNOWN


@pytest.mark.parametrize("look", LOOKS)
def test_every_id_has_the_outcome_that_pytest_gave_it(look: str, tmp_path: Path) -> None:
    text, truth = run_pytest(tmp_path, *LOOKS[look])
    log = read_log(text, list(truth))
    assert len(truth) == 26
    wrong = {test: (words, log.status(test)) for test, words in truth.items() if log.status(test) is not status_of(words)}
    # The short summary counts skips and does not name them.
    assert {test for test in wrong if truth[test] != {"SKIPPED"}} == set()
    assert log.whole
    assert log.executed == (26 if "-s" in LOOKS[look] else 25)


@pytest.mark.parametrize("look", LOOKS)
def test_what_a_test_prints_proves_nothing(look: str, tmp_path: Path) -> None:
    text, _ = run_pytest(tmp_path, *LOOKS[look])
    forged = read_log(text, ["test_words.py::test_forged"]).status("test_words.py::test_forged")
    assert forged is not Status.PASSED or "-s" in LOOKS[look]


def test_dots_count_but_name_nobody(tmp_path: Path) -> None:
    text, truth = run_pytest(tmp_path, "-q")
    log = read_log(text, list(truth))
    assert log.executed == 24
    assert not log.whole
    assert log.status("test_words.py::TestInside::test_method") is Status.UNKNOWN
    assert log.status("test_words.py::test_fails[a - b]") is Status.FAILED


def test_an_id_that_a_whole_log_does_not_name_is_missing(tmp_path: Path) -> None:
    text, truth = run_pytest(tmp_path, "-rA")
    assert read_log(text, list(truth)).status("test_words.py::test_passes[a") is Status.PASSED
    for near in ("test_words.py::test_passe", "test_words.py::test_passes", "est_words.py::test_passes[a b]", "test_method"):
        # The summary counts a skipped test without its name; with -v every one is named.
        assert read_log(text, [*truth, near]).status(near) is Status.NOT_RUN
        assert read_log(run_pytest(tmp_path, "-v")[0], [*truth, near]).status(near) is Status.MISSING


def test_an_id_that_a_cut_log_does_not_name_is_unknown(tmp_path: Path) -> None:
    text, truth = run_pytest(tmp_path, "-v")
    half = text[: text.index("test_fails") + 200]
    for log in (read_log(half, list(truth)), read_log(text, list(truth), cut=True)):
        assert log.status("test_words.py::test_gone") is Status.UNKNOWN
    assert read_log(half, list(truth)).status("test_words.py::test_passes[a b]") is Status.PASSED


def test_a_log_of_exactly_the_cut_length_is_cut_unless_it_is_whole() -> None:
    end = "PASSED a.py::b\n=== 1 passed in 0.1s ===\n"
    head = "= short test summary info =\n"
    whole = head + "x" * (CUT_AT - len(head) - len(end) - 1) + "\n" + end
    assert len(whole) == CUT_AT
    assert not read_log(whole).cut
    assert read_log(whole.replace("1 passed", "2 passed")).cut
    assert read_log("x" * CUT_AT).cut
    assert not read_log("x" * (CUT_AT + 1000)).cut


def test_a_file_that_cannot_be_imported_fails_all_its_tests(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text("import nowhere\ndef test_a(): pass\n")
    for options in (["-rA"], ["-v"], ["-q"]):
        text, truth = run_pytest(tmp_path, *options)
        log = read_log(text)
        assert (truth, log.executed) == ({}, 0)
        assert log.status("test_broken.py::test_a") is Status.FAILED
        assert log.status("test_words.py::TestInside::test_method") is not Status.PASSED


def test_a_run_without_tests_is_one(tmp_path: Path) -> None:
    for options in (["-k", "nothing"], ["-q", "-k", "nothing"]):
        text, _ = run_pytest(tmp_path, *options)
        log = read_log(text)
        assert (log.recognised, log.ended, log.executed) == (True, True, 0)


def test_two_sessions_in_one_log_are_added_up(tmp_path: Path) -> None:
    one, truth = run_pytest(tmp_path, "-rA", "-k", "passes")
    other, more = run_pytest(tmp_path, "-v", "-k", "fails")
    log = read_log(one + other, [*truth, *more])
    assert log.executed == 20
    assert log.whole
    assert log.status("test_words.py::test_passes[a b]") is Status.PASSED
    assert log.status("test_words.py::test_fails[a b]") is Status.FAILED


def test_an_id_that_passed_and_failed_is_unknown() -> None:
    log = read_log("= short test summary info =\nPASSED a.py::b\nFAILED a.py::b - x\n= 1 failed, 1 passed in 0.1s =\n")
    assert log.status("a.py::b") is Status.UNKNOWN


def test_ids_that_a_space_splitting_parser_shortened_are_found_only_when_they_agree() -> None:
    text = (
        "= short test summary info =\nPASSED a.py::b[x y]\nPASSED a.py::b[x z]\nPASSED a.py::c[x y]\nFAILED a.py::c[x z] - no\n"
    )
    log = read_log(text + "= 1 failed, 3 passed in 0.1s =\n")
    assert log.status("a.py::b[x") is Status.PASSED
    assert log.status("a.py::c[x") is Status.UNKNOWN
    assert log.status("a.py::b") is Status.MISSING


@pytest.mark.parametrize(
    "lines",
    [
        [
            "======= test session starts =======",
            "a.py::b PASSED",
            "a.py::c FAILED",
            "=== 1 failed, 1 passed in 0.12 seconds ===",
        ],
        ["[gw0] [ 50%] PASSED a.py::b ", "[gw1] [100%] FAILED a.py::c ", "=== 1 failed, 1 passed in 3661.00s (1:01:01) ==="],
        [
            ">>>>> Start Test Output",
            "PASSED a.py::b",
            "FAILED a.py::c",
            "1 failed, 1 passed, 3 warnings in 0.12s",
            ">>>>> End Test Output",
        ],
        ["a.py::b <- lib/base.py PASSED [ 50%]", "a.py::c FAILED [100%]", "=== 1 failed, 1 passed in 1.00s ==="],
        [
            "\x1b[32mPASSED\x1b[0m a.py::\x1b[1mb\x1b[0m",
            "\x1b[31mFAILED\x1b[0m a.py::c - E",
            "\x1b[31m1 failed\x1b[0m, 1 passed in 1s",
        ],
        ["PASSED a.py::b\r", "FAILED a.py::c - assert 0\r", "=== 1 failed, 1 passed in 0.12s ===\r"],
    ],
    ids=["pytest 3", "xdist", "swebench markers", "inherited", "colours", "crlf"],
)
def test_older_and_decorated_logs_are_read(lines: list[str]) -> None:
    log = read_log("\n".join(lines))
    assert (log.status("a.py::b"), log.status("a.py::c")) == (Status.PASSED, Status.FAILED)
    assert (log.executed, log.whole) == (2, True)


UNITTESTS = '''
import unittest
class Words(unittest.TestCase):
    def test_ok(self): pass
    def test_doc(self):
        """First line of the docstring."""
    def test_fail(self): self.fail("x ... ok")
    def test_print(self): print("hello ... ok?")
    def test_error(self): raise OSError
    @unittest.skip("no ... ok")
    def test_skip(self): pass
    @unittest.expectedFailure
    def test_expected(self): self.fail()
    def test_sub(self):
        for number in range(3):
            with self.subTest(number=number): self.assertNotEqual(number, 1)
'''
OUTCOMES = {
    "ok": Status.PASSED,
    "doc": Status.PASSED,
    "fail": Status.FAILED,
    "print": Status.PASSED,
    "error": Status.FAILED,
    "skip": Status.SKIPPED,
    "expected": Status.PASSED,
    "sub": Status.FAILED,
}


def run_unittest(directory: Path, *options: str) -> TestLog:
    (directory / "words.py").write_text(UNITTESTS)
    command = [sys.executable, "-m", "unittest", *options]
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return read_log(done.stdout)


@pytest.mark.parametrize("spelling", ["test_{0} (words.Words.test_{0})", "test_{0} (words.Words)", "words.Words.test_{0}"])
def test_unittest_outcomes_are_read_in_every_spelling_of_the_id(spelling: str, tmp_path: Path) -> None:
    log = run_unittest(tmp_path, "-v", "words")
    assert {name: log.status(spelling.format(name)) for name in OUTCOMES} == OUTCOMES
    assert log.status("First line of the docstring.") is Status.PASSED
    assert log.ended
    assert log.executed == 7


def test_a_unittest_module_that_cannot_be_imported_ran_nothing(tmp_path: Path) -> None:
    log = run_unittest(tmp_path, "-v", "nowhere")
    assert (log.recognised, log.ended, log.executed) == (True, True, 0)


OLD_SUBTESTS = """\
test_sub (words.Words) ... test_many (words.Words)
Doc of many. ... test_next (words.Words) ... ok
test_noise (words.Words)
Noise ... with dots. ... /x.py:12: RemovedWarning: gone ... soon
  warnings.warn(
ok
Applying sites.0002_alter_domain_unique...test_behind (words.Words) ... ok
test_printed_ok (words.Words) ... ok
test_skip (words.Words) ... skipped 'not ... ok'
package.tests.test_nose ... ok

======================================================================
FAIL: test_sub (words.Words) [msg (x) ... ok] (number=1)
----------------------------------------------------------------------
AssertionError: 1 == 1

======================================================================
FAIL: test_sub (words.Words) (number=2)
----------------------------------------------------------------------
AssertionError: 2 == 2

======================================================================
FAIL: test_many (words.Words) (number=0)
Doc of many.
----------------------------------------------------------------------
AssertionError: None

======================================================================
FAIL: test_printed_ok (words.Words)
----------------------------------------------------------------------
AssertionError: None

----------------------------------------------------------------------
Ran 8 tests in 0.001s

FAILED (failures=4, skipped=1)
"""


def test_what_stands_between_a_name_and_its_outcome_is_not_taken_for_either() -> None:
    log = read_log(OLD_SUBTESTS, ["package.tests.test_nose"])
    failed = ("test_sub (words.Words)", "test_many (words.Words.test_many)", "Doc of many.", "test_printed_ok (words.Words)")
    passed = ("test_next (words.Words)", "Noise ... with dots.", "test_behind (words.Words)", "package.tests.test_nose")
    assert {log.status(test) for test in failed} == {Status.FAILED}
    assert {log.status(test) for test in passed} == {Status.PASSED}
    assert log.status("test_skip (words.Words)") is Status.SKIPPED
    assert log.whole
    assert log.status("test_gone (words.Words)") is Status.MISSING
    assert not read_log(OLD_SUBTESTS.replace("Ran 8", "Ran 9"), ["package.tests.test_nose"]).whole


def test_the_outcome_of_a_class_is_not_that_of_a_test() -> None:
    text = "setUpClass (a.Bad) ... ERROR\ntest_fine (a.Good.test_fine) ... ok\n\n"
    log = read_log(f"{text}Ran 2 tests in 0.1s\n\nFAILED (errors=1)\n")
    assert not log.whole
    assert log.status("test_never (a.Bad)") is Status.UNKNOWN
    assert read_log(f"{text}Ran 1 test in 0.1s\n\nFAILED (errors=1)\n").status("test_never (a.Bad)") is Status.MISSING


def test_a_session_that_was_killed_leaves_what_it_did_not_reach_unknown() -> None:
    killed = "=== test session starts ===\ncollected 9 items\na.py::b PASSED [ 10%]\nKilled\n"
    log = read_log(f"{killed}=== test session starts ===\ncollected 1 item\na.py::c PASSED [100%]\n=== 1 passed in 0.1s ===\n")
    assert (log.status("a.py::b"), log.status("a.py::c")) == (Status.PASSED, Status.PASSED)
    assert log.status("a.py::d") is Status.UNKNOWN


def test_two_frameworks_one_after_the_other_are_both_read() -> None:
    first = "..F\n===\nFAIL: test_a (m.C)\n---\nAssertionError\n\nRan 3 tests in 0.1s\n\nFAILED (failures=1)\n"
    log = read_log(f"{first}.. [100%]\n= short test summary info =\nPASSED a.py::b\nPASSED a.py::c\n2 passed in 0.1s\n")
    assert set(log.sessions) == {"pytest", "unittest"}
    assert (log.status("test_a (m.C)"), log.status("a.py::b")) == (Status.FAILED, Status.PASSED)
    assert not log.whole
