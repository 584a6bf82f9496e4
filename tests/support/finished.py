"""Hosts with attempts that have really run and ended there, through the real agent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.agent import AgentClient
from fleet.collect import AttemptRef
from fleet.inventory.pipelines import agent_source
from fleet.model.pipeline import Pipeline
from fleet.testing import LocalConnector, LocalTransport, local_host

INSTANCE = "1319603449576684"


def small_pipeline(**outputs: Any) -> Pipeline:
    """Return a pipeline whose eval is a shell script that writes into its own output directory."""
    return Pipeline.model_validate(
        {
            "schema": "fleet.pipeline/1",
            "name": "small",
            "workdir": "~/work",
            "critical": [{"path": "scripts/run.sh"}],
            "command": ["/bin/sh", "-c", "true"],
            "outputs": {"root": "{output_dir}", **outputs},
        }
    )


@dataclass
class FinishedHost:
    """One host (a directory of this machine) and the way to it."""

    name: str
    home: Path
    connector: LocalConnector
    transport: LocalTransport
    client: AgentClient

    def __enter__(self) -> FinishedHost:
        return self

    def __exit__(self, *_: object) -> None:
        self.connector.close()
        for thread in threading.enumerate():
            if thread.name == f"reap {self.name}":
                thread.join(10)

    @property
    def fleet(self) -> Path:
        """The agent's directory on the host."""
        return self.home / ".fleet"

    def out(self, attempt: str) -> Path:
        """Return where the host keeps an attempt's outputs."""
        return self.fleet / "attempts" / attempt / "out"

    def seal_again(self, attempt: str) -> None:
        """Write the manifest anew for what is in the output directory now, as a lying host could."""
        self.rewrite_manifest(attempt, files=manifest_files(self.out(attempt)))

    def rewrite_manifest(self, attempt: str, **changes: Any) -> None:
        """Change the sealed manifest."""
        path = self.fleet / "attempts" / attempt / "manifest.json"
        document = json.loads(path.read_text())
        document.update(changes)
        path.write_text(json.dumps(document))

    def run(self, script: str, attempt: str = "a1", **task: Any) -> AttemptRef:
        """Launch an eval that is `script`, wait for its end, and return its attempt; `task` as for `start`."""
        ref = self.start(script, attempt, **task)
        for _ in self.client.wait(attempt, max_s=30):
            pass
        return ref

    def start(
        self,
        script: str,
        attempt: str = "a1",
        *,
        instance: str = INSTANCE,
        model: str = "gpt",
        run: int = 1,
        batch: str = "phase8",
        outputs: Mapping[str, Any] | None = None,
        dataset_sha256: str = "",
    ) -> AttemptRef:
        """Launch an eval that is `script` and return its attempt."""
        (self.home / "work").mkdir(exist_ok=True)
        key = {"instance_id": instance, "model": model, "run": run, "dataset_sha256": dataset_sha256}
        spec = {
            "pipeline": "small",
            "workdir": "~/work",
            "argv": ["/bin/sh", "-ec", script],
            "env": {},
            "timeout_s": 60,
            "outputs": dict(outputs or {"root": "{output_dir}", "marker": "output.jsonl"}),
            "cleanup": {"processes": "kill", "containers": "keep", "grace_s": 2},
        }
        self.client.launch(attempt=attempt, key=key, spec=spec, batch=batch, controller="test")
        return AttemptRef(attempt, instance, model, run, 1, self.name)


def finished_host(home: Path, name: str = "eval1", connector: LocalConnector | None = None) -> FinishedHost:
    """Return a host whose HOME is `home`."""
    home.mkdir(parents=True, exist_ok=True)
    connector = connector or LocalConnector({})
    connector.homes[name] = home
    transport = connector.open(local_host(name, pipeline="small"))
    return FinishedHost(name, home, connector, transport, AgentClient(transport, agent_source()))


def manifest_files(directory: Path) -> list[dict[str, Any]]:
    """Return the manifest's list of the plain files below `directory`."""
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            body = path.read_bytes()
            found.append(
                {
                    "path": str(path.relative_to(directory)),
                    "size": len(body),
                    "sha256": hashlib.sha256(body).hexdigest(),
                }
            )
    return found


def tree(directory: Path) -> dict[str, bytes]:
    """Return path → content of every plain file below `directory`."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
