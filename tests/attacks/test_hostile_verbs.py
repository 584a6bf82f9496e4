"""Every command that asks a host survives an answer with anything in any place.

The answers of a real agent are recorded, then given again with one part of them replaced at a time. There are
hundreds of these: each command gets a sample, the same every time, and those that bring files here a small one.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import AgentClient
from fleet.cli.main import run
from fleet.dispatch.files.journal import Journal
from fleet.model.records import AttemptIntended, AttemptStarted, BatchOpened
from fleet.model.tasks import Task, TaskKey
from tests.support.catalogue import attack
from tests.support.finished import INSTANCE, FinishedHost, finished_host
from tests.support.hostile_agent import corrupted
from tests.support.results import F2P, P2P, build_result

WRONG: tuple[Any, ...] = (7, "x\x1b[2J", ["y"], {"a": [1]}, -(10**17))
PIPELINE = """
schema: fleet.pipeline/1
name: small
workdir: ~/work
command: [/bin/true]
critical: [{path: run.sh}]
ship: [helper.sh]
busy: {processes: [no_such_process], containers: [no-such-*]}
readiness: {tools: [git], commands: [{name: one, argv: ["true"], fix: f}]}
outputs: {root: "{output_dir}"}
"""
COMMANDS: dict[str, list[str]] = {
    "check": ["check"],
    "check as JSON": ["check", "--json"],
    "collect": ["collect", "b"],
    "status": ["status", "b"],
    "cancel": ["cancel", INSTANCE, "--batch", "b", "--yes"],
    "sync": ["sync", "--dry-run", "--reference", "reference"],
    "adopt": ["collect", "--batch", "b", "--adopt", "elsewhere", "--model", "gpt", "--instance", INSTANCE],
    "logs": ["logs", INSTANCE, "--batch", "b"],
}
ENDS = {0, 1, 2, 4, 6, 16, 18, 20, 64, 66, 68}
"""Exit codes that blame a host, an input or a result; never this machine (32), never a traceback."""


class World:
    """A batch whose one attempt has ended on a host, as far as the journal knows still running."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.host: FinishedHost = finished_host(directory / "eval1")
        result = build_result(directory / "result")
        self.host.run(f'cp -r {result}/. "$FLEET_OUTPUT_DIR"; echo done', batch="b")
        shutil.copytree(result, self.host.home / "work/elsewhere/one")
        for path in ("remote_scripts/small", "reference", "seed/b"):
            (directory / path).mkdir(parents=True)
        (directory / "remote_scripts/small/pipeline.yaml").write_text(PIPELINE)
        for name in ("reference/run.sh", "remote_scripts/small/helper.sh"):
            (directory / name).write_text("exit 0\n")
        (directory / "hosts.yaml").write_text("hosts: {eval1: {address: 127.0.0.1, pipeline: small}}\n")
        record = {"instance_id": INSTANCE, "repo": "a/b", "base_commit": "c", "FAIL_TO_PASS": F2P, "PASS_TO_PASS": P2P}
        (directory / "d.json").write_text(json.dumps(record))
        key = TaskKey(instance_id=INSTANCE, model="gpt")
        task = Task(key=key, dataset_file=directory / "d.json", place="eval1", hosts=("eval1",))
        Journal(directory / "seed/b/journal.jsonl").append(
            BatchOpened(batch="b", assignment_sha256="", controller="me", tasks=(task,), hosts={"eval1": "small"}),
            AttemptIntended(task=task.label, host="eval1", attempt="a1", number=1),
            AttemptStarted(attempt="a1", epoch=1, boot_id="x"),
        )
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.instead: tuple[int, Mapping[str, Any]] | None = None
        self._number = 0
        really = AgentClient._ask

        def ask(client: AgentClient, request: Mapping[str, Any], *rest: Any, **more: Any) -> dict[str, Any]:
            number = self._number
            self._number += 1
            if self.instead is not None and number < len(self.asked):
                return json.loads(json.dumps(self.instead[1] if number == self.instead[0] else self.asked[number][1]))
            answer = really(client, request, *rest, **more)
            if self.instead is None:
                self.asked.append((str(request["verb"]), json.loads(json.dumps(answer))))
            return answer

        patch.setattr(AgentClient, "_ask", ask)
        patch.setattr("fleet.cli.options.Context.connector", lambda _: self.host.connector)
        patch.setenv("FLEET_REMOTE_SCRIPTS", str(directory / "remote_scripts"))
        patch.setenv("FLEET_HOSTS_FILE", str(directory / "hosts.yaml"))
        patch.setenv("FLEET_COLLECTED", str(directory / "collected"))
        patch.chdir(directory)

    def run(self, words: list[str]) -> int:
        """Run a command on the batch as it was in the beginning."""
        self._number = 0
        shutil.rmtree(self.directory / "collected", ignore_errors=True)
        shutil.copytree(self.directory / "seed", self.directory / "collected")
        return run(words)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        made = World(tmp_path, patch)
        try:
            yield made
        finally:
            made.host.__exit__()


@attack("S15", "S12")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_survives_anything_in_any_place_of_a_hosts_answer(
    world: World, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    words = COMMANDS[name]
    code = world.run(words)
    said = capsys.readouterr()
    assert code in ENDS, said.err
    assert world.asked, "the host was asked"
    assert "internal error" not in said.err
    verbs = {verb for verb, _ in world.asked}
    for number, (verb, answer) in enumerate(world.asked):
        if verb in verbs:
            verbs.discard(verb)
            cases = corrupted(answer, WRONG)
            most = 12 if "collect" in words else 100
            for case in random.Random(verb).sample(cases, min(most, len(cases))):
                world.instead = (number, case)
                code = world.run(words)
                said = capsys.readouterr()
                assert "internal error" not in said.err + said.out, (verb, case, said.err)
                assert code in ENDS, (verb, case, code, said.err)
                assert "\x1b" not in said.out + said.err, (verb, case)
