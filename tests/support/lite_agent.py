"""The agent of swebench_lite for the tests: a small project of its own, and runs against a scripted model over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.engine import Engine
from tests.support.lite import FOLDER, SLOW_MACHINE, lite_cache, write_task
from tests.support.scripted_model import Script, scripted_model

KEY = "sk-lite-0f8e7d6c5b4a39281706"
MODEL = "scripted"
DATE = "2000-01-01T00:00:00Z"
CALC = "def add(a, b):\n    return a - b\n\n\ndef double(a):\n    return add(a, a)\n"
VISIBLE = (
    "from calc import add, double\n\n\ndef test_nothing():\n    assert add(0, 0) == 0\n\n\n"
    "def test_add():\n    assert add(2, 1) == 3\n\n\ndef test_double():\n    assert double(2) == 4\n"
)
HIDDEN = (
    "from calc import add\n\n\ndef test_hidden_sum():\n    assert add(2, 3) == 5\n\n\n"
    "def test_hidden_nothing():\n    assert add(0, 0) == 0\n"
)


def diff(path: str, *pairs: str, at: int = 1) -> str:
    """Return a patch of one hunk: lines with their sign, as they stand in a diff."""
    old = sum(line[:1] in " -" for line in pairs)
    new = sum(line[:1] in " +" for line in pairs)
    before = f"a/{path}" if old else "/dev/null"
    mode = "" if old else "new file mode 100644\n"
    first = at if old else 0
    body = "".join(f"{line}\n" for line in pairs)
    return f"diff --git a/{path} b/{path}\n{mode}--- {before}\n+++ b/{path}\n@@ -{first},{old} +{at},{new} @@\n{body}"


RIGHT = diff("calc.py", " def add(a, b):", "-    return a - b", "+    return a + b", " ")
WRONG = diff("calc.py", " def add(a, b):", "-    return a - b", "+    return a * b", " ")


def new_file(path: str, text: str) -> str:
    """Return a patch that adds a file."""
    return diff(path, *(f"+{line}" for line in text.splitlines()))


def project(directory: Path, **files: str) -> Path:
    """Return a git repository with the small project in it, whose `add` is wrong."""
    repository = directory / "project"
    repository.mkdir()
    for name, text in {"calc.py": CALC, "test_calc.py": VISIBLE, **files}.items():
        (repository / name).write_text(text)
    (repository / "outside").symlink_to("/etc/passwd")
    git(repository, "init", "-q", ".")
    commit(repository)
    return repository


def commit(repository: Path) -> str:
    """Commit everything, and return the commit."""
    git(repository, "add", "-A")
    # The same content is the same commit, so that one kept environment serves all tests.
    git(repository, "-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "one", "--date", DATE)
    return git(repository, "rev-parse", "HEAD").strip()


def git(repository: Path, *words: str) -> str:
    """Run git in a repository."""
    env = {**os.environ, "GIT_COMMITTER_DATE": DATE}
    done = subprocess.run(["git", *words], cwd=repository, env=env, check=True, capture_output=True, text=True, timeout=60)
    return done.stdout


def visible_task(repository: Path, **changes: Any) -> dict[str, Any]:
    """Return a task whose own tests are there to be seen."""
    row = {"task_id": "calc", "repo": str(repository), "ref": git(repository, "rev-parse", "HEAD").strip()}
    return {**row, "install_project": False, "tests": ["test_calc.py"], "timeouts": SLOW_MACHINE, **changes}


def hidden_task(repository: Path, **changes: Any) -> dict[str, Any]:
    """Return a task that a hidden test decides, with its solution."""
    hidden = {
        "FAIL_TO_PASS": ["test_hidden.py::test_hidden_sum"],
        "PASS_TO_PASS": ["test_hidden.py::test_hidden_nothing"],
        "test_patch": new_file("test_hidden.py", HIDDEN),
        "patch": RIGHT,
        "problem_statement": "add subtracts instead of adding",
    }
    return visible_task(repository, **{"tests": [], **hidden, **changes})


def use(name: str, **arguments: Any) -> dict[str, Any]:
    """Return a call of a tool, as a step of a script holds it."""
    return {"name": name, "arguments": arguments}


def step(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a step in which the model calls tools."""
    return {"calls": list(calls), **more}


SUBMIT = step(use("swe_submit"))


@dataclass(frozen=True)
class Ran:
    """What a run of an agent left."""

    code: int
    err: str
    document: dict[str, Any]
    script: Script

    @property
    def directory(self) -> Path:
        """Where everything of it is."""
        return Path(self.document["directory"])

    @property
    def told(self) -> list[str]:
        """What the tools answered, in order, as the model was told it."""
        messages = self.script.requests[-1]["body"]["messages"]
        return [str(message["content"]) for message in messages if message["role"] == "tool"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of the transcript."""
        return [json.loads(line) for line in (self.directory / "transcript.jsonl").read_text().splitlines()]


def environment(docker: Engine, home: Path, key: str | None = KEY) -> dict[str, str]:
    """Return the environment of an agent's run: a home of its own, and the key."""
    kept = {name: value for name, value in docker.env.items() if not name.startswith(("LITE_", "OPENAI_", "CHUTES_"))}
    return {**kept, "LITE_CACHE": lite_cache(), "HOME": str(home), **({"LITE_API_KEY": key} if key else {})}


def agent(
    docker: Engine,
    directory: Path,
    row: Mapping[str, Any],
    *steps: dict[str, Any],
    framework: str = "plain",
    words: tuple[str | Path, ...] = (),
    key: str | None = KEY,
    timeout_s: float = 300,
) -> Ran:
    """Let a scripted model work on a task."""
    path = write_task(directory / "task.json", dict(row))
    with scripted_model(**{MODEL: list(steps)}) as (url, script):
        argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "agent", str(path), "--model", MODEL, "--base-url", url]
        argv += ["--framework", framework, *map(str, words)]
        env = environment(docker, directory, key)
        said = subprocess.run(argv, env=env, cwd=directory, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert said.stdout, said.stderr
    return Ran(said.returncode, said.stderr, json.loads(said.stdout), script)
