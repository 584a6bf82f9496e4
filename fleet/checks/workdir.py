"""The work directory of the pipeline is there; a launch starts in it."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, workdir_of
from fleet.checks.critical import shipped_root


def is_there(subject: Subject) -> bool | None:
    """Compare the directory whose disk was measured, the nearest one that exists, with the one that was asked."""
    disk, home = subject.facts.disk, subject.facts.home
    workdir = workdir_of(subject.host, subject.pipeline)
    if disk is None or home is None:
        return None
    absolute = workdir
    for prefix in ("~", "$HOME"):
        if workdir == prefix or workdir.startswith(prefix + "/"):
            absolute = home.path + workdir[len(prefix) :]
    return disk.path == (absolute or "/")


def fix_of(subject: Subject) -> str:
    """Return how the work directory comes to the host."""
    name = subject.host.name
    if workdir_of(subject.host, subject.pipeline) == shipped_root(subject.pipeline):
        return f"fleet sync {name}"
    return f"put the checkout of {subject.pipeline.name} there on {name}, or set workdir: for it in hosts.yaml"


def judge(subject: Subject) -> Iterable[Said]:
    """Say whether a launch finds the directory that it starts in."""
    there, workdir = is_there(subject), workdir_of(subject.host, subject.pipeline)
    if there:
        yield ok(f"{workdir} is there")
    elif there is False:
        yield fail(f"the work directory {workdir} is not there", fix_of(subject))


CHECK = Check("workdir", "files", "the work directory is there", judge)
