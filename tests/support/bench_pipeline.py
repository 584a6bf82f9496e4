"""A small pipeline on disk, a reference checkout, and hosts that are directories: for tests of check and sync."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet.inventory.pipelines import Pipelines, agent_source
from fleet.model.hosts import Host
from fleet.testing import LocalConnector, local_host

PIPELINE = """
schema: fleet.pipeline/1
name: bench
workdir: ~/work/OpenHands
reference: {reference}
critical:
  - {{path: scripts/run.sh, executable: true}}
  - {{path: docker.py}}
ship: [helper.py]
readiness:
  disk: {{max_used_percent: 100, min_free_gb: 0.01, min_free_inodes: 1}}
  min_free_memory_gb: 0.01
  commands:
    - {{name: shell, argv: [sh, -c, "test -n \\"$GREETING\\""], fix: set GREETING}}
busy: {{processes: ["{busy}"]}}
command: [./scripts/run.sh, "{{model}}"]
env: {{GREETING: hello}}
outputs: {{root: "{{workdir}}/out"}}
"""
BUSY = "fleet-test-foreign-[e]val"
"""A pattern that nothing on the test machine matches by itself."""
FILES = {"scripts/run.sh": b"#!/bin/sh\nexit 0\n", "docker.py": b"x = 1\n"}


class Bench:
    """`remote_scripts/bench`, a reference checkout, and one home per host with a copy of it."""

    def __init__(self, directory: Path, names: Sequence[str] = ("eval1", "eval2", "eval3"), *, reference: bool = True) -> None:
        self.directory = directory
        self.reference = directory / "reference"
        self.scripts = directory / "remote_scripts"
        write_tree(self.reference)
        folder = self.scripts / "bench"
        folder.mkdir(parents=True)
        pipeline = PIPELINE.format(reference=self.reference if reference else "null", busy=BUSY)
        (folder / "pipeline.yaml").write_text(pipeline)
        (folder / "helper.py").write_bytes(b"y = 2\n")
        self.homes = {name: directory / "homes" / name for name in names}
        for home in self.homes.values():
            self.furnish(home)
        self.connector = LocalConnector(self.homes)
        self.hosts: list[Host] = [local_host(name, pipeline="bench") for name in names]
        self.pipelines = Pipelines([self.scripts])
        self.source = agent_source()

    def furnish(self, home: Path) -> None:
        """Give a home the checkout and the shipped file, all as they should be."""
        home.mkdir(parents=True, exist_ok=True)
        write_tree(self.workdir(home))
        shipped = home / ".fleet" / "pipelines" / "bench"
        shipped.mkdir(parents=True)
        (home / ".fleet").chmod(0o700)
        (shipped / "helper.py").write_bytes(b"y = 2\n")

    @staticmethod
    def workdir(home: Path) -> Path:
        """Return the work directory below a home."""
        return home / "work" / "OpenHands"


def write_tree(directory: Path) -> None:
    """Write the critical files as they should be."""
    for name, body in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        path.chmod(0o755 if name.endswith(".sh") else 0o644)
