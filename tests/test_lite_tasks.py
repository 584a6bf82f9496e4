"""Hostile task files and repositories: refused in words before anything starts, or an error of the stage that met them."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lite import commit_all, flask_task, local_task, parts

FIELDS = (
    "task_id", "repo", "source", "ref", "pytest_k", "tests", "test_command", "requirements", "install_project", "timeouts",
    "FAIL_TO_PASS", "PASS_TO_PASS", "test_patch", "patch", "model_patches", "problem_statement",
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["'", "\0", "\ud800", "-x"])
)
VALUES = st.recursive(LEAVES, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)), max_leaves=6)


@pytest.fixture(scope="module")
def part() -> Iterator[Any]:
    with parts() as load:
        yield load


@settings(max_examples=400, deadline=None, database=None)
@given(changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, min_size=1, max_size=3))
def test_any_value_in_any_field_makes_a_task_or_is_refused_in_words(part: Any, changes: dict[str, Any]) -> None:
    module, errors = part("task"), part("errors")
    try:
        task = module.Task({**flask_task(), **changes})
    except errors.InputError as error:
        assert str(error)
        return
    words = [task.task_id, task.repo, task.ref, task.pytest_k, *task.tests, *task.requirements, *task.test_command]
    assert not any(word.startswith("-") for word in [*words[:4], *task.tests, *task.requirements])
    assert all(word.isprintable() or " " in word or word >= "\u00a0" for word in words)
    subprocess.list2cmdline([word.encode().decode() for word in words])  # every word can be one of a command


def test_the_limits_are_5_20_5_and_30_seconds_unless_a_task_says_otherwise(part: Any) -> None:
    row = {"task_id": "a", "repo": "pypi:a==1"}
    task = part("task").Task(row)
    assert (task.limits, task.cap_s) == ({"clone": 5.0, "install": 20.0, "tests": 5.0}, 30.0)
    other = part("task").Task({**row, "timeouts": {"tests": 60, "cap": 90}})
    assert (other.limits, other.cap_s) == ({"clone": 5.0, "install": 20.0, "tests": 60.0}, 90.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "a/b", "ref": "--upload-pack=touch /tmp/x"}, "not the name of a commit"),
        ({"source": "a/b", "ref": "main..evil"}, "not the name of a commit"),
        ({"repo": "--upload-pack=x", "source": None}, "repo is missing"),
        ({"source": "/tmp/\x1b[2Jx"}, "one line"),
        ({"requirements": ["-rx"]}, "not the name of a package"),
        ({"requirements": ["--index-url=x"]}, "not the name of a package"),
        ({"requirements": ["a @ file:///etc"]}, "not the name of a package"),
        ({"requirements": ["../up"]}, "not the name of a package"),
        ({"requirements": "six"}, "a list of strings"),
        ({"pytest_k": "--rootdir=/"}, "is an option"),
        ({"tests": ["--pyargs"]}, "not inside the project"),
        ({"test_command": "pytest 'x"}, "No closing quotation"),
        ({"test_command": "sh -c pytest"}, "does not run pytest"),
        ({"timeouts": {"tests": float("inf")}}, "timeouts"),
        ({"timeouts": ["tests"]}, "timeouts"),
        ({"task_id": "a/../b"}, "task_id"),
        ({"task_id": ".hidden"}, "task_id"),
    ],
)
def test_a_field_that_would_become_an_option_or_leave_its_place_is_refused(part: Any, changes: Any, words: str) -> None:
    with pytest.raises(part("errors").InputError, match=words):
        part("task").Task({**flask_task(), **changes})


def test_a_wheel_or_file_that_is_damaged_is_refused_in_words(part: Any, tmp_path: Path) -> None:
    (tmp_path / "no.whl").write_bytes(b"PK\x03\x04 no archive")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("a.txt", "a")
    with zipfile.ZipFile(tmp_path / "broken.whl", "w") as archive:
        archive.writestr("x/swebench_verified_all_evaluations.json", "{")
    (tmp_path / "latin.json").write_bytes(b'{"task_id": "\xe9"}')
    for name in ("no.whl", "other.whl", "broken.whl", "latin.json", "nowhere.json", "."):
        with pytest.raises(part("errors").InputError, match=name):
            part("task").read_tasks(tmp_path / name)


@pytest.mark.parametrize(
    "repo",
    [
        "ext::sh -c id",
        "fd::17",
        "no/such/deep/path",
        "ssh://-oProxyCommand=id/x",
        "git@-oProxyCommand=id:x",
        "https://user:secret@localhost/x.git",
        "https://token@localhost/x.git",
        "pypi:a",
        "pypi:../x==1",
        "pypi:a==1 --index-url",
    ],
)
def test_a_repository_that_runs_a_command_or_carries_a_secret_is_refused(part: Any, repo: str, tmp_path: Path) -> None:
    with pytest.raises(part("errors").InputError) as refused:
        part("source").Source(repo, "", tmp_path)
    assert "secret" not in str(refused.value)


def test_a_bundle_needs_no_head_and_its_odd_refs_are_names_and_nothing_else(part: Any, tmp_path: Path) -> None:
    commit = local_task(tmp_path / "project") and commit_all_again(tmp_path / "project")
    for ref in ("refs/heads/--upload-pack=x", "refs/heads/a;b", "refs/tags/-rf", "refs/heads/$(id)"):
        git(tmp_path / "project", "update-ref", ref, commit)
    git(tmp_path / "project", "bundle", "create", "-q", str(tmp_path / "x.bundle"), "--branches", "--tags")
    source = part("source")
    assert source.Source(str(tmp_path / "x.bundle"), "master", tmp_path / "cache").commit(30) == commit
    assert source.Source(str(tmp_path / "x.bundle"), commit, tmp_path / "cache").commit(30) == commit
    with pytest.raises(part("errors").StageError, match="git fetch failed"):
        source.Source(str(tmp_path / "x.bundle"), "", tmp_path / "cache").commit(30)


def test_a_commit_that_no_branch_has_any_more_is_fetched_where_the_server_gives_it(part: Any, tmp_path: Path) -> None:
    local_task(tmp_path / "project")
    lost = commit_all_again(tmp_path / "project")
    git(tmp_path / "project", "reset", "-q", "--hard", "HEAD~1")
    git(tmp_path / "project", "config", "uploadpack.allowAnySHA1InWant", "true")
    assert part("source").Source(str(tmp_path / "project"), lost, tmp_path / "cache").commit(30) == lost
    with pytest.raises(part("errors").StageError, match="no commit called"):
        part("source").Source(str(tmp_path / "project"), "0" * 40, tmp_path / "cache").commit(30)


def test_a_mirror_whose_making_was_cut_short_is_made_anew_and_no_repository_above_is_touched(part: Any, tmp_path: Path) -> None:
    local_task(tmp_path / "project")
    outer = tmp_path / "home"
    local_task(outer)
    before = git(outer, "for-each-ref")
    source = part("source").Source(str(tmp_path / "project"), "master", outer / "cache")
    source.mirror.with_name(source.mirror.name + ".new").mkdir(parents=True)
    assert source.commit(30) == git(tmp_path / "project", "rev-parse", "HEAD").strip()
    assert git(outer, "for-each-ref") == before


def test_a_server_that_says_nothing_is_left_at_the_limit_with_no_process_behind(part: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        open_for_ever: list[Any] = []
        threading.Thread(target=lambda: open_for_ever.append(server.accept()), daemon=True).start()
        source = part("source").Source(f"http://127.0.0.1:{port}/x.git", "main", tmp_path)
        with pytest.raises(part("errors").StageTimeout):
            source.commit(2)
        open_for_ever[0][0].close()
    assert str(port) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_one_repository_of_a_batch_that_is_none_is_told_before_the_first_task_starts(part: Any, tmp_path: Path) -> None:
    rows = [flask_task(), flask_task(instance_id="odd", source="ext::sh -c id")]
    tasks = [part("task").Task(json.loads(json.dumps(row))) for row in rows]
    with pytest.raises(part("errors").InputError, match="odd: repo"):
        part("source").check(tasks)


def commit_all_again(directory: Path) -> str:
    (directory / "more.py").write_text("x = 1\n")
    return commit_all(directory)


def git(directory: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=directory, check=True, timeout=20, capture_output=True, text=True).stdout
