"""Files put on a host: staged inputs by digest, synced files with a way back, nothing outside their root."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import SyncFile
from fleet.agent.wire import Exchange
from fleet.errors import AgentError
from tests.support.agent_host import AgentHost

ROOT = "~/work"


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def raw(host: AgentHost, bodies: dict[str, bytes] | None = None, **request: Any) -> dict[str, Any]:
    """Send what a careful client would not."""
    exchange = Exchange(host.transport, host.source, sha256(host.source), request, bodies)
    return next(exchange.frames(quiet_s=20))


def refusal(host: AgentHost, *files: SyncFile, root: str = ROOT) -> AgentError:
    with pytest.raises(AgentError) as caught:
        host.client.sync(root, files, dry_run=False)
    return caught.value


def test_an_input_is_staged_once_under_its_digest(host: AgentHost) -> None:
    body = b"x" * 300_000
    (path,) = host.client.stage({sha256(body): ("data.jsonl", body)}).values()
    assert Path(path).read_bytes() == body
    assert path == str(host.fleet / "inputs" / sha256(body) / "data.jsonl")
    before = Path(path).stat().st_ino
    host.client.stage({sha256(body): ("data.jsonl", body)})
    assert Path(path).stat().st_ino == before


def test_a_damaged_input_is_staged_anew(host: AgentHost) -> None:
    body = b"data"
    (path,) = host.client.stage({sha256(body): ("data.jsonl", body)}).values()
    Path(path).write_bytes(b"dat4")
    host.client.stage({sha256(body): ("data.jsonl", body)})
    assert Path(path).read_bytes() == body


def test_a_body_that_is_not_what_was_announced_is_refused_and_not_stored(host: AgentHost) -> None:
    digest = sha256(b"right")
    with pytest.raises(AgentError) as caught:
        raw(host, {digest: b"wrong"}, verb="stage", files=[{"sha256": digest, "name": "data", "size": 5}])
    assert caught.value.code == "bad-request"
    assert not (host.fleet / "inputs").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "-rf", "a\nb", "x" * 300])
def test_an_input_name_that_is_a_path_trick_is_refused(host: AgentHost, name: str) -> None:
    with pytest.raises(AgentError) as caught:
        host.client.stage({sha256(b"x"): (name, b"x")})
    assert caught.value.code == "bad-request"


def test_the_eval_reads_the_staged_dataset(host: AgentHost) -> None:
    body = b'{"instance_id": "1"}'
    digest = sha256(body)
    host.client.stage({digest: ("data.jsonl", body)})
    argv = ["/bin/cp", "{dataset}", "{output_dir}/output.jsonl"]
    host.launch("", argv=argv, inputs={digest: "data.jsonl"}, dataset_sha256=digest)
    assert host.wait()["rc"] == 0
    assert host.client.manifest("a1")["files"] == [{"path": "output.jsonl", "size": len(body), "sha256": digest}]


def test_a_sync_changes_what_differs_keeps_modes_and_can_be_rolled_back(host: AgentHost) -> None:
    work = host.home / "work"
    (work / "same").write_bytes(b"same")
    (work / "same").chmod(0o644)
    (work / "run.sh").write_bytes(b"old")
    (work / "run.sh").chmod(0o700)
    files = [SyncFile("same", b"same"), SyncFile("run.sh", b"new", 0o755), SyncFile("deep/er/file", b"added")]
    plan = host.client.sync(ROOT, files, dry_run=True)
    assert ([one["path"] for one in plan["changed"]], plan["unchanged"], plan["backup"]) == (
        ["run.sh", "deep/er/file"],
        ["same"],
        None,
    )
    assert (work / "run.sh").read_bytes() == b"old"
    done = host.client.sync(ROOT, files, dry_run=False)
    assert done["changed"] == plan["changed"] and done["backup"]
    assert ((work / "run.sh").read_bytes(), (work / "run.sh").stat().st_mode & 0o777) == (b"new", 0o755)
    assert (work / "deep/er/file").read_bytes() == b"added"
    again = host.client.sync(ROOT, files, dry_run=False)
    assert (again["changed"], again["backup"]) == ([], None)
    back = host.client.rollback(ROOT)
    assert (back["restored"], back["removed"]) == (["run.sh"], ["deep/er/file"])
    assert ((work / "run.sh").read_bytes(), (work / "run.sh").stat().st_mode & 0o777) == (b"old", 0o700)
    assert not (work / "deep/er/file").exists()
    with pytest.raises(AgentError, match="no backup to roll back to"):
        host.client.rollback(ROOT)


def test_a_mode_alone_is_a_difference(host: AgentHost) -> None:
    path = host.home / "work" / "run.sh"
    path.write_bytes(b"x")
    path.chmod(0o644)
    assert host.client.sync(ROOT, [SyncFile("run.sh", b"x", 0o755)], dry_run=False)["changed"]
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_sync_never_sets_more_than_the_permission_bits(host: AgentHost) -> None:
    host.client.sync(ROOT, [SyncFile("tool", b"x", 0o4755)], dry_run=False)
    assert (host.home / "work" / "tool").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "a//b", "-x", "a\0b", "/".join("abcdefghi"), "a/./b"])
def test_a_path_that_leaves_the_root_is_refused(host: AgentHost, path: str) -> None:
    assert refusal(host, SyncFile(path, b"x")).code == "bad-request"


def test_a_link_that_leads_out_of_the_root_is_refused(host: AgentHost) -> None:
    (host.home / "outside").mkdir()
    (host.home / "work" / "link").symlink_to(host.home / "outside")
    assert refusal(host, SyncFile("good", b"x"), SyncFile("link/x", b"x")).code == "refused"
    assert list((host.home / "outside").iterdir()) == []
    assert not (host.home / "work" / "good").exists()


def test_a_link_in_a_files_place_is_replaced_not_followed(host: AgentHost) -> None:
    target = host.home / "target"
    target.write_bytes(b"theirs")
    (host.home / "work" / "file").symlink_to(target)
    host.client.sync(ROOT, [SyncFile("file", b"ours")], dry_run=False)
    assert target.read_bytes() == b"theirs"
    assert (host.home / "work" / "file").read_bytes() == b"ours" and not (host.home / "work" / "file").is_symlink()


def test_a_fifo_in_a_files_place_is_said_so_and_blocks_nobody(host: AgentHost) -> None:
    os.mkfifo(host.home / "work" / "file")
    assert refusal(host, SyncFile("file", b"x")).code == "refused"
    facts = host.client.probe({"files": ["~/work/file"]})["files"]["~/work/file"]
    assert (facts["exists"], facts["error"]) == (False, "not a regular file")


def test_a_sync_is_refused_while_an_eval_runs(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    error = refusal(host, SyncFile("run.sh", b"x"))
    assert (error.code, error.detail["status"]["attempt"]) == ("busy", "a1")
    assert not (host.home / "work" / "run.sh").exists()
    assert host.client.sync(ROOT, [SyncFile("run.sh", b"x")], dry_run=True)["changed"]


def test_a_sync_is_refused_while_a_foreign_eval_runs(host: AgentHost) -> None:
    foreign = subprocess.Popen(["sleep", "62.5"])
    try:
        with pytest.raises(AgentError) as caught:
            host.client.sync(ROOT, [SyncFile("run.sh", b"x")], dry_run=False, processes=[r"sleep 62\.5"])
        assert caught.value.code == "busy"
    finally:
        foreign.kill()
        foreign.wait()


def test_a_controller_that_stops_in_the_middle_of_a_sync_does_not_hold_the_host(host: AgentHost) -> None:
    body = b"x" * 100
    files = [{"path": "run.sh", "sha256": sha256(body), "size": len(body), "mode": 0o644}]
    # The body is never sent: this controller hangs.
    exchange = Exchange(host.transport, host.source, sha256(host.source), {"verb": "sync", "root": ROOT, "files": files})
    asked = threading.Event()
    frame = exchange._next_frame(20.0, None)
    while frame is not None and not isinstance(frame.get("need"), list):
        exchange._session.send(host.source)
        frame = exchange._next_frame(20.0, None)
    asked.set()
    assert host.launch("true")["outcome"] == "started"
    exchange.close()


def test_the_last_sync_that_was_not_rolled_back_is_the_one_that_is(host: AgentHost) -> None:
    for text in (b"1", b"2", b"3"):
        host.client.sync(ROOT, [SyncFile("file", text)], dry_run=False)
    path, seen = host.home / "work" / "file", []
    for _ in range(2):
        host.client.rollback(ROOT)
        seen.append(path.read_bytes())
    assert seen == [b"2", b"1"]


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"verb": "nothing"}, "bad-request"),
        ({"verb": ["probe"]}, "bad-request"),
        ({"verb": "status", "extra": 1}, "bad-request"),
        ({"verb": "status", "attempts": "a1"}, "bad-request"),
        ({"verb": "status", "attempts": ["../x"]}, "bad-request"),
        ({"verb": "wait", "attempt": "a1", "beat_s": float("nan")}, "bad-request"),
        ({"verb": "wait", "attempt": {"a": 1}}, "bad-request"),
        ({"verb": "logs", "attempt": "a/../b"}, "bad-request"),
        ({"verb": "cancel", "attempt": "a1.new"}, "bad-request"),
        ({"verb": "cancel", "attempt": "a1", "grace_s": "1"}, "bad-request"),
        ({"verb": "manifest", "attempt": ""}, "bad-request"),
        ({"verb": "ack", "attempt": None}, "bad-request"),
        ({"verb": "find", "root": None}, "bad-request"),
        ({"verb": "manifest_of", "root": "a\0b"}, "bad-request"),
        ({"verb": "stage", "files": [1]}, "bad-request"),
        ({"verb": "stage", "files": {"a": 1}}, "bad-request"),
        ({"verb": "sync", "root": ROOT, "files": [{"path": 1}]}, "bad-request"),
        ({"verb": "probe", "questions": []}, None),
        ({"verb": "probe", "questions": ["x"]}, "bad-request"),
        ({"verb": "probe", "questions": {"processes": ["("]}}, "bad-request"),
        ({"verb": "launch", "attempt": "a1"}, "bad-request"),
        ({"verb": "launch", "attempt": "a1", "key": {"instance_id": "1"}, "spec": {"argv": ["x"]}}, "bad-request"),
    ],
    ids=str,
)
def test_a_request_that_is_not_one_is_refused_with_a_code(host: AgentHost, request_: dict[str, Any], code: str | None) -> None:
    if code is None:
        assert raw(host, **request_)["ok"] is True
        return
    with pytest.raises(AgentError) as caught:
        raw(host, **request_)
    assert caught.value.code == code
    assert host.starts() == []


@pytest.mark.parametrize(
    "change",
    [
        {"argv": []}, {"argv": "true"}, {"argv": [1]}, {"workdir": 3}, {"env": {"A": 1}}, {"env": {"A": "\0"}}, {"env": ["x"]},
        {"outputs": {}}, {"outputs": []}, {"inputs": {"0": 1}}, {"timeout_s": "9"}, {"timeout_s": float("nan")},
        {"preflight": {"processes": "x"}}, {"preflight": 1}, {"inputs": {"0" * 64: "../x"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_specification_that_could_not_be_started_takes_no_attempt(host: AgentHost, change: dict[str, Any]) -> None:
    with pytest.raises(AgentError) as caught:
        host.launch("true", **change)
    assert caught.value.code == "bad-request"
    assert not host.dir().exists()
