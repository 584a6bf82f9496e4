"""A batch that is over in a second: OpenSSH hosts on loopback, an eval that copies a good result, an operator's directory.

What happened to its tasks is read from the hosts themselves: a line per start in their home, and the agent's start markers.
"""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fleet.quality.store import read_verdict
from tests.conftest import end_processes_of
from tests.support.datasets import fail_to_pass, pass_to_pass, task, write_dataset
from tests.support.operator import Operator
from tests.support.results import build_result
from tests.support.sshd_farm import SshdFarm

BATCH = "small"
_EVAL = """#!/bin/sh
echo "$1" >> "$HOME/starts"
mkdir -p "$FLEET_OUTPUT_DIR"
cp -r "$HOME/results/$1/." "$FLEET_OUTPUT_DIR"
sleep "$(cat "$HOME/seconds")"
while [ -e "$HOME/hold" ]; do sleep 0.05; done
echo "$1" >> "$HOME/stops"
"""
_PIPELINE = """
schema: fleet.pipeline/1
name: small
workdir: "~/work"
readiness: {disk: {max_used_percent: 100, min_free_gb: 0, min_free_inodes: 0}, min_free_memory_gb: 0}
command: ["./eval.sh", "{instance_id}"]
outputs: {root: "{output_dir}"}
cleanup: {grace_s: 1}
quality: {layout: openhands}
"""


class SmallJob(Operator):
    """An operator whose assignment gives each host some instances; `padding` random bytes are added to each result.

    `defaults` are settings of the hosts file's section of that name, e.g. shorter timeouts.
    """

    def __init__(
        self,
        directory: Path,
        farm: SshdFarm,
        tasks: Mapping[str, Sequence[str]],
        *,
        seconds: float = 0.05,
        padding: int = 0,
        env: Mapping[str, str] | None = None,
        defaults: Mapping[str, float] | None = None,
    ) -> None:
        hosts_file = directory / "hosts.yaml"
        super().__init__(directory, hosts_file, env)
        limits = "".join(f"  {key}: {value}\n" for key, value in (defaults or {}).items())
        text = farm.hosts_file.read_text().replace("defaults:\n", "defaults:\n  pipeline: small\n" + limits)
        for name in ("ssh_config", "known_hosts"):
            text = text.replace(f"{name}: {name}", f"{name}: {farm.directory / name}")
        hosts_file.write_text(text)
        pipeline = directory / "remote_scripts" / "small"
        pipeline.mkdir(parents=True)
        (pipeline / "pipeline.yaml").write_text(_PIPELINE)
        self.farm = farm
        self.tasks = {host: list(names) for host, names in tasks.items()}
        self.assignment = directory / f"{BATCH}.json"
        self.batch = self.collected / BATCH
        self.journal_file = self.batch / "journal.jsonl"
        for host, names in tasks.items():
            self._furnish(farm.homes[host], names, seconds, padding)
        entries = {host: [task(one, "gpt", f"data/{one}.json") for one in names] for host, names in tasks.items()}
        self.assignment.write_text(json.dumps(entries))

    def _furnish(self, home: Path, names: Sequence[str], seconds: float, padding: int) -> None:
        work = home / "work"
        work.mkdir(exist_ok=True)
        (work / "eval.sh").write_text(_EVAL)
        (work / "eval.sh").chmod(0o755)
        (home / "seconds").write_text(str(seconds))
        for one in names:
            write_dataset(self.directory / "data" / f"{one}.json", one)
            result = build_result(home / "results" / one, one, f2p=fail_to_pass(one), p2p=pass_to_pass())
            if padding:
                (result / "trace.bin").write_bytes(random.Random(one).randbytes(padding))

    @property
    def instances(self) -> list[str]:
        """The instances of all hosts."""
        return [one for names in self.tasks.values() for one in names]

    @property
    def hosts(self) -> list[str]:
        """The hosts that have tasks."""
        return list(self.tasks)

    def journal(self, batch: str = BATCH) -> list[dict[str, Any]]:
        """Return the complete lines of the journal."""
        return super().journal(batch)

    def states(self, batch: str = BATCH) -> dict[str, str]:
        """Return the state of every task."""
        return super().states(batch)

    def starts(self) -> Counter[str]:
        """Return how often each instance's eval was started, as the evals themselves noted."""
        lines = (line for host in self.hosts for line in lines_of(self.farm.homes[host] / "starts"))
        return Counter(line for line in lines if line in self.instances)

    def markers(self) -> Counter[str]:
        """Return how many attempts of each instance have a start marker on a host."""
        found: Counter[str] = Counter()
        for host in self.hosts:
            for started in (self.farm.homes[host] / ".fleet" / "attempts").glob("*/started.json"):
                if "never" in json.loads(started.read_text()):
                    continue  # a refusal that was made final: the mark of what will not start
                intent = json.loads((started.parent / "spec.json").read_text())
                found[intent["key"]["instance_id"]] += 1
        return Counter({instance: number for instance, number in found.items() if instance in self.instances})

    def accepted(self) -> Counter[str]:
        """Return how many accepted results of each instance are here."""
        found: Counter[str] = Counter()
        for directory in self.batch.glob("*/gpt/run1/attempt?"):
            verdict = read_verdict(directory)
            if verdict is not None and verdict.verdict == "accepted":
                found[directory.parts[-4]] += 1
        return found

    def contacts(self) -> int:
        """Return how many logins the hosts' sshd have seen."""
        return sum(self.farm.log(host).count("Accepted ") for host in self.hosts)

    def assert_each_ran_once(self) -> None:
        """Prove from the hosts' own records: every task started once, and one accepted result of each is here."""
        once = dict.fromkeys(self.instances, 1)
        found = {"starts": self.starts(), "markers": self.markers(), "accepted": self.accepted()}
        assert all(counted == once for counted in found.values()), found

    def hold(self) -> None:
        """Let evals go on until `let_go`: what a test does meanwhile may take as long as it takes."""
        for host in self.hosts:
            (self.farm.homes[host] / "hold").touch()

    def let_go(self) -> None:
        """Let the evals end."""
        for host in self.hosts:
            (self.farm.homes[host] / "hold").unlink(missing_ok=True)

    def end(self) -> None:
        """End what still runs on the hosts, and forget what they did."""
        for host in self.hosts:
            home = self.farm.homes[host]
            end_processes_of(home)
            for name in ("starts", "stops", "seconds", "hold"):
                (home / name).unlink(missing_ok=True)
            for name in ("results", ".fleet/attempts"):
                shutil.rmtree(home / name, ignore_errors=True)


def lines_of(path: Path) -> list[str]:
    """Return the lines of a record that a host keeps; none where it has written nothing yet."""
    return path.read_text().splitlines() if path.exists() else []
