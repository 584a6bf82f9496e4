"""Verdicts of swebench_lite where a project is not tidy: what pytest is told, what tests leave, and who is to blame."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.lite import FOLDER, SLOW_MACHINE, added, commit_all, parts, result, write_task
from tests.support.lite_bench import Bench

ADDS = "def test_add():\n    import calc\n    assert calc.add(1, 2) == 3\n"
FIXED = ("--- a/calc.py", "+++ b/calc.py", "@@ -1,2 +1,2 @@", " def add(a, b):", "-    return a - b", "+    return a + b", "")
GOLD = "\n".join(FIXED)
SETUP = "setuptools.setup(name='calc', py_modules=['calc'])\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def project(bench: Bench, files: dict[str, str], **changes: Any) -> dict[str, Any]:
    """Return a task on a repository of these files and of calc.py, whose sum is wrong; nothing is installed."""
    directory = bench.directory / "project"
    for name, text in {"calc.py": "def add(a, b):\n    return a - b\n", **files}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    commit_all(directory)
    row = {"task_id": "calc", "repo": str(directory), "install_project": False, "timeouts": SLOW_MACHINE, "patch": GOLD}
    return {**row, **changes}


def given(bench: Bench, text: str) -> str:
    path = bench.directory / "given.diff"
    path.write_text(text)
    return f"--patch={path}"


def test_ids_are_found_where_the_tests_directory_has_settings_of_its_own(bench: Bench) -> None:
    row = project(
        bench,
        {"tests/test_calc.py": ADDS, "tests/pytest.ini": "[pytest]\n"},
        tests=["tests"],
        FAIL_TO_PASS=["tests/test_calc.py::test_add"],
    )
    done = bench.run(row, "--gold")
    assert (done["status"], done["before"]["FAIL_TO_PASS"]["success"]) == ("pass", []), done["tail"]


def test_settings_beside_the_runs_directory_are_not_the_projects(bench: Bench) -> None:
    (bench.temporary / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (bench.temporary / "conftest.py").write_text("raise SystemExit('not the project')\n")
    done = bench.run(project(bench, {"test_calc.py": ADDS}, FAIL_TO_PASS=["test_calc.py::test_add"]), "--gold")
    assert done["status"] == "pass", done["tail"]


def test_a_project_that_uses_pytests_cache_is_run(bench: Bench) -> None:
    asks = "import pytest\n@pytest.fixture(autouse=True)\ndef cache(request):\n    request.config.cache.set('a/b', 1)\n"
    files = {"test_calc.py": ADDS, "pytest.ini": "[pytest]\naddopts = --failed-first --junit-prefix=x\n", "conftest.py": asks}
    done = bench.run(project(bench, files, FAIL_TO_PASS=["test_calc.py::test_add"]), "--gold")
    assert done["status"] == "pass", done["tail"]


def test_an_id_that_ends_at_a_space_stands_for_all_tests_that_begin_with_it(bench: Bench) -> None:
    # So they are in SWE-bench's own datasets, which were read from lines by words.
    body = (
        "import calc, pytest\n"
        "@pytest.mark.parametrize('n', [1, 2], ids=['one of two', 'one of all'])\n"
        "def test_add(n):\n    assert calc.add(n, 2) == n + 2\n"
    )
    row = project(bench, {"test_calc.py": body}, FAIL_TO_PASS=["test_calc.py::test_add[one"])
    gold = bench.run(row, "--gold")
    assert (gold["status"], gold["resolved"]) == ("pass", True), gold["tests"]
    half = GOLD.replace("+    return a + b", "+    return 3")
    done = bench.run(row, given(bench, half))
    assert (done["status"], done["tests"]["exit_code"]) == ("fail", 1)


def test_tests_that_the_test_patch_does_not_write_are_run_where_the_task_names_them(bench: Bench) -> None:
    row = project(
        bench,
        {"test_old.py": "def test_old():\n    pass\n"},
        test_patch=added("test_calc.py", *ADDS.splitlines()),
        FAIL_TO_PASS=["test_calc.py::test_add"],
        PASS_TO_PASS=["test_old.py::test_old"],
    )
    done = bench.run(row, "--gold")
    assert (done["status"], done["tests"]["PASS_TO_PASS"]["success"]) == ("pass", ["test_old.py::test_old"]), done["tail"]
    removed = GOLD + "--- a/test_old.py\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-def test_old():\n-    pass\n"
    done = bench.run(row, given(bench, removed))
    assert (done["status"], done["tests"]["FAIL_TO_PASS"]["failure"]) == ("fail", []), done["tail"]


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("ignored", ["", "*.txt\n"])
def test_what_the_tests_leave_before_the_patch_is_gone_after_it(bench: Bench, ignored: str, inner: bool) -> None:
    once = "def test_once():\n    open('left.txt', 'x').close()\n"
    files = {"test_calc.py": ADDS, "test_once.py": once, ".gitignore": ignored}
    ids = {"FAIL_TO_PASS": ["test_calc.py::test_add"], "PASS_TO_PASS": ["test_once.py::test_once"]}
    if inner:  # the installation leaves an empty repository, which git does not take for a part of this one
        files["setup.py"] = f"import os, setuptools\nos.system('git init -q inner && touch inner/a')\n{SETUP}"
    done = bench.run(project(bench, files, **ids, install_project=inner), "--gold")
    assert (done["before"]["PASS_TO_PASS"]["failure"], done["status"]) == ([], "pass"), done["tail"]


@pytest.mark.parametrize("ignored", ["", "made.py\n"])
def test_what_the_installation_made_is_still_there_after_the_patch_and_as_it_was(bench: Bench, ignored: str) -> None:
    uses = "def test_made():\n    import made\n    assert made.x == 1\n    open('made.py', 'w').write('x = 2')\n"
    row = project(
        bench,
        {
            "test_calc.py": ADDS,
            "test_made.py": uses,
            ".gitignore": ignored,
            "setup.py": f"import setuptools\nopen('made.py', 'w').write('x = 1')\n{SETUP}",
        },
        FAIL_TO_PASS=["test_calc.py::test_add"],
        PASS_TO_PASS=["test_made.py::test_made"],
        install_project=True,
    )
    done = bench.run(row, "--gold")
    assert (done["before"]["PASS_TO_PASS"]["failure"], done["status"]) == ([], "pass"), done["tail"]


@pytest.mark.parametrize(
    ("line", "why"), [("import no_such_module", "a usage error"), ("collect_ignore = ['test_calc.py']", "no tests collected")]
)
def test_a_patch_after_which_pytest_cannot_begin_has_failed(bench: Bench, line: str, why: str) -> None:
    row = project(bench, {"test_calc.py": ADDS}, FAIL_TO_PASS=["test_calc.py::test_add"])
    text = added("conftest.py", line)
    done = bench.run(row, given(bench, text))
    assert (done["status"], done["resolved"]) == ("fail", False), done["reason"]
    alone = bench.run(row, given(bench, text), "--no-before")
    # Without the tests before it, nothing tells whose fault it is.
    assert (alone["status"], alone["reason"], alone["resolved"]) == ("error", f"pytest ended with {why}", None)


def test_a_run_that_pytest_did_not_end_is_not_resolved(bench: Bench) -> None:
    row = project(bench, {"test_calc.py": ADDS}, FAIL_TO_PASS=["test_calc.py::test_add"])
    text = GOLD + added("conftest.py", "import os", "def pytest_unconfigure():", "    os._exit(3)")
    done = bench.run(row, given(bench, text))
    assert (done["status"], done["stage"], done["resolved"]) == ("error", "tests", None)
    assert done["tests"]["counts"]["passed"] == 1, "the report itself says otherwise"


@pytest.mark.parametrize(
    ("limits", "judged"), [({"tests": 1.5}, True), ({"tests": 60, "cap": 4}, False), ({"tests": 1.5, "patch": 1e-5}, False)]
)
def test_only_tests_that_had_their_whole_limit_are_held_against_the_patch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limits: dict[str, float], judged: bool
) -> None:
    row = project(bench, {"test_calc.py": ADDS}, FAIL_TO_PASS=["test_calc.py::test_add"])
    hang = added("conftest.py", "import time", "time.sleep(600)")
    row |= {"timeouts": SLOW_MACHINE | {key: value for key, value in limits.items() if key != "patch"}}
    monkeypatch.setenv("HOME", bench.env["HOME"])
    monkeypatch.setenv("LITE_PYTEST", bench.env["LITE_PYTEST"])
    with parts() as part:
        run, output = part("run"), bench.directory / "out"
        if "patch" in limits:  # git has no time to answer
            monkeypatch.setattr(run, "PATCH_S", limits["patch"])
        task = part("task").Task(row | {"model_patches": {"m": hang}})
        code = part("layout").run_pipeline(task, "m", 1, output, run.Settings(bench.directory, "venv"), print)
    details = json.loads((output / "eval_pilot2_output.jsonl").read_text())["pilot2_eval_details"]
    assert (code == 0, details["test_timeout"], details["error_eval"]) == (judged, judged, not judged), details
    assert (output / "eval_outputs" / "report.json").exists() == judged
    assert not details["failed_apply_patch"]
    if "cap" in limits:
        assert details["error_message"].endswith("at the cap of 4 s for the whole run")


def test_a_patch_that_spells_the_name_of_the_tasks_own_test_in_another_way_is_refused(bench: Bench) -> None:
    tests = "--- a/test_calc.py\n+++ b/test_calc.py\n@@ -1,3 +1,4 @@\n def test_add():\n     import calc\n"
    tests += "     assert calc.add(1, 2) == 3\n+    assert calc.add(2, 2) == 4\n"
    row = project(bench, {"test_calc.py": ADDS}, test_patch=tests, FAIL_TO_PASS=["test_calc.py::test_add"])
    # git takes what follows the name for the moment that diff writes there.
    dated = "test_calc.py 2026-01-01 00:00:00.000000000 +0000"
    text = f"--- a/{dated}\n+++ b/{dated}\n@@ -1,2 +1,3 @@\n+import calc; calc.add = int.__add__\n"
    text += " def test_add():\n     import calc\n"
    for words in (["--before"], ["--no-before"]):
        done = bench.run(row, given(bench, text), *words)
        assert (done["status"], done["stage"], done["patch"]["state"]) == ("error", "patch", "refused"), done["tail"]
        assert "own test patch" in done["reason"]
    assert bench.run(row, "--gold")["status"] == "pass"


def test_a_clone_that_was_killed_leaves_nothing_that_fills_the_disk_or_stops_the_next_one(bench: Bench) -> None:
    row = project(bench, {"test_calc.py": ADDS}, FAIL_TO_PASS=["test_calc.py::test_add"])
    assert bench.run(row, "--gold")["status"] == "pass"
    (mirror,) = (bench.directory / ".cache" / "swebench-lite" / "mirrors").glob("*.git")
    left = [mirror / name for name in ("objects/pack/tmp_pack_a", "packed-refs.lock", "refs/heads/master.lock", "shallow.lock")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (bench.directory / "project" / "more.py").touch()
    commit_all(bench.directory / "project")
    assert bench.run(row, "--gold")["status"] == "pass"
    assert [path for path in left if path.exists()] == []


def test_parallel_runs_of_one_release_keep_its_archive_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with parts() as part:
        source = part("source").Source("pypi:calc==1", "", bench.directory / "cache")
        done = part("process").Done(0, b"\x1f\x8b" + b"x" * 1000)
        replace = os.replace

        def other_first(old: str, new: str) -> None:
            monkeypatch.setattr(os, "replace", replace)
            source._keep(done)
            replace(old, new)

        monkeypatch.setattr(os, "replace", other_first)
        source._keep(done)
    assert [path.name for path in (bench.directory / "cache" / "sdists").iterdir()] == ["calc==1.tar.gz"]


def test_without_docker_a_project_that_would_be_tested_as_installed_and_not_as_patched_is_refused(bench: Bench) -> None:
    setup = "import setuptools\nsetuptools.setup(name='calc', package_dir={'': 'lib'}, py_modules=['sums'])\n"
    files = {
        "test_calc.py": "def test_add():\n    import sums\n    assert sums.x == 2\n",
        "lib/sums.py": "x = 1\n",
        "setup.py": setup,
    }
    row = project(bench, files, FAIL_TO_PASS=["test_calc.py::test_add"], install_project=True)
    text = "--- a/lib/sums.py\n+++ b/lib/sums.py\n@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    for _ in range(2):
        done = bench.run(row, given(bench, text))
        assert (done["status"], done["stage"], done["resolved"]) == ("error", "install", None), done["tail"]
        assert "sums.py" in done["reason"]


def test_without_docker_what_the_installation_generates_is_there_beside_the_patched_project(bench: Bench) -> None:
    setup = (
        "import os, setuptools\nfrom setuptools.command.build_py import build_py\n"
        "class Build(build_py):\n    def run(self):\n        super().run()\n"
        "        open(os.path.join(self.build_lib, 'sums', 'made.py'), 'w').write('x = 1')\n"
        "setuptools.setup(name='calc', package_dir={'': 'src'}, packages=['sums'], cmdclass={'build_py': Build})\n"
    )
    tests = "def test_add():\n    from sums import made, y\n    assert made.x + y == 3\n"
    files = {"test_calc.py": tests, "src/sums/__init__.py": "y = 1\n", "setup.py": setup}
    row = project(bench, files, FAIL_TO_PASS=["test_calc.py::test_add"], install_project=True)
    text = "--- a/src/sums/__init__.py\n+++ b/src/sums/__init__.py\n@@ -1 +1 @@\n-y = 1\n+y = 2\n"
    for cached in (False, True):
        done = bench.run(row, given(bench, text))
        assert (done["status"], done["cached"]) == ("pass", cached), done["tail"]


def test_the_results_of_a_batch_are_written_as_the_tasks_end(bench: Bench) -> None:
    slow = project(bench, {"test_calc.py": "import time\ndef test_a():\n    time.sleep(4)\n"})
    rows = [slow | {"task_id": "slow"}, slow | {"task_id": "quick", "pytest_k": "nothing"}]
    path = write_task(bench.directory / "tasks.jsonl", *rows)
    argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "batch", "--sandbox=venv", "--parallel=2", str(path)]
    assert bench.run(rows[1])["stage"] == "tests"  # the environment is there
    said = subprocess.run(argv, env=bench.env, cwd=bench.directory, capture_output=True, text=True, timeout=100, check=False)
    document = result(said)
    assert [row["task_id"] for row in document["results"]] == ["slow", "quick"]
    lines = Path(document["directory"], "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["task_id"] for line in lines] == ["quick", "slow"]


def test_a_patch_on_a_file_that_is_not_utf8_is_applied_byte_for_byte(bench: Bench) -> None:
    row = project(bench, {"test_calc.py": ADDS}, FAIL_TO_PASS=["test_calc.py::test_add"])
    source = "# coding: latin-1\n# caf\u00e9\ndef add(a, b):\n    return a - b\n"
    (bench.directory / "project/calc.py").write_bytes(source.encode("latin-1"))
    commit_all(bench.directory / "project")
    hunk = "@@ -1,4 +1,4 @@\n # coding: latin-1\n # caf\u00e9\n def add(a, b):\n-    return a - b\n+    return a + b\n"
    path = bench.directory / "latin.diff"
    path.write_bytes(f"--- a/calc.py\n+++ b/calc.py\n{hunk}".encode("latin-1"))
    done = bench.run(row, f"--patch={path}")
    assert (done["status"], done["patch"]["state"]) == ("pass", "applied"), done["reason"]
    half = {**row, "patch": GOLD + "\ud800"}
    refused = bench.run(half, "--gold")
    assert (refused["status"], refused["patch"]["state"]) == ("error", "refused")
    assert "half a character" in refused["reason"]
