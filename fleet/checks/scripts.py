"""What a launch executes is there and executable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import Check, Said, Subject, fail, fill_workdir, ok, shown, workdir_of
from fleet.checks.critical import expectation_of, paths_on_host, sync_fix
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
    keys = {path: key for key, path in paths_on_host(subject.host, subject.pipeline).items()}
    paths = script_paths(subject.host, subject.pipeline)
    good = 0
    for path in paths:
        file = subject.facts.files.get(path)
        if path in keys and (file is None or file.error or not file.exists):
            continue  # the consistency check says so, with the same fix
        problems = list(_judge_one(subject, path, keys.get(path, ""), file))
        yield from problems
        good += not problems
    if good or not paths:
        yield ok(f"{good} script{'s' * (good != 1)} executable")


def _judge_one(subject: Subject, path: str, key: str, file: FileFacts | None) -> Iterable[Said]:
    """`key` is that of a critical or shipped file, which a sync can repair; "" where it cannot."""
    name = subject.host.name
    listed = next((one for one in subject.pipeline.critical if one.path == key), None)
    sync = sync_fix(subject, expectation_of(listed, subject.expected.get(key)).authority) if key else ""
    if file is None or file.error:
        yield fail(f"{path}: {shown(file.error) if file else 'no answer'}", f"on {name}: ls -l {path}", path)
    elif not file.exists:
        yield fail(f"{path} is not there", sync or f"on {name}: put it there; the pipeline starts it", path)
    elif (file.mode or 0) & EXECUTABLE == 0:
        yield fail(f"{path} is not executable", f"on {name}: chmod +x {path}" + (f", or {sync}" if sync else ""), path)


CHECK = Check("scripts", "files", "the scripts that a launch executes are there and executable", judge, asks)
