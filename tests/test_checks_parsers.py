"""Every check has an answer it is content with, and answers it is not content with, each with its fix."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fleet.checks.base import Authority, Expectation, Questions
from fleet.checks.facts import read_facts
from fleet.checks.registry import CHECKS, GROUPS
from fleet.checks.survey import judge_host, questions_for
from fleet.model.findings import Mark
from tests.support.facts import ANSWERED_AT, EXPECTED, FIXTURES, healthy, make_host, make_pipeline, patched, subject

BY_NAME = {check.name: check for check in CHECKS}


def cases() -> list[Any]:
    return [
        pytest.param(name, case, id=f"{name}: {case['about']}")
        for name in BY_NAME
        for case in json.loads((FIXTURES / f"{name}.json").read_text())
    ]


def test_every_registered_check_has_a_failing_fixture_and_no_fixture_is_orphaned() -> None:
    recorded = {path.stem for path in FIXTURES.glob("*.json")} - {"healthy"}
    assert recorded == set(BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_healthy_host_is_ok_for(name: str) -> None:
    findings = BY_NAME[name].findings(subject(healthy()))
    assert findings
    assert {finding.mark for finding in findings} == {Mark.OK}


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_defect_is_found_with_its_fix(name: str, case: dict[str, Any]) -> None:
    findings = BY_NAME[name].findings(subject(patched(case["facts"])))
    problems = [finding for finding in findings if finding.mark is not Mark.OK]
    assert [finding.mark for finding in problems] == [Mark(case.get("mark", "fail"))]
    assert case["says"] in problems[0].message
    assert case["fix"] in problems[0].fix


@pytest.mark.parametrize(("name", "case"), cases())
def test_a_defect_is_reported_by_its_own_check_alone(name: str, case: dict[str, Any]) -> None:
    report = judge_host(make_host(), make_pipeline(), patched(case["facts"]), 1.0, EXPECTED, ANSWERED_AT)
    speaking = {finding.check for finding in report.findings if finding.mark is not Mark.OK}
    assert speaking == {name, *case.get("also", ())}
    assert report.ready is (case.get("mark") == "warn")


def test_a_host_that_was_not_listened_to_is_not_called_noisy() -> None:
    answer = healthy()
    del answer["noise"]
    assert BY_NAME["shell"].findings(subject(answer)) == []


def test_what_a_shell_prints_is_shown_in_eighty_harmless_characters() -> None:
    sample = "\x1b]0;owned\x07\x1b[2J" + "\u202e" * 3 + "hello\r\n" * 100
    (finding,) = BY_NAME["shell"].findings(subject(healthy() | {"noise": {"bytes": 4000, "sample": sample}}))
    shown = finding.message.partition("results: ")[2]
    assert "hello hello" in shown
    assert "\x1b" not in shown
    assert len(shown) <= 80 + 2 + shown.count("\\")


def test_a_missing_script_is_said_once() -> None:
    answer = patched({"files": {"~/OpenHands/scripts/run.sh": {"exists": False, "sha256": None, "mode": None}}})
    report = judge_host(make_host(), make_pipeline(), answer, 1.0, EXPECTED, ANSWERED_AT)
    assert [finding.check for finding in report.findings if finding.mark is not Mark.OK] == ["consistency"]


def test_a_command_that_is_no_critical_file_must_be_there_and_executable() -> None:
    pipeline = make_pipeline(command=["./go.sh", "{dataset}"])
    answers: list[tuple[dict[str, Any], str]] = [
        ({"exists": False}, "~/OpenHands/go.sh is not there"),
        ({"exists": False, "error": "Permission denied"}, "Permission denied"),
        ({"exists": True, "mode": 0o644}, "~/OpenHands/go.sh is not executable"),
    ]
    assert "~/OpenHands/go.sh" in questions_for(make_host(), pipeline)["files"]
    for file, says in answers:
        answer = patched({"files": {"~/OpenHands/go.sh": file}})
        problems = [f for f in BY_NAME["scripts"].findings(subject(answer, pipeline=pipeline)) if f.mark is Mark.FAIL]
        assert [says in problem.message for problem in problems] == [True]
        assert ["fleet sync" in problem.fix for problem in problems] == [False]  # it would not bring this file


@pytest.mark.parametrize(
    ("authority", "asks_for"),
    [
        (Authority.REFERENCE, "fleet sync eval1"),
        (Authority.MAJORITY, "fleet sync eval1 --reference DIR (a checkout with the right files)"),
    ],
)
def test_the_sync_that_makes_a_script_executable_can_be_typed_as_it_stands(authority: Authority, asks_for: str) -> None:
    key, path = "scripts/run.sh", "~/OpenHands/scripts/run.sh"
    sha256 = str(healthy()["files"][path]["sha256"])
    answer = patched({"files": {path: healthy()["files"][path] | {"mode": 0o644}}})
    expected = {**EXPECTED, key: Expectation(authority, "3 of 4 hosts", sha256=sha256)}
    (found,) = [one for one in BY_NAME["scripts"].findings(subject(answer, expected=expected)) if one.mark is Mark.FAIL]
    assert found.fix.endswith(f"chmod +x {path}, or {asks_for}")


def test_all_questions_fit_into_one_request() -> None:
    questions = questions_for(make_host(), make_pipeline())
    assert questions["files"] == ["~/OpenHands/scripts/run.sh", "~/OpenHands/docker.py", "~/.fleet/pipelines/bench/helper.py"]
    assert questions["tools"] == ["rsync", "git"]
    assert questions["disk"] == "~/OpenHands"
    assert questions["containers"] == ["openhands-runtime-*"]
    assert questions["processes"] == ["run_infer"]
    assert questions["docker"] is questions["memory"] is questions["logind"] is True


def test_a_readiness_command_gets_the_environment_that_needs_no_task() -> None:
    (command,) = questions_for(make_host(), make_pipeline())["commands"]
    assert command["env"] == {"PYTHONPATH": "~/OpenHands"}
    assert command["cwd"] == "~/OpenHands"


def test_a_readiness_command_is_not_blamed_for_a_work_directory_that_is_not_there() -> None:
    answer = healthy()
    answer["disk"]["path"] = "/home"
    for command in answer["commands"].values():
        command.update(rc=None, error="[Errno 2] No such file or directory: '/home/ubuntu/work'")
    said = BY_NAME["commands"].findings(subject(answer))
    assert said
    for finding, cause in zip(said, BY_NAME["workdir"].findings(subject(answer)) * len(said), strict=True):
        assert "not tried, the work directory is not there" in finding.message
        assert finding.fix == cause.fix


def test_the_work_directory_of_a_host_overrides_the_pipelines() -> None:
    questions = questions_for(make_host(workdir="/data/oh/"), make_pipeline())
    assert questions["disk"] == "/data/oh"
    assert "/data/oh/docker.py" in questions["files"]


def test_merging_questions_repeats_nothing() -> None:
    questions = Questions()
    questions.add({"files": ["a"], "docker": True})
    questions.add({"files": ["a", "b"]})
    assert questions == {"files": ["a", "b"], "docker": True}


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_a_slow_answer_is_not_taken_for_a_wrong_clock(seconds: float) -> None:
    answer = healthy() | {"time": ANSWERED_AT - seconds}
    findings = BY_NAME["clock"].findings(subject(answer, seconds=seconds))
    assert [finding.mark for finding in findings] == [Mark.OK]


def test_a_running_container_of_our_own_eval_is_not_a_foreign_one() -> None:
    container = {"id": "c9", "name": "openhands-runtime-x", "state": "running", "matched": "openhands-runtime-*"}
    answer = patched({"docker": {"containers": [container]}, "lock": {"state": "held", "attempt": "a1"}})
    assert [finding.mark for finding in BY_NAME["busy-foreign"].findings(subject(answer))] == [Mark.OK]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        "facts",
        {"disk": "full"},
        {"files": {"x": 7}},
        {"time": float("nan")},
        {"processes": [{"pid": "; rm"}]},
        {"attempts": [{"key": [1]}]},
    ],
)
def test_an_answer_of_the_wrong_shape_is_a_finding_and_no_traceback(answer: Any) -> None:
    assert isinstance(read_facts(answer), str)
    report = judge_host(make_host(), make_pipeline(), answer, 0.1, {}, ANSWERED_AT)
    assert not report.ready
    assert report.findings[0].check == "agent"


def test_an_empty_answer_is_not_ready_and_every_unanswered_part_is_named() -> None:
    report = judge_host(make_host(), make_pipeline(), {}, 0.1, {}, ANSWERED_AT)
    failing = {finding.check for finding in report.findings if finding.mark is Mark.FAIL}
    assert {"python", "home", "clock", "docker", "disk", "memory", "busy", "commands", "consistency"} <= failing


def test_a_pipeline_without_needs_leaves_little_to_fail() -> None:
    pipeline = make_pipeline(critical=[], ship=[], readiness={}, busy={}, command=["python3", "x"])
    report = judge_host(make_host(), pipeline, healthy(), 0.1, {}, ANSWERED_AT)
    assert report.ready


def test_every_check_belongs_to_a_column_and_says_what_it_is_about() -> None:
    assert all(check.about and check.group in GROUPS for check in CHECKS)
    assert len(BY_NAME) == len(CHECKS)


def test_a_program_that_is_not_there_is_not_repaired_by_calling_it() -> None:
    pipeline = make_pipeline(readiness={"commands": [{"name": "env", "argv": ["poetry", "run"], "fix": "poetry install"}]})
    answer = healthy()
    error = "[Errno 2] No such file or directory: 'poetry'"
    answer["commands"] = {"env": {"rc": None, "timed_out": False, "tail": "", "error": error}}
    (found,) = BY_NAME["commands"].findings(subject(answer, pipeline=pipeline))
    assert found.message == "env: poetry is not on the PATH that it is given"
    assert found.fix.startswith("on eval1: install poetry, or add its directory to PATH")
