"""Every document that a command prints is the one whose schema is published: real commands on embedded hosts, nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from fleet.cli.schema import DOCUMENTS, model_of, schema_of
from fleet.demo.embedded import EmbeddedHosts
from fleet.demo.scenario import rehearsal_assignment
from fleet.inventory.pipelines import Pipelines

ROOT = Path(__file__).resolve().parent.parent
INPUTS = {"hosts-file", "pipeline", "assignment"}
LITE = ("lite-run", "lite-batch", "lite-validate", "lite-image")
ELSEWHERE = {
    "demo": "tests/test_demo.py",
    "images": "tests/test_images.py",
    "lite-agent": "tests/test_lite_agent_command.py",
    **dict.fromkeys(LITE, "tests/test_lite_commands.py"),
}
TASK = "spans-17/demo-strong/run1"


class Told:
    """Runs commands and keeps every document, by its name."""

    def __init__(self, directory: Path, hosts: EmbeddedHosts) -> None:
        self.directory = directory
        self.hosts_file = hosts.hosts_file
        self.documents: dict[str, list[dict[str, Any]]] = {}

    def fleet(self, *words: str) -> list[dict[str, Any]]:
        """Run one command with --json and return its documents, those of stderr too."""
        done = subprocess.run(
            [sys.executable, "-m", "fleet", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.directory,
            env=os.environ | {"FLEET_HOSTS_FILE": str(self.hosts_file), "FLEET_COLLECTED": "collected", "NO_COLOR": "1"},
        )
        lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines()]
        assert lines, words
        for line in lines:
            self.keep(line)
        return lines

    def keep(self, document: dict[str, Any]) -> None:
        name = re.fullmatch(r"fleet\.([a-z-]+)/1", document["schema"])
        assert name is not None
        self.documents.setdefault(name[1], []).append(document)

    def assign(self, name: str, hosts: list[str], hang: str = "") -> str:
        """Write an assignment with one task per host, whose tests also do what `hang` says."""
        dataset = json.loads((Pipelines().folder("demo") / "datasets" / "spans-17.json").read_text())
        if hang:
            added = f"--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1 @@\n+{hang}\n"
            dataset |= {"model_patches": {"demo-strong": added}}
        (self.directory / name).mkdir()
        (self.directory / name / "spans-17.json").write_text(json.dumps(dataset))
        document = rehearsal_assignment(self.directory / name, hosts, self.directory / "cache")
        (self.directory / f"{name}.json").write_text(json.dumps(document))
        return f"{name}.json"


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    directory = tmp_path_factory.mktemp("documents")
    with EmbeddedHosts(2, directory / "hosts", pipeline="demo") as hosts:
        told = Told(directory, hosts)
        names = list(hosts.names)
        told.fleet("hosts")
        told.fleet("trust", "*", "--yes")
        told.fleet("sync", "--yes")
        told.fleet("check")
        datasets = str(Pipelines().folder("demo") / "datasets")
        told.fleet("plan", "--datasets", datasets, "--models", "demo-strong", "--out", "planned.json")
        quick = told.assign("quick", names[:1])
        told.fleet("dispatch", quick, "--dry-run")
        told.fleet("dispatch", quick, "--no-collect")
        told.fleet("collect", "quick")
        told.fleet("dispatch", quick)
        told.fleet("status", "quick")
        told.fleet("status", "--all-hosts")
        told.fleet("logs", TASK, "--batch", "quick")
        told.fleet("why", TASK, "--batch", "quick")
        told.fleet("cancel", TASK, "--batch", "quick", "--yes")
        told.fleet("release", names[0])
        told.fleet("why", "nobody", "--batch", "quick")
        slow = told.assign("slow", [*names, *names], "import time; time.sleep(60)")
        told.fleet("dispatch", slow, "--detach")
        state = eventually_running(told, len(names))
        assert {host["state"] for host in state["hosts"]} == {"running"}
        told.fleet("cancel", "--all", "--batch", "slow", "--grace", "1", "--yes")
        wait_for_the_controller(told)
        told.fleet("retry", "--class", "cancelled", "--batch", "slow")
        told.fleet("status", "slow", "--offline")
        told.fleet("dashboard", "slow")
        told.fleet("validate", "collected")
        told.fleet("recover", "quick")
        told.fleet("validate", "--explain", "log-disagrees")
        for side in ("a", "b"):
            (directory / f"{side}.json").write_text(json.dumps({"submitted_ids": ["t1", "t2"], "resolved_ids": ["t1"]}))
        told.fleet("compare", "a.json", "b.json")
        told.fleet("schema")
        kept = {"fleet.json": "provenance", "manifest.json": "manifest", "verdict.json": "verdict", "summary.json": "summary"}
        for file, name in kept.items():
            for path in sorted((directory / "collected").rglob(file)):
                document = json.loads(path.read_text())
                assert document["schema"] == f"fleet.{name}/1"
                told.keep(document)
        told.documents["journal"] = [
            json.loads(line) for path in directory.glob("collected/*/journal.jsonl") for line in path.read_text().splitlines()
        ]
        yield told


def eventually_running(told: Told, hosts: int) -> dict[str, Any]:
    """Return the status in which every host runs something."""
    for _ in range(40):
        (document,) = told.fleet("status", "slow")
        if sum(task["state"] == "running" for task in document["tasks"]) == hosts:
            return document
        time.sleep(0.25)
    raise AssertionError(document)


def wait_for_the_controller(told: Told) -> None:
    for _ in range(80):
        (document,) = told.fleet("status", "slow", "--offline")
        if document["controller"] is None:
            return
        time.sleep(0.25)
    raise AssertionError("the controller goes on")


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name not in {*INPUTS, *ELSEWHERE}])
def test_what_is_printed_is_what_is_published(told: Told, name: str) -> None:
    adapter = TypeAdapter(model_of(name))
    documents = told.documents[name]
    for document in documents:
        # What the model does not know would be missing from the copy.
        body = {key: value for key, value in document.items() if name != "journal" or key not in ("v", "crc")}
        assert adapter.dump_python(adapter.validate_python(body), mode="json", by_alias=True, exclude_unset=True) == body
    published = schema_of(name)
    if "properties" in published:
        assert set(published.get("required", ())) <= set(documents[0]) <= set(published["properties"])


def test_every_document_that_a_command_names_is_published() -> None:
    named = {
        name
        for path in (ROOT / "fleet").rglob("*.py")
        for name in re.findall(r'"fleet\.([a-z-]+)/1"', path.read_text())
        if path.name != "spec.py"
    }
    assert named - set(DOCUMENTS) == set()


def test_a_key_that_is_not_published_is_noticed(told: Told) -> None:
    document = told.documents["status"][0]
    changed = {**document, "tasks": [{**document["tasks"][0], "colour": "blue"}]}
    with pytest.raises(ValidationError, match="colour"):
        TypeAdapter(model_of("status")).validate_python(changed)


def test_the_documents_of_this_run_say_more_than_nothing(told: Told) -> None:
    cancelled = [row for document in told.documents["cancel"] for row in document["cancelled"]]
    assert {row["outcome"] for row in cancelled} >= {"cancelled", "not started"}
    assert told.documents["retry"][0]["next"].startswith("fleet dispatch ")
    assert told.documents["error"][0]["code"] == "input"
    assert {result["got"] for document in told.documents["collect"] for result in document["results"]} == {"collected"}
    assert len({document["type"] for document in told.documents["journal"]}) > 8
