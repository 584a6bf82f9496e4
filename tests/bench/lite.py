"""A warm run of swebench_lite, whole process, against a bare `docker run … pytest` of the same tests on the same files."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.bench.measure import Row, Run, execute, in_turn
from tests.support.engine import Engine, engine
from tests.support.lite import FOLDER, SLOW_MACHINE, flask_task, lite, lite_cache, lite_image, result, write_task

SMALL = "numpy-financial-1.0.0"


def overhead(folder: Path, runs: int) -> list[Row]:
    """Compare a task with a patch and a test patch (about a second of pytest), and one that has neither."""
    folder.mkdir(parents=True)
    seeds = map(json.loads, (FOLDER / "seed_tasks.jsonl").read_text().splitlines())
    small = next(row for row in seeds if row["task_id"] == SMALL)
    rows: list[Row] = []
    with engine() as docker:
        lite_image(docker)
        for row, words, goal in (
            (flask_task(), ("--gold", "--no-before"), 1.15),
            ({**small, "timeouts": SLOW_MACHINE}, (), None),
        ):
            rows += _compare(docker, folder, row, words, runs, goal)
    return rows


def _compare(
    docker: Engine, folder: Path, row: dict[str, Any], words: tuple[str, ...], runs: int, goal: float | None
) -> list[Row]:
    name = str(row.get("task_id") or row["instance_id"])
    path = write_task(folder / f"{name}.json", row)
    warm = result(lite(docker, "run", path, *words, cwd=folder, timeout_s=300))
    if warm["status"] != "pass":
        raise SystemExit(f"{name} did not pass: {warm['reason']}")
    env = docker.env | {"LITE_CACHE": lite_cache()}
    ours = [sys.executable, "-B", str(FOLDER / "lite.py"), "run", str(path), *words, f"--directory={folder / 'runs'}"]
    with _as_tested(docker, warm["environment"], row if words else {}) as image:
        bare = ["docker", "run", "--rm", "--network", "none", "--workdir", "/workspace/project"]
        bare += ["--entrypoint", "python3", image, "-m", "pytest", "-rA", "-p", "no:cacheprovider"]
        bare += ["--junit-xml", "/tmp/report.xml", *(["-k", row["pytest_k"]] if "pytest_k" in row else [])]
        bare += row.get("tests", ["tests/test_blueprints.py"])
        contestants = {"lite": functools.partial(_run, ours, env), "bare": functools.partial(_run, bare, env)}
        found = in_turn(runs, contestants)
    slower = found["lite"].wall_s - found["bare"].wall_s
    note = f"bare {found['bare'].wall_s:.2f} s, spread {found['bare'].spread:.2f}; {found['lite'].spread:.2f}"
    tests = sum(warm["tests"]["counts"].values())
    return [
        Row(f"{name}, {tests} tests, warm, over bare docker run", found["lite"].wall_s / found["bare"].wall_s, "×", goal, note),
        Row(f"{name}, what a run adds", slower * 1000, "ms"),
    ]


def _run(argv: list[str], env: dict[str, str]) -> Run:
    return execute(argv, env=env)


@contextlib.contextmanager
def _as_tested(docker: Engine, environment: str, row: dict[str, Any]) -> Iterator[str]:
    """Yield an image that holds the project as it is tested, with the patches applied; removed afterwards."""
    name = f"fleet-bench-{os.getpid()}-{secrets.token_hex(3)}"
    keep_open = ["run", "--detach", "--name", name, "--network", "none", "--entrypoint", "sleep", environment, "300"]
    docker.run(*keep_open)
    try:
        for patch in ("patch", "test_patch"):
            if patch in row:
                apply = ["exec", "--interactive", "--workdir", "/workspace/project", name]
                docker.run(*apply, "git", "-c", "safe.directory=*", "apply", "-", stdin=row[patch].encode())
        docker.run("commit", "--change", "ENTRYPOINT []", name, f"{name}:latest")
        yield f"{name}:latest"
    finally:
        docker.run("rm", "--force", name, check=False)
        docker.run("rmi", f"{name}:latest", check=False)
