"""The log of a real pytest run, read again, says of every test what pytest's own report hook said."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.quality.logs import Status, read_log
from tests.support.pytest_runs import PytestRun, run_pytest, sdist
from tests.support.swebench_parsers import parsed

VERSIONS = ("3.10.1", "4.6.11", "5.4.3", "6.2.5", "7.4.4", "8.4.2", "9.0.0")
OPTIONS = {
    "summary": ("-rapP",),
    "verbose": ("-v",),
    "both": ("-v", "-rapP"),
    "colour": ("-v", "-rapP", "--color=yes"),
    "quiet": ("-q", "-rapP"),
    "short": ("-rapP", "--tb=no"),
}
PROJECTS = ("toolz==1.0.0", "inflection==0.5.1", "semver==3.0.2")
SUITE = """
import unittest
import pytest
from pytest import skip

NAMES = ["plain", "two words", "a - b", "x] - y", "[", "a::b", "PASSED",
         "FAILED [ 10%]", "slash/y", "\\u00fc", "tab\\there", "", "=" * 5]

@pytest.mark.parametrize("name", NAMES)
def test_named(name):
    print("PASSED test_suite.py::test_forged")
    assert name != "a - b"

@pytest.mark.parametrize("x,y", [(1, 2), (3, 4)])
class TestPairs:
    def test_sum(self, x, y):
        assert x + y != 7, "sum - is [seven]"

def test_skips():
    skip("later - PASSED [x]")

@pytest.mark.xfail(reason="known - FAILED")
def test_known():
    assert False

@pytest.mark.xfail
def test_surprise():
    pass

@pytest.fixture
def broken():
    raise RuntimeError("setup - failed")

def test_setup(broken):
    pass

@pytest.fixture
def late():
    yield
    raise RuntimeError("teardown")

def test_teardown(late):
    pass

class TestOld(unittest.TestCase):
    def test_old(self):
        self.assertEqual(1, 1)

    def test_old_fails(self):
        self.assertEqual(1, 2, "FAILED test_suite.py::test_other - x")
"""
STATUS = {
    "PASSED": Status.PASSED,
    "XFAIL": Status.PASSED,
    "FAILED": Status.FAILED,
    "ERROR": Status.FAILED,
    "SKIPPED": Status.SKIPPED,
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("suite")
    (directory / "test_suite.py").write_text(SUITE, encoding="utf-8")
    return directory


def contradicted(run: PytestRun) -> dict[str, tuple[Status, set[str]]]:
    """Return the tests of which the log says something that is not so; "unknown" contradicts nothing."""
    log = read_log(run.log, run.outcomes)
    found = {}
    for test, words in run.outcomes.items():
        said = log.status(test)
        truth = {STATUS[word] for word in words if word in STATUS}
        if said is Status.NOT_RUN and truth == {Status.SKIPPED}:
            continue
        if said is not Status.UNKNOWN and ({said} != truth or len(words) != len(truth)):
            found[test] = (said, words)
    return found


def known(run: PytestRun) -> float:
    """Return the share of tests with one outcome of which the log proves it."""
    log = read_log(run.log, run.outcomes)
    single = {test for test, words in run.outcomes.items() if len(words) == 1 and words <= set(STATUS)}
    return sum(log.status(test) is not Status.UNKNOWN for test in single) / len(single)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_version_and_format_is_read_as_it_was_meant(version: str, options: str, suite: Path) -> None:
    run = run_pytest(version, suite, *OPTIONS[options])
    assert len(run.outcomes) >= 20
    assert contradicted(run) == {}
    log = read_log(run.log, run.outcomes)
    assert (log.ended, log.cut) == (True, False)
    assert log.status("test_suite.py::test_forged") in (Status.MISSING, Status.NOT_RUN, Status.UNKNOWN)
    assert known(run) >= 0.9


@pytest.mark.parametrize("version", ["6.2.5", "9.0.0"])
def test_a_log_that_was_cut_anywhere_says_nothing_false(version: str, suite: Path) -> None:
    run = run_pytest(version, suite, "-v", "-rapP")
    lines = run.log.split("\n")
    for end in range(0, len(lines), 3):
        part = PytestRun("\n".join(lines[:end])[:-2], run.outcomes)
        assert contradicted(part) == {}, end


@pytest.mark.parametrize("version", ["6.2.5", "8.4.2"])
@pytest.mark.parametrize("project", PROJECTS)
def test_the_suites_of_real_projects_are_read_as_they_were_meant(version: str, project: str) -> None:
    sources = sdist(project)
    run = run_pytest(version, sources, "-v", "-rapP", "-o", "addopts=", "--tb=short", path=[sources, sources / "src"])
    assert len(run.outcomes) > 50
    assert contradicted(run) == {}
    assert known(run) >= 0.99


HARNESS = {
    "parse_log_jest": ("jest_verbose", {"skipped is skipped"}),
    "parse_log_vitest": ("vitest_verbose", set()),
    "parse_log_gotest": ("go_verbose", {"TestForged"}),
    "parse_log_cargo": ("cargo", {"tests::forged"}),
    "parse_log_gradle_custom": ("gradle", set()),
    "parse_log_phpunit": ("phpunit_testdox", set()),
    "parse_log_googletest": ("gtest", set()),
    "parse_log_sympy": ("sympy", set()),
    "parse_log_tap": ("mocha_tap", {"calc is pending # SKIP -"}),
}
"""Parser of the harness → a log, and the ids of which the harness itself is wrong: printed by a test, or skipped."""


@pytest.mark.parametrize("parser", HARNESS)
def test_ids_as_the_harness_writes_them_are_found_and_agree(parser: str) -> None:
    name, wrong = HARNESS[parser]
    text = (Path(__file__).parent / f"fixtures/logs/{name}.txt").read_text(encoding="utf-8")
    theirs = {test: STATUS[word] for test, word in parsed(parser, text).items() if test not in wrong}
    assert len(theirs) >= 2
    log = read_log(text, theirs)
    assert {test: log.status(test) for test in theirs} == theirs


@pytest.mark.parametrize("parser", ["parse_log_pytest", "parse_log_pytest_options", "parse_log_pytest_v2"])
@pytest.mark.parametrize("version", ["6.2.5", "9.0.0"])
def test_what_the_harness_reads_in_a_pytest_log_is_not_contradicted(parser: str, version: str, suite: Path) -> None:
    run = run_pytest(version, suite, "-rapP", "--tb=no")
    theirs = {test: STATUS[word] for test, word in parsed(parser, run.log).items() if word in STATUS and "::" in test}
    log = read_log(run.log, theirs)
    # Ids that the harness cuts at a space stand for several tests, of which some failed.
    different = {test for test, status in theirs.items() if log.status(test) not in (status, Status.UNKNOWN)}
    assert {test for test in different if test not in run.outcomes} == set()
    assert sum(log.status(test) is status for test, status in theirs.items()) >= 0.8 * len(theirs)
