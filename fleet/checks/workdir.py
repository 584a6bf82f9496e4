"""The work directory of the pipeline is there; a launch starts in it."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, workdir_of
from fleet.checks.critical import shipped_root


def judge(subject: Subject) -> Iterable[Said]:
    """Compare the directory whose disk was measured, the nearest one that exists, with the one that was asked."""
    disk, home = subject.facts.disk, subject.facts.home
    workdir = workdir_of(subject.host, subject.pipeline)
    if disk is None or home is None:
        return
    absolute = workdir
    for prefix in ("~", "$HOME"):
        if workdir == prefix or workdir.startswith(prefix + "/"):
            absolute = home.path + workdir[len(prefix) :]
    if disk.path == (absolute or "/"):
        yield ok(f"{workdir} is there")
    else:
        name = subject.host.name
        fix = f"put the checkout of {subject.pipeline.name} there on {name}, or set workdir: for it in hosts.yaml"
        if workdir == shipped_root(subject.pipeline):
            fix = f"fleet sync {name}"
        yield fail(f"the work directory {workdir} is not there", fix)


CHECK = Check("workdir", "files", "the work directory is there", judge)
