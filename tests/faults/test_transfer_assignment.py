"""An assignment that is wrong in any way is refused with file, place and reason before a single packet leaves."""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.main import run
from fleet.dispatch.files.batch import Batch
from fleet.dispatch.job import Job, opened
from fleet.dispatch.resolve import resolve_assignment
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.records import AttemptIntended, AttemptStarted
from fleet.testing import LocalConnector
from tests.support.catalogue import fault
from tests.support.datasets import task, write_dataset

PIPELINE = "schema: fleet.pipeline/1\nname: tiny\nworkdir: ~/work\ncommand: [/bin/true]\noutputs: {root: '{output_dir}'}\n"


@dataclass
class Desk:
    """An operator's directory whose only host is a socket that would see every connection."""

    directory: Path
    listener: socket.socket
    capsys: pytest.CaptureFixture[str]

    def dispatch(self, *words: str) -> tuple[int, str]:
        """Run `fleet dispatch a.json --json` and return exit code and error message."""
        code = run(["dispatch", str(self.directory / "a.json"), *words, "--json"])
        captured = self.capsys.readouterr()
        assert "Traceback" not in captured.err
        return code, json.loads(captured.err)["message"] if code == 1 else captured.err

    def untouched(self) -> bool:
        """Tell whether nobody tried to connect, and no batch was begun."""
        return not select.select([self.listener], [], [], 0)[0] and not (self.directory / "collected").exists()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    scripts = tmp_path / "remote_scripts" / "tiny"
    scripts.mkdir(parents=True)
    (scripts / "pipeline.yaml").write_text(PIPELINE)
    for instance in ("i-1", "i-2"):
        write_dataset(tmp_path / f"{instance}.json", instance)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (tmp_path / "hosts.yaml").write_text(
            f"defaults: {{pipeline: tiny}}\nhosts: {{eval1: {{address: 127.0.0.1, port: {port}, user: u}}}}\n"
        )
        monkeypatch.setenv("FLEET_REMOTE_SCRIPTS", str(tmp_path / "remote_scripts"))
        monkeypatch.setenv("FLEET_HOSTS_FILE", str(tmp_path / "hosts.yaml"))
        monkeypatch.setenv("FLEET_COLLECTED", str(tmp_path / "collected"))
        yield Desk(tmp_path, listener, capsys)


def one(instance: str = "i-1", **fields: Any) -> dict[str, Any]:
    return task(instance, "gpt", f"{instance}.json", **fields)


def text(*tasks: Any, host: str = "eval1") -> str:
    return json.dumps({host: list(tasks)})


WRONG = {
    "the same task twice": (text(one(), one()), r"eval1\[1\]: i-1/gpt/run1 is already assigned at eval1\[0\]"),
    "a key twice": ('{"eval1": [], "eval1": []}', "'eval1' appears twice"),
    "an unknown host": (text(one(), host="eval9"), "eval9.*did you mean.*eval1|eval9"),
    "a host by its address": (json.dumps({"eval1": [one()], "127.0.0.1": [one("i-2")]}), r"127\.0\.0\.1"),
    "nothing": ("", "not a JSON assignment"),
    "no host": ("{}", "holds no task"),
    "no task": ('{"eval1": []}', "holds no task"),
    "a list": (json.dumps([one()]), "a JSON list, not an object"),
    "JSON lines": (text(one()) + "\n" + text(one("i-2")), "not a JSON assignment: Extra data: line 2"),
    "truncated": (text(one())[:-9], "not a JSON assignment"),
    "NaN": (text(one()).replace('"i-1"', "NaN", 1), "NaN is not JSON"),
    "100,000 brackets": ("[" * 100_000, "not a JSON assignment"),
    "an integer of 5,000 digits": (text(one(run=1)).replace('"run": 1', '"run": ' + "9" * 5000), "not a JSON assignment"),
    "not UTF-8": (b'{"eval1": ["\xff"]}', "not a JSON assignment"),
    "an object for a list": (json.dumps({"eval1": one()}), "eval1: must be a list of tasks"),
    "a word for a task": (text("i-1"), r"eval1\[0\]: must be an object"),
    "an unknown key": (text(one(modle="x")), "unknown key modle, did you mean 'model'"),
    "a key missing": (text({"instance_id": "i-1", "model": "gpt"}), "missing key dataset_file"),
    "a number for a name": (text(one() | {"model": 7}), "model: .*string"),
    "a dataset that is not there": (text(one() | {"dataset_file": "gone.json"}), r"gone\.json: No such file"),
    "a dataset of another instance": (text(one() | {"dataset_file": "i-2.json"}), "i-2.json describes instance i-2"),
    "a dataset that is a device": (text(one() | {"dataset_file": "/dev/zero"}), "is not a regular file"),
    "shell text for a name": (text(one() | {"instance_id": "$(touch pwned)"}), "may only hold"),
    "a run of nothing": (text(one(run=0)), "run: .*greater than or equal to 1"),
    "a pipeline that is not there": (text(one(pipeline="tinny")), "tinny"),
}


@fault("T9")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_assignment_is_refused_with_its_place_before_any_connection(desk: Desk, name: str) -> None:
    body, said = WRONG[name]
    (desk.directory / "a.json").write_bytes(body if isinstance(body, bytes) else body.encode())
    code, message = desk.dispatch()
    assert code == 1
    assert re.search(said, message), message
    assert str(desk.directory / "a.json") in message or str(desk.directory / "hosts.yaml") in message, "the file is named"
    assert desk.untouched()


@fault("T9")
def test_one_machine_under_two_names_is_refused_by_alias_and_by_address(desk: Desk) -> None:
    port = desk.listener.getsockname()[1]
    (desk.directory / "ssh_config").write_text(f"Host twin\n  HostName 127.0.0.1\n  Port {port}\n  User u\n")
    (desk.directory / "hosts.yaml").write_text(
        "defaults: {pipeline: tiny, ssh_config: ssh_config}\n"
        f"hosts: {{eval1: {{address: 127.0.0.1, port: {port}, user: u}}, eval2: {{alias: twin}}}}\n"
    )
    (desk.directory / "a.json").write_text(json.dumps({"eval1": [one()], "eval2": [one("i-2")]}))
    code, message = desk.dispatch()
    assert (code, "eval1 and eval2 are both 127.0.0.1" in message) == (1, True), message
    assert desk.untouched()


@fault("T9")
def test_the_line_ends_of_another_system_are_no_mistake(desk: Desk) -> None:
    body = json.dumps({"eval1": [one(), one("i-2")]}, indent=2)
    (desk.directory / "a.json").write_bytes(b"\xef\xbb\xbf" + body.replace("\n", "\r\n").encode())
    code, _ = desk.dispatch("--dry-run")
    assert code == 0 and desk.untouched()


@fault("T9")
@pytest.mark.parametrize("change", ["a setting", "the dataset"])
def test_a_task_that_was_changed_after_it_began_is_a_conflict_and_not_silent(desk: Desk, change: str) -> None:
    path = desk.directory / "a.json"
    path.write_text(text(one(), one("i-2")))
    inventory, pipelines = load_inventory(desk.directory / "hosts.yaml"), Pipelines([desk.directory / "remote_scripts"])
    job = Job(Batch(desk.directory / "collected", "a"), path, resolve_assignment(path, inventory, pipelines))
    with opened(job, inventory, pipelines, LocalConnector({})):
        pass
    intended = AttemptIntended(task="i-1/gpt/run1", host="eval1", attempt="a1", number=1)
    job.batch.journal.append(intended, AttemptStarted(attempt="a1", epoch=1, boot_id="b"))
    before = job.batch.journal.path.read_bytes()
    if change == "a setting":
        path.write_text(text(one(max_iterations=7), one("i-2")))
    else:
        write_dataset(desk.directory / "i-1.json", "i-1", extra={"note": "changed"})
    code, message = desk.dispatch()
    assert (code, "i-1/gpt/run1 already started with other settings" in message) == (1, True), message
    assert job.batch.journal.path.read_bytes() == before
    assert not select.select([desk.listener], [], [], 0)[0]
    write_dataset(desk.directory / "i-1.json", "i-1")
    path.write_text(text(one(), one("i-2", max_iterations=7)))
    assert desk.dispatch("--dry-run")[0] == 0, "a task that has not begun may still be changed"


@fault("T9")
@pytest.mark.parametrize("kind", ["all good", "all wrong"])
def test_a_hundred_thousand_tasks_or_mistakes_are_read_in_bounded_time_and_memory(desk: Desk, kind: str) -> None:
    if kind == "all good":
        tasks = [one() | {"model": f"m{m}", "run": r} for m in range(10) for r in range(1, 10_001)]
    else:
        tasks = [one() | {"instance_id": f"i-{n}", "dataset_file": f"gone-{n}.json"} for n in range(30_000)]
    (desk.directory / "a.json").write_text(text(*tasks))
    argv = [sys.executable, "-m", "fleet", "dispatch", str(desk.directory / "a.json"), "--dry-run"]
    started = time.monotonic()
    limited = ["sh", "-c", 'ulimit -v 2000000 && exec "$@"', "sh", *argv]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=90, check=False)
    assert time.monotonic() - started < 60
    if kind == "all good":
        assert (done.returncode, "100000 tasks; 100000 to run" in done.stdout) == (0, True), done.stderr
    else:
        assert (done.returncode, "and 29990 more" in done.stderr) == (1, True), done.stderr[-500:]
        assert len(done.stderr) < 5000
    assert desk.untouched()
