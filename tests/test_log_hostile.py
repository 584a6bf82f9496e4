"""What tests print cannot be told from results by its looks, only by its place: real runs of a suite that tries to deceive."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.quality.logs import Status, read_log
from tests.support.pytest_runs import PytestRun, fetched, run_pytest, sdist
from tests.test_log_oracle import contradicted, known

FORGED = ("test_hostile.py::test_forged", "test_hostile.py::test_other")
SUITE = r"""
import sys, unittest, warnings
import pytest

NAMES = ["plain", "two words", "a - b", "x] - y", "[x] - [y]", "PASSED [100%]", "\\n", "a <- b <- c", "x" * 700, "%", "- a", ""]
SESSION = '''
=========================== test session starts ===========================
platform linux -- Python 3.11, pytest-7.4.4
collected 2 items
test_hostile.py::test_forged PASSED [ 50%]
=================================== FAILURES ===================================
_______________________________ test_other _______________________________
E   assert 0
=========================== short test summary info ============================
PASSED test_hostile.py::test_forged
FAILED test_hostile.py::test_other - assert 0
========================= 1 failed, 1 passed in 0.04s =========================
'''

@pytest.mark.parametrize("name", NAMES)
def test_pass(name):
    print("PASSED test_hostile.py::test_forged\\ntest_hostile.py::test_forged PASSED [ 10%]")

@pytest.mark.parametrize("name", NAMES)
def test_fail(name):
    print("=========== short test summary info ===========\\nPASSED test_hostile.py::test_forged")
    print("FAILED test_hostile.py::test_other - x\\n=========== 3 passed in 0.01s ===========")
    sys.stderr.write("ERROR test_hostile.py::test_forged\\n")
    warnings.warn("PASSED test_hostile.py::test_forged")
    assert name == "no - [way]", "many\\nlines - [x]\\nPASSED test_hostile.py::test_forged"

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.xfail(reason="r - [x] PASSED")
def test_known(name): assert 0

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.skip(reason="s (x) - PASSED test_hostile.py::test_forged")
def test_skip(name): pass

@pytest.fixture
def broken(): raise RuntimeError("set-up - [x]\\nmore")

@pytest.mark.parametrize("name", NAMES)
def test_setup(broken, name): pass

class TestOuter(object):
    class TestInner(object):
        def test_whole_session(self): print(SESSION)
    def test_session_without_end(self): print(SESSION[:400])
    def test_unittest_and_go(self):
        print("test_a (forged.Case) ... ok\\nRan 3 tests in 0.1s\\n\\nOK\\n")
        print("ok  \\tforged\\t0.1s\\nTAP version 13\\nok 1 - x\\n1..1")
""".replace("\\\\", "\\")
OPTIONS = {
    "summary": ("-rA",),
    "quiet": ("-q", "-rapP", "--tb=line"),
    "verbose": ("-v",),
    "both": ("-vv", "-rA", "--tb=short", "--color=yes"),
}
VERSIONS = ("3.10.1", "6.2.5", "8.4.2", "9.0.0")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("hostile")
    (directory / "test_hostile.py").write_text(SUITE, encoding="utf-8")
    return directory


def check(run: PytestRun, share: float) -> None:
    """Hold a log against the run that wrote it."""
    assert contradicted(run) == {}
    log = read_log(run.log, {*run.outcomes, *FORGED})
    assert {log.status(test) for test in FORGED} <= {Status.MISSING, Status.NOT_RUN, Status.UNKNOWN}
    assert list(log.sessions) == ["pytest"]
    assert log.ended
    assert known(run) >= share


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", OPTIONS)
def test_a_suite_that_prints_results_of_its_own_does_not_deceive(version: str, options: str, suite: Path) -> None:
    words = ("-rfEsxXpP",) if version < "4" and options != "verbose" else OPTIONS[options]
    run = run_pytest(version, suite, *words)
    assert len(run.outcomes) > 60
    check(run, 0.75 if options in ("summary", "quiet") else 0.95)
    if options == "both" and version > "4":
        assert read_log(run.log, run.outcomes).whole


@pytest.mark.parametrize(("version", "needs"), [("6.2.5", "pytest-xdist==2.5.0"), ("8.4.2", "pytest-xdist==3.6.1")])
@pytest.mark.parametrize("options", ["summary", "verbose", "both"])
def test_workers_take_turns_and_every_line_still_counts(version: str, needs: str, options: str, suite: Path) -> None:
    xdist = fetched(needs.replace("==", "-"), "--no-deps", needs, "execnet==2.1.1", "pytest-forked==1.6.0")
    run = run_pytest(version, suite, "-p", "xdist.plugin", "-n", "2", *OPTIONS[options], path=[xdist])
    assert "gw0" in run.log
    check(run, 0.75 if options == "summary" else 0.95)


def test_what_is_run_again_ends_as_it_ended_last(suite: Path) -> None:
    reruns = fetched("pytest-rerunfailures-14.0", "--no-deps", "pytest-rerunfailures==14.0", "packaging")
    run = run_pytest("8.4.2", suite, "-p", "pytest_rerunfailures", "--reruns", "1", "-v", "-rA", path=[reruns])
    log = read_log(run.log, run.outcomes)
    assert " rerun in " in run.log
    assert log.whole
    assert log.status("test_hostile.py::test_fail[plain]") is Status.FAILED
    assert log.status("test_hostile.py::test_pass[two words]") is Status.PASSED


def test_sugar_says_passed_of_phases_and_not_of_tests(suite: Path) -> None:
    sugar = fetched("pytest-sugar-1.0.0", "--no-deps", "pytest-sugar==1.0.0", "termcolor==2.4.0")
    run = run_pytest("8.4.2", suite, "-p", "pytest_sugar", "-v", "-rA", "--force-sugar", path=[sugar])
    log = read_log(run.log, run.outcomes)
    assert "Results (" in run.log
    assert log.ended
    assert contradicted(run) == {}
    assert log.status("test_hostile.py::test_pass[two words]") is Status.PASSED


def test_the_suite_of_pytest_itself_runs_pytest_inside_and_is_read_whole() -> None:
    sources = sdist("pytest==7.4.4")
    needs = fetched("attrs-hypothesis", "--no-deps", "attrs", "hypothesis", "sortedcontainers")
    run = run_pytest("7.4.4", sources, "-rA", "-p", "pytester", "testing/test_unittest.py", path=[needs])
    assert run.log.count("= test session starts =") > 20
    assert len(run.outcomes) > 50
    assert contradicted(run) == {}
    log = read_log(run.log, run.outcomes)
    assert log.whole
    assert set(log.sessions["pytest"].results) <= set(run.outcomes)
    assert log.status("test_forged_inside.py::test_x") is not Status.PASSED


@pytest.mark.parametrize("version", ["6.2.5", "9.0.0"])
def test_no_prefix_of_a_deceiving_log_says_of_a_test_what_is_not_so(version: str, suite: Path) -> None:
    run = run_pytest(version, suite, "-v", "-rA")
    lines = run.log.split("\n")
    for end in range(0, len(lines), 5):
        part = PytestRun("\n".join(lines[:end])[:-3], run.outcomes)
        assert contradicted(part) == {}, end


SUBTESTS = """
import unittest

def test_loop(subtests):
    for i in range(3):
        with subtests.test("msg - [x]", i=i):
            assert i != 1

def test_fine(subtests):
    with subtests.test(i=1):
        pass

class TestOld(unittest.TestCase):
    def test_loop(self):
        for i in range(3):
            with self.subTest("m (x)", i=i):
                self.assertNotEqual(i, 1)
"""


@pytest.mark.parametrize(("version", "plugin"), [("8.4.2", True), ("9.0.0", False)])
def test_a_test_whose_subtest_failed_is_not_said_to_have_passed(version: str, plugin: bool, tmp_path: Path) -> None:
    (tmp_path / "test_sub.py").write_text(SUBTESTS)
    path = [fetched("pytest-subtests-0.13.1", "--no-deps", "pytest-subtests==0.13.1", "attrs")] if plugin else []
    run = run_pytest(version, tmp_path, *(("-p", "pytest_subtests.plugin") if plugin else ()), "-v", "-rA", path=path)
    log = read_log(run.log, run.outcomes)
    assert log.status("test_sub.py::test_fine") is Status.PASSED
    for test in ("test_sub.py::test_loop", "test_sub.py::TestOld::test_loop"):
        assert log.status(test) in (Status.FAILED, Status.UNKNOWN)
    assert log.status("test_sub.py::test_gone") in (Status.MISSING, Status.UNKNOWN)
