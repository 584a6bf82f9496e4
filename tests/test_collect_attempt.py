"""Bringing one attempt home: the real agent, the real rsync, a host that is a directory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.collect import AttemptRef, Collected, NumberTaken, collect_attempt
from fleet.collect.manifest import read_result_manifest
from fleet.collect.provenance import read_provenance
from fleet.errors import AgentError, TransferFailed
from fleet.transport import PullRequest, PullResult
from fleet.transport.rsync import find_client
from tests.support.catalogue import attack, fault
from tests.support.finished import FinishedHost, finished_host, small_pipeline, tree

LAYOUT = """
cd "$FLEET_OUTPUT_DIR"; mkdir -p eval_outputs/x llm_completions
echo '{"instance_id": "1319603449576684"}' > output.jsonl; echo '{}' > metadata.json; : > empty
echo report > eval_outputs/x/report.json; head -c 300000 /dev/zero > llm_completions/1.json; echo the log
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FinishedHost]:
    with finished_host(tmp_path / "eval1") as found:
        yield found


def bring(host: FinishedHost, ref: AttemptRef, tmp_path: Path, **outputs: Any) -> Collected:
    return collect_attempt(
        host.client,
        host.transport,
        attempt=ref,
        batch_dir=tmp_path / "collected" / "phase8",
        pipeline=small_pipeline(**outputs),
        provenance={"batch": "phase8"},
    )


def partial(ref: AttemptRef, tmp_path: Path) -> Path:
    return (tmp_path / "collected" / "phase8" / ref.relative).with_name(f"attempt{ref.number}.partial")


def test_a_result_is_here_byte_for_byte_with_its_evidence_beside_it(host: FinishedHost, tmp_path: Path) -> None:
    (host.home / "work" / "scripts").mkdir(parents=True)
    (host.home / "work" / "scripts" / "run.sh").write_text("echo\n")
    ref = host.run(LAYOUT, dataset_sha256="7" * 64)
    got = bring(host, ref, tmp_path)
    assert got.path == tmp_path / "collected/phase8/1319603449576684/gpt/run1/attempt1"
    assert (got.files, got.already, got.findings) == (5, False, ())
    here = tree(got.path)
    own = {name: here.pop(name) for name in ("fleet.json", "manifest.json", "fleet.log")}
    assert here == tree(host.out("a1"))
    assert own["fleet.log"] == b"the log\n"
    manifest = read_result_manifest(got.path)
    assert [file.path for file in manifest.files] == sorted(here)
    assert sum(file.size for file in manifest.files) == got.bytes
    facts = read_provenance(got.path)
    assert facts is not None
    assert (facts.attempt, facts.host, facts.rc, facts.batch, facts.epoch) == ("a1", "eval1", 0, "phase8", 1)
    assert facts.code == {"scripts/run.sh": hashlib.sha256(b"echo\n").hexdigest()}
    assert facts.dataset.sha256 == "7" * 64
    assert facts.versions.keys() == {"fleet", "agent"}
    assert facts.host_uid and facts.boot_id and facts.started_at < facts.finished_at
    assert not list(got.path.parent.glob("*.partial"))


def test_an_attempt_without_outputs_is_collected_with_its_log(host: FinishedHost, tmp_path: Path) -> None:
    got = bring(host, host.run("echo no patch; exit 3"), tmp_path)
    assert (got.files, got.bytes) == (0, 0)
    assert sorted(tree(got.path)) == ["fleet.json", "fleet.log", "manifest.json"]
    facts = read_provenance(got.path)
    assert facts is not None and facts.rc == 3


def test_of_a_long_log_the_end_is_kept(host: FinishedHost, tmp_path: Path) -> None:
    got = bring(host, host.run("head -c 1500000 /dev/zero | tr '\\0' 'x'; echo END"), tmp_path)
    log = (got.path / "fleet.log").read_bytes()
    assert len(log) == 1 << 20
    assert log.endswith(b"xEND\n")
    facts = read_provenance(got.path)
    assert facts is not None and facts.log is not None
    assert (facts.log.size, facts.log.offset) == (1_500_004, 1_500_004 - (1 << 20))


@attack("S1", "S2")
def test_links_devices_fifos_and_setuid_bits_stay_on_the_host(host: FinishedHost, tmp_path: Path) -> None:
    script = LAYOUT + "ln -s /etc/passwd link; ln -s ../../.. up; mkfifo fifo; ln -s eval_outputs dirlink; chmod 4777 empty"
    ref = host.run(script)
    got = bring(host, ref, tmp_path)
    for path in got.path.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path
    assert sorted(finding.subject or "" for finding in got.findings) == ["dirlink", "fifo", "link", "up"]
    assert [one.path for one in read_result_manifest(got.path).skipped] == ["dirlink", "fifo", "link", "up"]


@fault("T6")
@attack("S6")
def test_a_file_over_the_cap_is_left_with_a_reason(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT + "truncate -s 20G huge", outputs={"root": "{output_dir}", "max_file_mb": 1})
    got = bring(host, ref, tmp_path, max_file_mb=1)
    assert not (got.path / "huge").exists()
    assert [(one.subject, "over the limit" in one.message) for one in got.findings] == [("huge", True)]


@attack("S6")
def test_a_host_that_ignores_the_cap_is_refused_with_the_reason(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT + "truncate -s 3M big")
    with pytest.raises(TransferFailed, match=r"big has 3145728 bytes, more than outputs.max_file_mb 1") as caught:
        bring(host, ref, tmp_path, max_file_mb=1)
    assert "pipeline.yaml" in caught.value.hint
    with pytest.raises(TransferFailed, match=r"6 files, more than outputs.max_files 2"):
        bring(host, ref, tmp_path, max_files=2)
    assert not (tmp_path / "collected").exists()


def test_modes_are_private_whatever_the_umask(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    before = os.umask(0)
    try:
        got = bring(host, ref, tmp_path)
    finally:
        os.umask(before)
    for path in (tmp_path / "collected", *(tmp_path / "collected").rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert got.files == 5


def test_files_named_like_fleets_own_are_kept_apart(host: FinishedHost, tmp_path: Path) -> None:
    script = LAYOUT + "echo theirs > fleet.json; echo theirs > verdict.json; mkdir manifest.json; echo theirs > manifest.json/x"
    got = bring(host, host.run(script), tmp_path)
    assert json.loads((got.path / "fleet.json").read_text())["schema"] == "fleet.provenance/1"
    assert not (got.path / "verdict.json").exists()
    for name in ("fleet.json", "verdict.json", "manifest.json/x"):
        assert (got.path / "host-files" / name).read_text() == "theirs\n"
    manifest = read_result_manifest(got.path)
    assert manifest.renamed["host-files/fleet.json"] == "fleet.json"
    assert all((got.path / file.path).stat().st_size == file.size for file in manifest.files)


def test_the_same_attempt_again_is_already_here_and_untouched(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    first = bring(host, ref, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in first.path.rglob("*")}
    again = bring(host, ref, tmp_path)
    assert again.already and (again.path, again.files, again.bytes) == (first.path, first.files, first.bytes)
    assert {path: path.stat().st_mtime_ns for path in first.path.rglob("*")} == before


def test_another_attempts_directory_is_never_overwritten(host: FinishedHost, tmp_path: Path) -> None:
    first = bring(host, host.run(LAYOUT), tmp_path)
    before = tree(first.path)
    other = host.run(LAYOUT + "echo other > output.jsonl", "a2", model="claude")
    with pytest.raises(NumberTaken, match="holds attempt a1, not attempt a2"):
        bring(host, AttemptRef("a2", other.instance_id, "gpt", 1, 1, "eval1"), tmp_path)
    assert tree(first.path) == before


@pytest.mark.parametrize("content", ["empty directory", "file"])
def test_whatever_has_the_final_name_is_never_overwritten(host: FinishedHost, tmp_path: Path, content: str) -> None:
    ref = host.run(LAYOUT)
    final = tmp_path / "collected" / "phase8" / ref.relative
    final.parent.mkdir(parents=True)
    if content == "file":
        final.write_text("somebody's")
    else:
        final.mkdir()
    with pytest.raises(NumberTaken, match="something that fleet did not collect"):
        bring(host, ref, tmp_path)
    assert final.is_dir() == (content != "file")


@fault("O4")
def test_a_result_removed_here_can_be_brought_again(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    first = bring(host, ref, tmp_path)
    before = tree(first.path)
    host.client.ack(ref.attempt_id, 1, "accepted")
    subprocess.run(["rm", "-rf", str(tmp_path / "collected")], check=True)
    again = tree(bring(host, ref, tmp_path).path)
    del before["fleet.json"], again["fleet.json"]
    assert again == before


def test_a_running_attempt_is_not_collected(host: FinishedHost, tmp_path: Path) -> None:
    (host.home / "work").mkdir()
    key = {"instance_id": "i", "model": "m", "run": 1, "dataset_sha256": ""}
    spec = {
        "pipeline": "small",
        "workdir": "~/work",
        "argv": ["/bin/sleep", "30"],
        "timeout_s": 60,
        "outputs": {"root": "{output_dir}"},
        "cleanup": {"grace_s": 1},
    }
    answer = host.client.launch(attempt="r1", key=key, spec=spec, batch="b")
    try:
        with pytest.raises(AgentError) as caught:
            bring(host, AttemptRef("r1", "i", "m", 1, 1, "eval1"), tmp_path)
        assert caught.value.code == "busy"
        assert not (tmp_path / "collected").exists()
    finally:
        host.client.cancel("r1", answer["epoch"], 1.0)


@fault("T7")
def test_two_collectors_at_once_bring_one_result(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    results: list[Collected] = []
    threads = [threading.Thread(target=lambda: results.append(bring(host, ref, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(one.already for one in results) == [False, True, True, True]
    assert {one.path for one in results} == {results[0].path}
    assert [path.name for path in results[0].path.parent.iterdir()] == ["attempt1"]


@fault("C2")
def test_a_collector_killed_in_the_middle_leaves_no_result_and_the_next_goes_on(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    pid = os.fork()
    if pid == 0:  # the child dies as by kill -9, between the files and the rename
        pull = host.transport.pull

        def pull_and_die(request: PullRequest) -> PullResult:
            pull(request)
            (request.target / ".rsync-partial").mkdir()
            (request.target / "output.jsonl").rename(request.target / ".output.jsonl.Ab12Cd")
            (request.target / "fleet.json").write_text("half")
            (request.target / "fleet.json").chmod(0o600)
            (request.target / ".rsync-partial").chmod(0o700)
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError

        host.transport.pull = pull_and_die  # type: ignore[method-assign]
        try:
            bring(host, ref, tmp_path)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    staging = partial(ref, tmp_path)
    assert staging.is_dir() and not staging.with_suffix("").exists()
    kept = (staging / "llm_completions" / "1.json").stat().st_ino
    got = bring(host, ref, tmp_path)
    assert (got.path / "llm_completions" / "1.json").stat().st_ino == kept, "what had arrived was brought a second time"
    here = tree(got.path)
    assert json.loads(here.pop("fleet.json"))["attempt"] == "a1"
    del here["manifest.json"], here["fleet.log"]
    assert here == tree(host.out("a1"))
    assert not staging.exists()


@fault("C2")
def test_an_rsync_that_outlived_its_collector_cannot_reach_the_next_ones_result(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    staging = partial(ref, tmp_path)
    (staging / "eval_outputs").mkdir(mode=0o700, parents=True)
    staging.chmod(0o700)
    script = "echo ready; while :; do for d in . eval_outputs; do echo evil > $d/output.jsonl; echo evil > $d/extra; done; done"
    orphan = subprocess.Popen(["/bin/sh", "-c", script], cwd=staging, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert orphan.stdout is not None and orphan.stdout.readline() == b"ready\n"
        got = bring(host, ref, tmp_path)
        time.sleep(0.2)
        assert orphan.poll() is None
    finally:
        orphan.kill()
        orphan.communicate()
    here = tree(got.path)
    for name in ("fleet.json", "manifest.json", "fleet.log"):
        del here[name]
    assert here == tree(host.out("a1"))


@fault("C2")
def test_rsync_killed_in_the_middle_is_continued(host: FinishedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = host.run(LAYOUT + "head -c 40000000 /dev/urandom > big")
    real = find_client().path
    wrapper = tmp_path / "bin" / "rsync"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec {real} "$@"\nexec {real} --bwlimit=8000 "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    find_client.cache_clear()
    staging = partial(ref, tmp_path)
    killed: list[int] = []

    def kill_when_large() -> None:
        deadline = time.monotonic() + 30
        while not killed and time.monotonic() < deadline:
            if any(one.stat().st_size > 4_000_000 for one in staging.glob(".big.*")):
                wrapper.unlink()
                killed.extend(rsyncs_into(staging))
                for pid in killed:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    pull, sizes = host.transport.pull, []

    def watched(request: PullRequest) -> PullResult:
        sizes.append(sum(one.stat().st_size for one in staging.rglob("*big*")))
        find_client.cache_clear()
        return pull(request)

    host.transport.pull = watched  # type: ignore[method-assign]
    killer = threading.Thread(target=kill_when_large)
    killer.start()
    try:
        try:
            got = bring(host, ref, tmp_path)
        except TransferFailed:
            assert not staging.with_suffix("").exists()
            got = bring(host, ref, tmp_path)
    finally:
        killer.join()
        find_client.cache_clear()
    assert killed
    assert sizes[0] == 0 and sizes[1] > 4_000_000, "the half file was continued, not begun again"
    assert (got.path / "big").read_bytes() == (host.out("a1") / "big").read_bytes()


def rsyncs_into(directory: Path) -> list[int]:
    """Return the pids of the rsync processes of this test that write into `directory`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"rsync" in command and os.fsencode(directory) in command:
                found.append(int(entry.name))
    return found


def test_a_log_sent_along_with_the_manifest_spares_the_question(host: FinishedHost, tmp_path: Path) -> None:
    ref = host.run(LAYOUT)
    evidence = host.client.evidence
    log = {"offset": 2, "size": 6, "data": "bG9nCg=="}
    host.client.evidence = lambda attempt: {**evidence(attempt), "log": log}  # type: ignore[method-assign]
    host.client.logs = lambda *_, **__: pytest.fail("asked again")  # type: ignore[method-assign]
    got = bring(host, ref, tmp_path)
    assert (got.path / "fleet.log").read_bytes() == b"log\n"
    facts = read_provenance(got.path)
    assert facts is not None and facts.log is not None and (facts.log.offset, facts.log.size) == (2, 6)
