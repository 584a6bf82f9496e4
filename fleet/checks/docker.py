"""The Docker engine answers `docker ps`, where the pipeline needs one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import Check, Said, Subject, fail, ok, shown, unanswered
from fleet.model.hosts import Host
from fleet.model.pipeline import Pipeline


def asks(_host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask the engine for its containers."""
    if pipeline.readiness.docker or pipeline.busy.containers:
        return {"docker": True, "containers": list(pipeline.busy.containers)}
    return {}


def judge(subject: Subject) -> Iterable[Said]:
    """Name the usual causes with their own fix."""
    docker = subject.facts.docker
    if not subject.pipeline.readiness.docker:
        yield ok("not needed")
    elif docker is None:
        yield unanswered("docker")
    elif docker.ok:
        yield ok("the Docker engine answers")
    else:
        error = shown(docker.error) or "no reason given"
        yield fail(f"docker does not answer: {error}", f"on {subject.host.name}: {_fix(error, subject.facts.user)}")


def _fix(error: str, user: str | None) -> str:
    text = error.lower()
    if "permission denied" in text:
        return f"sudo usermod -aG docker {user or '$USER'}"
    if "not found" in text or ("no such file" in text and "docker.sock" not in text):
        return "sudo apt install -y docker.io"
    if "timed out" in text or "gave no answer" in text:
        return "sudo systemctl restart docker (it hangs; running containers end unless live-restore is set)"
    return "sudo systemctl start docker; sudo journalctl -u docker -n 50"


CHECK = Check("docker", "docker", "the Docker engine answers", judge, asks)
