"""Space where the work directory and Docker's images live, counted like `df`: share used, gigabytes free, inodes free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import GB, Check, Said, Subject, fail, gigabytes, ok, shown, unanswered, workdir_of
from fleet.checks.facts import DiskFacts
from fleet.model.hosts import Host
from fleet.model.pipeline import Disk, Pipeline


def asks(host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask about the filesystem that holds the work directory."""
    return {"disk": workdir_of(host, pipeline)}


def judge(subject: Subject) -> Iterable[Said]:
    """Apply the three limits."""
    disk, limits = subject.facts.disk, subject.pipeline.readiness.disk
    if disk is None or disk.error or disk.free is None or disk.used_percent is None:
        yield unanswered(f"the disk{': ' + shown(disk.error) if disk is not None and disk.error else ''}")
        return
    docker = ", docker system df" if subject.pipeline.readiness.docker else ""
    fix = f"on {subject.host.name}: df -h {shown(disk.path)}{docker}; delete what is not needed (fleet never prunes by itself)"
    engine = subject.facts.docker.disk if subject.facts.docker is not None else None
    full = [words for one in (disk, engine) if one is not None and (words := _problems(one, limits))]
    if full:
        yield fail("; ".join(full), fix)
    else:
        yield ok(f"{disk.used_percent:.0f} % used, {gigabytes(disk.free)} free")


def _problems(disk: DiskFacts, limits: Disk) -> str:
    """Return the limits that a disk is over, in words; empty for one that is within them, or does not say."""
    problems = []
    if disk.used_percent is not None and disk.used_percent >= limits.max_used_percent:
        problems.append(f"{disk.used_percent:.0f} % used, must be below {limits.max_used_percent:g} %")
    if disk.free is not None and disk.free < limits.min_free_gb * GB:
        problems.append(f"{gigabytes(disk.free)} free, {limits.min_free_gb:g} GB needed")
    # 0 free of an unknown total is how btrfs and the like say that they do not count inodes: the agent sends null then.
    if disk.inodes_free is not None and disk.inodes_free < limits.min_free_inodes:
        problems.append(f"{disk.inodes_free} inodes free, {limits.min_free_inodes} needed")
    return f"disk of {shown(disk.path)}: {'; '.join(problems)}" if problems else ""


CHECK = Check("disk", "disk", "the disk is below its limit, with gigabytes and inodes to spare", judge, asks)
