"""The pipeline's own readiness questions, answered by a command's exit code 0: e.g. the poetry environment imports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import Check, Said, Subject, fail, fill_workdir, ok, shown, unanswered, workdir_of
from fleet.checks.workdir import fix_of, is_there
from fleet.errors import InputError
from fleet.model.hosts import Host
from fleet.model.pipeline import Command, Pipeline


def asks(host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask the host to run each command in the work directory, with that part of the environment that needs no task."""
    workdir = workdir_of(host, pipeline)
    filled = {name: fill_workdir(value, workdir) for name, value in pipeline.env.items()}
    env = {name: value for name, value in filled.items() if value is not None}
    return {"commands": [_command(command, pipeline, workdir, env) for command in pipeline.readiness.commands]}


def _command(command: Command, pipeline: Pipeline, workdir: str, env: dict[str, str]) -> dict[str, Any]:
    argv = [fill_workdir(item, workdir) for item in command.argv]
    if None in argv:
        raise InputError(
            f"pipeline {pipeline.name}: readiness command {command.name!r} uses a task's field; only {{workdir}} is known",
            hint=f"edit readiness.commands in remote_scripts/{pipeline.name}/pipeline.yaml",
        )
    return {"name": command.name, "argv": argv, "cwd": workdir, "env": env, "timeout_s": command.timeout_s}


def judge(subject: Subject) -> Iterable[Said]:
    """Show the last output lines of a command that failed."""
    commands = subject.pipeline.readiness.commands
    problems = [said for command in commands for said in _judge_one(subject, command)]
    yield from problems
    if not problems:
        yield ok(", ".join(command.name for command in commands) or "no readiness commands")


def _judge_one(subject: Subject, command: Command) -> Iterable[Said]:
    answer = subject.facts.commands.get(command.name)
    workdir = workdir_of(subject.host, subject.pipeline)
    host, program = subject.host.name, command.argv[0]
    fix = command.fix or f"on {host}: cd {workdir} && {' '.join(command.argv)}"
    if answer is None:
        yield unanswered(command.name)._replace(subject=command.name)
    elif answer.timed_out:
        yield fail(f"{command.name}: no end after {command.timeout_s:g} s", fix, command.name)
    elif answer.error and is_there(subject) is False:
        yield fail(f"{command.name}: not tried, the work directory is not there", fix_of(subject), command.name)
    elif answer.error and "/" not in program and answer.error.endswith(f"No such file or directory: {program!r}"):
        path = f"install {program}, or add its directory to PATH below env: of pipeline.yaml"
        yield fail(f"{command.name}: {program} is not on the PATH that it is given", f"on {host}: {path}", command.name)
    elif answer.error:
        yield fail(f"{command.name}: {shown(answer.error)}", fix, command.name)
    elif answer.rc != 0:
        tail = shown(answer.tail)
        yield fail(f"{command.name}: exit {answer.rc}{': ' + tail if tail else ''}", fix, command.name)


CHECK = Check("commands", "setup", "the pipeline's readiness commands end with exit code 0", judge, asks)
