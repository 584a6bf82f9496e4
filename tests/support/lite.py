"""The swebench_lite runner for the tests: its image in the test engine, and real tasks from package releases."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.engine import Engine, cache_directory, remove_containers
from tests.support.host_image import apt_mirror, codename
from tests.support.moatless import verified

FOLDER = Path(__file__).resolve().parents[2] / "remote_scripts" / "swebench_lite"
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))
FLASK = "pallets__flask-5014"
# They came after the release whose sdist stands in for the commit.
NOT_IN_THE_SDIST = ("test_nesting_subdomains", "test_child_and_parent_subdomain")
SLOW_MACHINE = {"clone": 60, "install": 120, "tests": 60, "cap": 200}
BUILD_S = 900.0


@contextmanager
def parts() -> Iterator[Callable[[str], ModuleType]]:
    """Yield a function that imports a module of the runner, as its own program does; gone from this process afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        patch.setattr(sys, "dont_write_bytecode", True)
        before = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}

        def load(name: str) -> ModuleType:
            __import__(name)
            return sys.modules[name]

        yield load
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def lite_image(docker: Engine) -> str:
    """Return the id of the runner's image in the test engine, built there once (half a minute)."""
    remove_containers(docker, orphans(docker))
    recipe = (FOLDER / "base.sh").read_bytes() + codename().encode()
    base = f"swebench-lite-base:{hashlib.sha256(recipe).hexdigest()[:12]}"
    with open(cache_directory() / "lite-image.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if docker.run("image", "inspect", base, check=False).returncode != 0:
            mirror, components = apt_mirror()
            with tempfile.TemporaryFile(dir=cache_directory()) as archive:
                argv = [str(FOLDER / "base.sh"), codename(), mirror, components]
                subprocess.run(argv, stdout=archive, stderr=subprocess.DEVNULL, timeout=BUILD_S, check=True)
                archive.seek(0)
                docker.run("import", "-", base, stdin=archive, timeout_s=BUILD_S)
        said = lite(docker, "image", "--base", base, timeout_s=BUILD_S)
    found: str = json.loads(said.stdout)["image_id"]
    return found


def lite(
    docker: Engine, *words: str | Path, cwd: Path | None = None, timeout_s: float = 110
) -> subprocess.CompletedProcess[str]:
    """Run the runner's own program, as a host does, with a cache that the tests share."""
    argv = [sys.executable, "-B", str(FOLDER / "lite.py"), *map(str, words)]
    env = docker.env | {"LITE_CACHE": lite_cache()}
    return subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def lite_cache() -> str:
    """Return where mirrors and sdists are kept between test runs."""
    return os.environ.get("LITE_CACHE") or str(cache_directory() / "lite")


def verified_task(instance_id: str, source: str, *requirements: str) -> dict[str, Any]:
    """Return an instance of SWE-bench Verified as a dataset file, on a release that its patches apply to."""
    row = next(one for one in verified() if one["instance_id"] == instance_id)
    kept = {key: row[key] for key in ("instance_id", "repo", "base_commit", "problem_statement", "test_patch")}
    return {
        **kept,
        "source": source,
        "requirements": list(requirements),
        "FAIL_TO_PASS": row["fail_to_pass"],
        "PASS_TO_PASS": row["pass_to_pass"],
        "patch": row["golden_patch"],
        "timeouts": SLOW_MACHINE,
    }


def flask_task(**changes: Any) -> dict[str, Any]:
    """Return the one instance of flask, without the two tests that its release does not have yet."""
    row = verified_task(FLASK, "pypi:flask==2.2.5", "Werkzeug<3")
    p2p = [test for test in json.loads(row["PASS_TO_PASS"]) if not test.endswith(NOT_IN_THE_SDIST)]
    return {**row, "PASS_TO_PASS": p2p, **changes}


def local_task(directory: Path, **files: str) -> dict[str, Any]:
    """Return a task on a repository with one commit of these files (`test_a` is test_a.py); a second or two per run."""
    directory.mkdir(parents=True)
    for name, text in (files or {"test_a": "def test_a():\n    assert True\n"}).items():
        (directory / f"{name}.py").write_text(text)
    commit_all(directory)
    return {"task_id": directory.name, "repo": str(directory), "install_project": False, "timeouts": SLOW_MACHINE}


def commit_all(directory: Path) -> str:
    """Commit everything in a directory; return the commit."""
    words = "git init -q . && git add -A && git -c user.name=t -c user.email=t@localhost commit -qm c && git rev-parse HEAD"
    done = subprocess.run(["sh", "-c", words], cwd=directory, check=True, timeout=20, capture_output=True, text=True)
    return done.stdout.strip()


def added(path: str, *lines: str) -> str:
    """Return a patch that adds a file."""
    body = "".join(f"+{line}\n" for line in lines)
    head = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{len(lines)} @@\n{body}"


def write_task(path: Path, *rows: dict[str, Any]) -> Path:
    """Write tasks to a file: one as a dataset file, several as JSON lines."""
    path.write_text(json.dumps(rows[0], indent=2) if len(rows) == 1 else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def result(said: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return the document that a run printed."""
    assert said.stdout, said.stderr
    document: dict[str, Any] = json.loads(said.stdout)
    return document


def containers(docker: Engine) -> dict[str, int]:
    """Return the runner's containers of all sessions, and the process that each was started by."""
    columns = '{{.Names}} {{.Label "fleet.lite.run"}}'
    lines = docker.lines("ps", "-a", "--filter", "label=fleet.lite.run", "--format", columns)
    return {line.split()[0]: int(line.split()[1]) for line in lines}


def orphans(docker: Engine) -> list[str]:
    """Return the containers whose runner is gone; other test sessions have containers of their own."""
    return [name for name, pid in containers(docker).items() if not Path(f"/proc/{pid}").exists()]
