"""What a hostile host may put among its outputs, and what its rsync may do: real sshd, real rsync, the real `fleet collect`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fleet.errors import TamperedTransfer, TransferFailed
from fleet.transport import limits
from fleet.transport.rsync import find_client
from tests.support.catalogue import attack, fault
from tests.support.collect_bench import Bench, writes
from tests.support.results import INSTANCE
from tests.support.sshd_farm import SshdFarm
from tests.support.yard import Yard

LABEL = f"{INSTANCE}/gpt/run1"
ADDS = """#!/bin/sh
exec /usr/bin/rsync "$@" "$HOME/evil/"
"""
"""An rsync of the host that sends a directory nobody asked for along with what was asked for."""
REWRITES = f"""#!{sys.executable}
import os, sys
command = sys.argv[1:]
if "--sender" not in command:  # they come on stdin, up to an empty one
    raw = b""
    while not raw.endswith(b"\\0\\0"):
        raw += os.read(0, 1)
    command = ["--server", "--sender", "-logDtpre.iLfxCIvu", "."]
os.execv("/usr/bin/rsync", ["/usr/bin/rsync", *command[:-1], os.path.expanduser("~/evil/")])
"""
"""An rsync that takes no notice of what it was asked for."""
ODD_NAMES = (
    b"-rf", b"a\nb", b"a\x1b]0;owned\x07", b"a\xffb", b"$(touch pwned)", b"cafe\xcc\x81", b"caf\xc3\xa9",
    b"e\xe2\x80\xaegnp.exe", b"x" * 255,
)  # fmt: skip


def naive(farm: SshdFarm, source: Path, target: Path) -> subprocess.CompletedProcess[bytes]:
    """Pull as one would at first thought."""
    shell = f"ssh -F {farm.ssh_config}"
    argv = ["rsync", "-a", "-e", shell, f"aws-instance-eval1:{source}/", f"{target}/"]
    return subprocess.run(argv, capture_output=True, timeout=30, check=False)


def evil_rsync(home: Path, body: str) -> None:
    """Put a program of the attacker first in the host's PATH, and something for it to send."""
    (home / "bin").mkdir()
    (home / "bin" / "rsync").write_text(body)
    (home / "bin" / "rsync").chmod(0o755)
    (home / ".bashrc").write_text(f"PATH={home}/bin:$PATH\n")
    (home / "evil").mkdir()
    (home / "evil" / "authorized_keys").write_text("ssh-ed25519 evil\n")


def everything_below(directory: Path) -> dict[str, os.stat_result]:
    return {str(path.relative_to(directory)): path.lstat() for path in directory.rglob("*")}


@attack("S1", "S2")
def test_links_devices_pipes_sockets_and_mode_bits_stay_on_the_host_and_are_reported(
    bench: Bench, tmp_path: Path, farm_hosts: SshdFarm
) -> None:
    host = bench.hosts["eval1"]
    victim = host.home / "victim"
    script = (
        writes(tmp_path) + f'; echo precious > {victim}; cd "$FLEET_OUTPUT_DIR"; ln -s /etc/passwd passwd; mkdir odd; '
        "ln -s ../../../../../victim odd/up; ln -s /etc odd/etc; mkfifo odd/fifo; mknod odd/null c 1 3; mknod odd/disk b 7 0; "
        "echo x > odd/setuid; chmod 4777 odd/setuid; ln odd/setuid odd/second-name; chmod 0777 odd"
    )
    bench.opened(bench.task(), attempts={"a1": LABEL})
    ref = host.start(script)
    for _ in host.client.wait("a1", max_s=30):
        pass
    out = host.out("a1")
    beside = tmp_path / "naive"
    beside.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{os.open(out / 'odd', os.O_DIRECTORY)}/socket")  # a socket's path is short
        assert naive(farm_hosts, out, beside).returncode == 0
    kinds = {name: stat.S_IFMT(found.st_mode) for name, found in everything_below(beside).items()}
    assert {kinds["passwd"], kinds["odd/null"], kinds["odd/fifo"]} == {stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO}
    assert (beside / "odd" / "setuid").stat().st_mode & 0o7777 == 0o4777, "the attack is real"

    code, document = bench.fleet("phase8")
    (row,) = document["results"]
    assert (code, row["got"], row["verdict"]) == (0, "collected", "accepted")
    here = bench.collected / "phase8" / ref.relative
    for name, found in everything_below(here).items():
        expected = (stat.S_IFDIR, 0o700) if stat.S_ISDIR(found.st_mode) else (stat.S_IFREG, 0o600)
        assert (stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)) == expected, name
        assert stat.S_ISDIR(found.st_mode) or found.st_nlink == 1, name
    reported = {finding["subject"] for finding in row["findings"]}
    assert reported >= {"passwd", "odd/up", "odd/etc", "odd/fifo", "odd/null", "odd/disk"}
    assert victim.read_text() == "precious\n"


@attack("S3")
@pytest.mark.parametrize("way", ["a source of its own", "other arguments", "a directory in a file's place"])
def test_an_rsync_that_sends_more_than_was_asked_for_adds_nothing(
    bench: Bench, tmp_path: Path, farm_hosts: SshdFarm, way: str
) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    host = bench.hosts["eval1"]
    host.run(writes(tmp_path))
    evil_rsync(host.home, ADDS if way == "a source of its own" else REWRITES)
    beside, metadata = tmp_path / "naive", host.out("a1") / "metadata.json"
    honest = metadata.read_bytes()
    if way == "a directory in a file's place":
        (host.home / ".bashrc").unlink()
        metadata.unlink()
        shutil.copytree(host.home / "evil", metadata)
    beside.mkdir()
    assert naive(farm_hosts, host.out("a1"), beside).returncode == 0
    assert list(beside.rglob("authorized_keys")), "the attack is real: it was added, and rsync ended with 0"

    code, document = bench.fleet("phase8")
    (row,) = document["results"]
    assert not list(bench.collected.rglob("authorized_keys"))
    if way == "a source of its own":
        # This rsync takes no further source beside arguments that came on stdin; what was asked for is all that comes.
        assert (code, row["got"]) == (0, "collected")
        return
    # Another conversation than the client expects may fail before its list of files is seen, as a broken protocol.
    assert (code, row["got"]) in ([(16, "failed")] if metadata.is_dir() else [(16, "failed"), (4, "failed")])
    assert not (bench.collected / "phase8" / LABEL / "attempt1").exists()
    (host.home / ".bashrc").unlink(missing_ok=True)
    if metadata.is_dir():
        shutil.rmtree(metadata)
        metadata.write_bytes(honest)
    assert bench.fleet("phase8")[0] == 0, "and an honest host's result comes"


@attack("S4")
def test_names_that_are_options_escapes_or_shell_text_stay_on_the_host_and_are_shown_harmless(
    bench: Bench, tmp_path: Path
) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    host = bench.hosts["eval1"]
    script = writes(tmp_path)
    for name in ODD_NAMES:
        Path(os.fsdecode(os.fsencode(tmp_path / "prepared" / "good") + b"/" + name)).touch()
    ref = host.run(script)
    code, document = bench.fleet("phase8")
    (row,) = document["results"]
    assert (code, row["got"]) == (0, "collected")
    here = bench.collected / "phase8" / ref.relative
    own = {"fleet.json", "manifest.json", "verdict.json", "fleet.log"}
    assert {path.name for path in here.iterdir()} - own == {
        "output.jsonl", "metadata.json", "llm_completions", "eval_pilot2_output.jsonl", "eval_outputs", "x" * 255,
    }  # fmt: skip
    reported = [finding["subject"] for finding in row["findings"]]
    assert len(reported) == 8
    assert all(subject.isprintable() and "\x1b" not in subject and "\u202e" not in subject for subject in reported)
    assert not list(tmp_path.rglob("pwned"))


@attack("S6")
def test_sparse_countless_and_endless_files_are_stopped_by_the_caps(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    host = bench.hosts["eval1"]
    script = writes(tmp_path) + '; cd "$FLEET_OUTPUT_DIR"; truncate -s 20G huge; mkdir many; cd many; seq 3200 | xargs touch'
    caps = {"max_file_mb": 5, "max_files": 3000}
    host.run(script, outputs={"root": "{output_dir}", "marker": "output.jsonl", **caps})
    started = time.monotonic()
    code, document = bench.fleet("phase8")
    (row,) = document["results"]
    assert time.monotonic() - started < 20
    assert (code, row["got"], row["files"]) == (2, "collected", 3000)
    assert (row["verdict"], "output-missing" in row["reasons"]) == ("rejected", True), "it was the 3,001st"
    assert row["bytes"] < 5_000_000
    reported = {finding["subject"]: finding["message"] for finding in row["findings"]}
    assert "over the limit of one file" in reported["huge"]
    assert sum("over the limit of one result" in said for said in reported.values()) == len(reported) - 1 > 200


@attack("S6")
def test_a_file_that_grows_without_end_while_it_is_sent_is_stopped_by_the_kernel(yard: Yard) -> None:
    yard.write("first", os.urandom(300_000))
    grows = yard.write("second", b"tiny")
    # Slow with the first file, so that the second can grow after the list of files, with its size, was sent.
    later = f"(sleep 0.7; truncate -s 3G {grows}) >/dev/null 2>&1 &"
    evil_rsync(yard.home, f'#!/bin/sh\n{later}\nexec /usr/bin/rsync --bwlimit=200 "$@"\n')
    with pytest.raises(TamperedTransfer, match=r"outgrew its cap|more than its cap"):
        yard.pull("first", "second", file_cap=1 << 20, total_cap=3 << 20)
    assert sum(found.st_size for found in yard.arrived().values()) <= (2 << 20)


@attack("S7")
@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("#!/bin/sh\nexec sleep 60\n", "took too long"),
        ("#!/bin/sh\nhead -c 100000000 /dev/zero\n", "shell spoke before rsync|broke the protocol"),
        ("#!/bin/sh\nyes 'welcome to this host'\n", "shell spoke before rsync|broke the protocol"),
    ],
    ids=["sleeps", "sends zeros", "talks for ever"],
)
def test_a_sender_that_sleeps_or_floods_costs_the_deadline_at_most(yard: Yard, body: str, said: str) -> None:
    evil_rsync(yard.home, body)
    started = time.monotonic()
    with pytest.raises(TransferFailed, match=said):
        yard.pull("x", deadline_s=2.0)
    assert time.monotonic() - started < 6
    assert yard.arrived() == {}


LIFTS_THE_TIMEOUT = f"""#!{sys.executable}
import os, selectors, struct, subprocess, sys, time
server = subprocess.Popen(["/usr/bin/rsync", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
chosen = selectors.DefaultSelector()
chosen.register(0, selectors.EVENT_READ, server.stdin.fileno())
chosen.register(server.stdout.fileno(), selectors.EVENT_READ, 1)
while ready := chosen.select(0.4):
    for key, _ in ready:
        data = os.read(key.fd, 65536)
        if data:
            os.write(key.data, data)
        else:
            chosen.unregister(key.fd)
# Quiet: between two messages. 7 is the base of tags, 33 is MSG_IO_TIMEOUT.
os.write(1, struct.pack("<II", (7 + 33) << 24 | 4, 0x7FFFFFFF))
open(os.path.expanduser("~/lifted"), "w").close()
time.sleep(60)
"""


@attack("S7")
def test_a_peer_that_lifts_the_clients_own_timeout_costs_the_deadline(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RSYNC_IO_TIMEOUT_S", 8)
    yard.write("slow", os.urandom(2_000_000))
    evil_rsync(yard.home, LIFTS_THE_TIMEOUT.replace('"/usr/bin/rsync", ', '"/usr/bin/rsync", "--bwlimit=1", '))
    started = time.monotonic()
    with pytest.raises((TransferFailed, TamperedTransfer)):
        yard.pull("slow", deadline_s=3.0)
    assert time.monotonic() - started < 7
    assert (yard.home / "lifted").exists()


@attack("S8")
def test_a_file_swapped_for_a_link_and_back_without_end_never_leads_anywhere(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    host = bench.hosts["eval1"]
    ref = host.run(writes(tmp_path))
    secret = host.home / "secret"
    report = host.out("a1") / "eval_outputs" / "report.json"
    secret.write_bytes(bytes(reversed(report.read_bytes())))
    honest, link = report.with_name("honest"), report.with_name("link")
    honest.write_bytes(report.read_bytes())
    link.symlink_to(secret)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for kind in (link, honest):
                shutil.copy2(kind, report.with_name("next"), follow_symlinks=False)
                report.with_name("next").rename(report)

    swapper = threading.Thread(target=swap)
    swapper.start()
    ends = set()
    try:
        for _ in range(4):
            code, document = bench.fleet("phase8", "--again")
            ends.add((code, *(row["got"] for row in document["results"])))
            here = bench.collected / "phase8" / ref.relative
            for path in bench.collected.rglob("*"):
                assert not path.is_symlink()
                assert path.is_dir() or path.read_bytes() != secret.read_bytes()
            if here.exists():
                assert (here / "eval_outputs/report.json").read_bytes() == honest.read_bytes()
                shutil.rmtree(here)
    finally:
        done.set()
        swapper.join(10)
    assert ends <= {(0, "collected"), (4, "failed"), (16, "failed")}


@attack("S10")
@fault("T10")
def test_a_host_that_swaps_or_contradicts_its_files_is_caught_and_one_that_lies_consistently_is_a_stated_limit(
    bench: Bench, tmp_path: Path
) -> None:
    bench.opened(
        *(bench.task(model=model) for model in ("gpt", "claude", "other")),
        attempts={f"a-{model}": f"{INSTANCE}/{model}/run1" for model in ("gpt", "claude", "other")},
    )
    host = bench.hosts["eval1"]
    host.run(writes(tmp_path, "swapped", instance_id="another-1"), "a-gpt")
    host.run(writes(tmp_path, "contradicts", resolved=False), "a-claude", model="claude")
    report = host.out("a-claude") / "eval_outputs" / INSTANCE / "report.json"
    report.write_text(report.read_text().replace('"resolved": false', '"resolved": true'))
    host.seal_again("a-claude")
    host.run(writes(tmp_path, "consistent"), "a-other", model="other")
    host.seal_again("a-other")
    code, document = bench.fleet("phase8")
    rows = {row["task"].split("/")[1]: row for row in document["results"]}
    assert code == 2
    assert (rows["gpt"]["verdict"], "instance-mismatch" in rows["gpt"]["reasons"]) == ("rejected", True)
    verdict = json.loads((bench.collected / rows["gpt"]["path"] / "verdict.json").read_text())
    assert "another-1" in json.dumps(verdict), "whose output it is, is said"
    assert rows["claude"]["verdict"] == "rejected"
    assert {"report-disagrees", "resolved-unsupported"} & set(rows["claude"]["reasons"])
    assert rows["other"]["verdict"] == "accepted", "the limit: nothing here contradicts it"
    assert (
        "A host can forge a result that is consistent in itself"
        in (Path(__file__).parents[2] / "docs/guarantees.md").read_text()
    )


@attack("S11")
@pytest.mark.parametrize("command", ["collect", "dispatch"])
def test_openrsync_in_the_first_place_is_refused_with_the_install_hint_before_any_connection(
    bench: Bench, tmp_path: Path, farm_hosts: SshdFarm, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    (tmp_path / "bin").mkdir()
    openrsync = tmp_path / "bin" / "rsync"
    openrsync.write_text(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo 'openrsync: protocol version 29, rsync version 2.6.9 compatible' && exit 0\n"
        'echo "rsync: unrecognized option \\`--secluded-args\'" >&2; exit 1\n'
    )
    openrsync.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    find_client.cache_clear()
    logins = farm_hosts.log("eval1").count("Accepted publickey")
    assignment = tmp_path / "phase8.json"
    task = {"instance_id": INSTANCE, "model": "gpt", "dataset_file": str(bench.dataset), "task_name": "a__b-1"}
    assignment.write_text(json.dumps({"eval1": [task]}))
    try:
        code, document = bench.typed(*(["collect"] if command == "collect" else ["dispatch", str(assignment)]))
    finally:
        find_client.cache_clear()
    assert (code, document["error"]["code"]) == (1, "input")
    assert "openrsync" in document["error"]["message"] and "install rsync" in document["error"]["hint"]
    assert farm_hosts.log("eval1").count("Accepted publickey") == logins
    assert not bench.collected.exists()
