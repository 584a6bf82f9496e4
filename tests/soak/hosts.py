"""The hosts of a soak: real sshd on loopback, an eval of seconds that notes what it does, an operator, and a small disk."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.datasets import fail_to_pass, pass_to_pass, task, write_dataset
from tests.support.operator import Operator
from tests.support.results import build_result
from tests.support.sshd_farm import SshdFarm

BATCH = "soak"
_EVAL = """#!/bin/sh
# The lock is the eval's own proof that it is alone here; the notes are the host's own record.
exec 9>"$HOME/alone"
flock -n 9 || echo "$FLEET_ATTEMPT" >>"$HOME/overlaps"
echo "$FLEET_ATTEMPT $1/m/run$2" >>"$HOME/starts"
sleep {seconds}
mkdir -p "$FLEET_OUTPUT_DIR"
cp -r "{results}/$1/." "$FLEET_OUTPUT_DIR"
"""
_PIPELINE = """
schema: fleet.pipeline/1
name: soak
workdir: "~/work"
readiness: {disk: {max_used_percent: 100, min_free_gb: 0, min_free_inodes: 0}, min_free_memory_gb: 0}
command: ["./eval.sh", "{instance_id}", "{run}"]
outputs: {root: "{output_dir}"}
cleanup: {grace_s: 1}
quality: {layout: openhands}
"""


class SoakFleet:
    """`hosts` hosts with `evals` tasks each: one half pinned to its host, the other shared by all."""

    def __init__(self, directory: Path, hosts: int, evals: int, seconds: float, disk_mb: int | None) -> None:
        self.directory = directory
        self.farm = SshdFarm(hosts, directory / "farm", options=["MaxStartups 100:30:200"])
        self.evals, self.seconds = evals, seconds
        self.disk = directory / "disk"
        self.disk_mb = disk_mb
        """Size of the file system that results go to; None without the right to mount one."""
        self.hosts_file = directory / "hosts.yaml"
        self.operator = self.person("first")

    def __enter__(self) -> SoakFleet:
        self.disk.mkdir(parents=True)
        if self.disk_mb is not None:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.disk_mb}m", "tmpfs", self.disk], check=True, timeout=10)
        try:
            self.farm.start()
            self._furnish()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.farm.stop()
        if self.disk_mb is not None:
            subprocess.run(["umount", "-l", self.disk], check=False, timeout=30)

    def person(self, name: str) -> Operator:
        """Return somebody with a machine of their own and the same hosts."""
        state = {"XDG_STATE_HOME": str(self.directory / f"state-{name}")}
        operator = Operator(self.directory / name, self.hosts_file, {**state, "FLEET_COLLECTED": str(self.disk / name)})
        operator.collected = self.disk / name
        return operator

    @property
    def assignment(self) -> Path:
        """The assignment of the whole soak."""
        return self.directory / f"{BATCH}.json"

    @property
    def pinned(self) -> Path:
        """The same tasks without the shared ones: what a second machine may run beside the first."""
        return self.directory / "pinned" / f"{BATCH}.json"

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return len(self.farm.names) * self.evals

    def _furnish(self) -> None:
        text = self.farm.hosts_file.read_text().replace("defaults:\n", "defaults:\n  pipeline: soak\n")
        for name in ("ssh_config", "known_hosts"):
            text = text.replace(f"{name}: {name}", f"{name}: {self.farm.directory / name}")
        self.hosts_file.write_text(text)
        for person in ("first", "second"):
            folder = self.directory / person / "remote_scripts" / "soak"
            folder.mkdir(parents=True)
            (folder / "pipeline.yaml").write_text(_PIPELINE)
        instances = [f"soak-{number}" for number in range(1, self.evals + 1)]
        results = self.directory / "results"
        for one in instances:
            write_dataset(self.directory / "data" / f"{one}.json", one)
            build_result(results / one, one, f2p=fail_to_pass(one), p2p=pass_to_pass())
        for name in self.farm.names:
            work = self.farm.homes[name] / "work"
            work.mkdir()
            script = work / "eval.sh"
            script.write_text(_EVAL.format(results=results, seconds=self.seconds))
            script.chmod(0o755)
        pinned: dict[str, list[dict[str, Any]]] = {}
        shared = []
        for run, name in enumerate(self.farm.names, 1):
            for number, one in enumerate(instances):
                entry = task(one, "m", str(self.directory / "data" / f"{one}.json"), run=run)
                if number % 2:
                    shared.append(entry)
                else:
                    pinned.setdefault(name, []).append(entry)
        self.assignment.write_text(json.dumps({**pinned, "@eval": shared} if shared else pinned))
        self.pinned.parent.mkdir()
        self.pinned.write_text(json.dumps(pinned))


def may_mount() -> bool:
    """Tell whether a file system of a size of our own can be had."""
    return os.geteuid() == 0
