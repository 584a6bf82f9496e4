"""An operator's directory for `fleet collect`: inventory, batches, and real sshd hosts where evals have ended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.main import run
from fleet.dispatch.files.journal import Journal
from fleet.dispatch.state.replay import replay
from fleet.dispatch.state.views import BatchState
from fleet.model.records import AttemptIntended, BatchOpened
from fleet.model.tasks import Task, TaskKey
from tests.support.finished import FinishedHost, finished_host
from tests.support.results import F2P, INSTANCE, P2P, build_result
from tests.support.sshd_farm import SshdFarm

PIPELINE = """
schema: fleet.pipeline/1
name: small
workdir: ~/work
command: [/bin/true]
busy: {processes: [run_infer_of_this_test]}
outputs: {root: "{output_dir}"}
"""


@dataclass
class Bench:
    """An operator's directory: inventory, collected batches, and hosts where evals have ended."""

    collected: Path
    hosts: dict[str, FinishedHost]
    dataset: Path
    capsys: pytest.CaptureFixture[str]

    def fleet(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run `fleet collect --json WORDS` and return the exit code and the document."""
        return self.typed("collect", *words)

    def typed(self, *words: str) -> tuple[int, dict[str, Any]]:
        """Run `fleet WORDS --json` and return the exit code and the document."""
        code = run([*words, "--json"])
        captured = self.capsys.readouterr()
        return code, json.loads(captured.out) if captured.out else {"error": json.loads(captured.err)}

    def said(self, *words: str) -> tuple[int, str, str]:
        """Run `fleet WORDS` and return the exit code, stdout and stderr."""
        code = run(list(words))
        captured = self.capsys.readouterr()
        return code, captured.out, captured.err

    def journal(self, batch: str = "phase8") -> BatchState:
        return replay(Journal(self.collected / batch / "journal.jsonl").read())

    def task(self, instance: str = INSTANCE, model: str = "gpt", host: str = "eval1") -> Task:
        key = TaskKey(instance_id=instance, model=model, dataset_sha256="")
        return Task(key=key, dataset_file=self.dataset, place=host, hosts=(host,))

    def opened(self, *tasks: Task, attempts: dict[str, str] | None = None, batch: str = "phase8") -> None:
        """Write the journal of a controller that launched `attempts` (id → task label) and died."""
        (self.collected / batch).mkdir(parents=True, exist_ok=True)
        hosts = dict.fromkeys((task.place for task in tasks), "small")
        opened = BatchOpened(batch=batch, assignment_sha256="x", controller="me", tasks=tasks, hosts=hosts)
        places = {task.label: task.place for task in tasks}
        intended = [
            AttemptIntended(task=label, host=places[label], attempt=attempt, number=1)
            for attempt, label in (attempts or {}).items()
        ]
        Journal(self.collected / batch / "journal.jsonl").append(opened, *intended)


@contextmanager
def collect_bench(
    farm_hosts: SshdFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Bench]:
    """Yield a bench with two hosts."""
    scripts = tmp_path / "remote_scripts" / "small"
    scripts.mkdir(parents=True)
    (scripts / "pipeline.yaml").write_text(PIPELINE)
    names = farm_hosts.names[:2]
    hosts_file = tmp_path / "hosts.yaml"
    hosts_file.write_text(
        f'defaults: {{alias: "aws-instance-{{name}}", ssh_config: {farm_hosts.ssh_config}, '
        f"known_hosts: {farm_hosts.known_hosts}, pipeline: small}}\nhosts: {{eval1: , eval2: }}\n"
    )
    dataset = tmp_path / "dataset.json"
    dataset.write_text(
        json.dumps({"instance_id": INSTANCE, "repo": "a/b", "base_commit": "c", "FAIL_TO_PASS": F2P, "PASS_TO_PASS": P2P})
    )
    monkeypatch.setenv("FLEET_REMOTE_SCRIPTS", str(tmp_path / "remote_scripts"))
    monkeypatch.setenv("FLEET_HOSTS_FILE", str(hosts_file))
    monkeypatch.setenv("FLEET_COLLECTED", str(tmp_path / "collected"))
    hosts = {name: finished_host(farm_hosts.homes[name], name) for name in names}
    try:
        yield Bench(tmp_path / "collected", hosts, dataset, capsys)
    finally:
        for host in hosts.values():
            host.__exit__()


def writes(tmp_path: Path, name: str = "good", **knobs: Any) -> str:
    """Return a script that writes a result into the eval's output directory."""
    prepared = build_result(tmp_path / "prepared" / name, **knobs)
    return f'cp -r {prepared}/. "$FLEET_OUTPUT_DIR"; echo done'
