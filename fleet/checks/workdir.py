"""The work directory of the pipeline is there; a launch starts in it."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, workdir_of


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
        yield fail(
            f"the work directory {workdir} is not there",
            f"put the checkout of {subject.pipeline.name} there on {subject.host.name}, or set workdir: for it in hosts.yaml",
        )


CHECK = Check("workdir", "files", "the work directory is there", judge)
