"""Real pytest runs of any version, and what their own report hook says of every test: the truth that logs are held against.

Versions and projects come from the package index once and stay in the cache; nothing of them is installed.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.engine import cache_directory

PLUGIN = """
import json, os

def pytest_runtest_logreport(report):
    said = [report.nodeid, report.when, report.outcome, hasattr(report, "wasxfail"), type(report).__name__]
    with open(os.environ["ORACLE"], "a") as file:
        file.write(json.dumps(said) + "\\n")
"""
RUN_S = 100.0


class PytestRun(NamedTuple):
    """What a run printed, and its tests by outcome word: PASSED, FAILED, ERROR, SKIPPED, XFAIL, XPASS."""

    log: str
    outcomes: dict[str, set[str]]


def fetched(name: str, *requirements: str) -> Path:
    """Return the directory `name` of the cache with `requirements` in it, to be put on a path."""
    target = cache_directory() / name
    with open(cache_directory() / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
                _pip("install", "--target", f"{fresh}/new", *requirements)
                (Path(fresh) / "new").rename(target)
    return target


def pytest_version(version: str) -> Path:
    """Return a directory with a pytest; those before 6 want a setuptools that still has pkg_resources."""
    return fetched(f"pytest-{version}", f"pytest=={version}", *(["setuptools<80"] if int(version.split(".")[0]) < 6 else []))


def sdist(requirement: str) -> Path:
    """Return the unpacked sources of a release, e.g. `toolz==1.0.0`."""
    target = cache_directory() / f"sdist-{requirement.replace('==', '-')}"
    with open(cache_directory() / f"{target.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
                _pip("download", "--no-deps", "--no-binary", ":all:", "--dest", fresh, requirement)
                (archive,) = Path(fresh).glob("*.tar.gz")
                with tarfile.open(archive) as opened:
                    opened.extractall(f"{fresh}/new", filter="data")
                next((Path(fresh) / "new").iterdir()).rename(target)
    return target


def run_pytest(version: str, directory: Path, *options: str, path: Sequence[Path] = ()) -> PytestRun:
    """Run one version of pytest in `directory`; nothing of this environment but the interpreter takes part."""
    with tempfile.TemporaryDirectory() as name:
        plugin, said = Path(name) / "oracle_plugin.py", Path(name) / "said.jsonl"
        plugin.write_text(PLUGIN)
        said.touch()
        # Old versions cannot rewrite the assertions of a new Python, so none does.
        argv = ["-W", "ignore", "-m", "pytest", "-p", "oracle_plugin", "-p", "no:cacheprovider", "--assert=plain", *options]
        env = {
            "PATH": os.environ["PATH"], "HOME": name, "LANG": "C.UTF-8",
            "ORACLE": str(said), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (pytest_version(version), name, *path))), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-S", *argv], cwd=directory, env=env, capture_output=True, text=True, timeout=RUN_S, check=False
        )
        return PytestRun(done.stdout, _outcomes(said))


def _outcomes(said: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in said.read_text().splitlines():
        test, when, outcome, wasxfail, kind = json.loads(line)
        if kind == "TestReport":
            word = _word(when, outcome, wasxfail)
            if word:
                found.setdefault(test, set()).add(word)
    return found


def _word(when: str, outcome: str, wasxfail: bool) -> str:
    if outcome == "skipped":
        return "XFAIL" if wasxfail else "SKIPPED"
    if outcome == "failed":
        return "FAILED" if when == "call" else "ERROR"
    return ("XPASS" if wasxfail else "PASSED") if when == "call" else ""


def _pip(*words: str) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    subprocess.run(argv, check=True, timeout=300, capture_output=True)
