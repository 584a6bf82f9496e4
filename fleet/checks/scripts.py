"""What a launch executes is there and executable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import Check, Said, Subject, fail, fill_workdir, ok, shown, workdir_of
from fleet.checks.critical import paths_on_host
from fleet.checks.facts import FileFacts
from fleet.model.hosts import Host
from fleet.model.pipeline import Pipeline

EXECUTABLE = 0o111


def script_paths(host: Host, pipeline: Pipeline) -> list[str]:
    """Return the files that must be executable: critical ones marked so, and the command itself when it names a file."""
    workdir = workdir_of(host, pipeline)
    paths = [f"{workdir}/{file.path}" for file in pipeline.critical if file.executable]
    program = fill_workdir(pipeline.command[0], workdir)
    if program is not None and "/" in program:
        absolute = program if program[0] in "/~$" else f"{workdir}/{program.removeprefix('./')}"
        if absolute not in paths:
            paths.append(absolute)
    return paths


def asks(host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask about each of them."""
    return {"files": script_paths(host, pipeline)}


def judge(subject: Subject) -> Iterable[Said]:
    """A missing script and one without the x bit have different fixes."""
    critical = set(paths_on_host(subject.host, subject.pipeline).values())
    paths = script_paths(subject.host, subject.pipeline)
    good = 0
    for path in paths:
        file = subject.facts.files.get(path)
        if path in critical and (file is None or file.error or not file.exists):
            continue  # the consistency check says so, with the same fix
        problems = list(_judge_one(subject, path, file))
        yield from problems
        good += not problems
    if good or not paths:
        yield ok(f"{good} script{'s' * (good != 1)} executable")


def _judge_one(subject: Subject, path: str, file: FileFacts | None) -> Iterable[Said]:
    name = subject.host.name
    if file is None or file.error:
        yield fail(f"{path}: {shown(file.error) if file else 'no answer'}", f"on {name}: ls -l {path}", path)
    elif not file.exists:
        yield fail(f"{path} is not there", f"fleet sync {name}", path)
    elif (file.mode or 0) & EXECUTABLE == 0:
        yield fail(f"{path} is not executable", f"fleet sync {name} (or on it: chmod +x {path})", path)


CHECK = Check("scripts", "files", "the scripts that a launch executes are there and executable", judge, asks)
