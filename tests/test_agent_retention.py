"""What a host removes by itself: what nobody used for 14 days, and never what somebody may still need."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from fleet.agent import SyncFile
from tests.support.agent_host import AgentHost

LONG_AGO = time.time() - 15 * 86400


def staged(host: AgentHost, body: bytes) -> str:
    """Put an input on the host and return its digest."""
    digest = hashlib.sha256(body).hexdigest()
    host.client.stage({digest: ("data.jsonl", body)})
    return digest


def age(path: Path) -> None:
    os.utime(path, (LONG_AGO, LONG_AGO))


def launched(host: AgentHost, attempt: str, digest: str | None = None, *, ack: bool = True) -> None:
    """Run an attempt to its end; the launch is when a host removes things."""
    host.launch("true", attempt, **({"inputs": {digest: "data.jsonl"}} if digest else {}))
    epoch = host.wait(attempt)["epoch"]
    if ack:
        host.client.ack(attempt, epoch, "accepted")


def test_inputs_go_when_no_unacknowledged_attempt_names_them_and_nobody_used_them(host: AgentHost) -> None:
    done, waiting, fresh, reused = (staged(host, body) for body in (b"done", b"waiting", b"fresh", b"reused"))
    launched(host, "a1", done)
    launched(host, "a2", waiting, ack=False)
    for digest in (done, waiting, reused):
        age(host.fleet / "inputs" / digest)
    assert staged(host, b"reused") == reused
    launched(host, "a3")
    assert {path.name for path in (host.fleet / "inputs").iterdir()} == {waiting, fresh, reused}
    host.client.ack("a2", host.status("a2")["epoch"], "accepted")
    launched(host, "a4")
    assert {path.name for path in (host.fleet / "inputs").iterdir()} == {fresh, reused}


def test_backups_go_except_the_last_of_each_directory(host: AgentHost) -> None:
    (host.home / "work" / "other").mkdir()
    for root in ("~/work", "~/work/other"):
        for body in (b"1", b"2", b"3"):
            host.client.sync(root, [SyncFile("file", body)], dry_run=False)
    for path in (host.fleet / "backups").iterdir():
        age(path)
    launched(host, "a1")
    assert len(list((host.fleet / "backups").iterdir())) == 2
    host.client.rollback("~/work")
    assert (host.home / "work" / "file").read_bytes() == b"2"
    for path in (host.fleet / "backups").iterdir():
        age(path)
    launched(host, "a2")
    assert len(list((host.fleet / "backups").iterdir())) == 1, "what was rolled back already is of no more use"


def test_earlier_agents_go_and_the_one_at_work_stays(host: AgentHost) -> None:
    old, recent = host.fleet / f"agent-{'0' * 64}", host.fleet / f"agent-{'1' * 64}"
    launched(host, "a1")
    (mine,) = host.fleet.glob("agent-*")
    for folder in (old, recent):
        folder.mkdir()
        (folder / "fleet_host.py").write_text("pass\n")
    age(old)
    age(mine)
    launched(host, "a2")
    assert sorted(host.fleet.glob("agent-*")) == sorted([mine, recent])
