"""The embedded hosts behave like sshd where fleet depends on it; asked with OpenSSH, with rsync, and with fleet's transport."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.demo.embedded import EmbeddedHosts
from fleet.inventory import load_inventory
from fleet.transport import PullRequest, Session, SshConnector, Transport

FIVE_MB = os.urandom(5 * 1024 * 1024)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedHosts]:
    with EmbeddedHosts(2, tmp_path_factory.mktemp("embedded")) as running:
        yield running
    assert running.errors == []


@pytest.fixture(scope="module")
def transport(hosts: EmbeddedHosts) -> Iterator[Transport]:
    inventory = load_inventory(hosts.hosts_file)
    connector = SshConnector(inventory.defaults)
    yield connector.open(inventory.get("demo1"))
    connector.close()


def ssh_argv(hosts: EmbeddedHosts, name: str, *, key: Path | None = None) -> list[str]:
    return [
        "ssh", "-F", "none", "-p", str(hosts.ports[name]), "-i", str(key or hosts.client_key),
        "-oIdentitiesOnly=yes", "-oBatchMode=yes", "-oStrictHostKeyChecking=yes", f"-oUserKnownHostsFile={hosts.known_hosts}",
        "-oGlobalKnownHostsFile=/dev/null", "-oLogLevel=ERROR", f"-oUser={hosts.user}",
    ]  # fmt: skip


def ssh(hosts: EmbeddedHosts, name: str, command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*ssh_argv(hosts, name), "127.0.0.1", command], input=stdin, capture_output=True, timeout=30)


def test_a_command_runs_in_the_hosts_own_home_with_nothing_of_our_environment(hosts: EmbeddedHosts) -> None:
    os.environ["FLEET_TEST_CANARY"] = "1"
    try:
        done = ssh(hosts, "demo1", 'echo "$HOME:$PWD:${FLEET_TEST_CANARY-unset}:${SSH_AUTH_SOCK-unset}"')
    finally:
        del os.environ["FLEET_TEST_CANARY"]
    home = hosts.homes["demo1"]
    assert done.stdout.decode().strip() == f"{home}:{home}:unset:unset"


def test_exit_status_and_both_outputs_arrive(hosts: EmbeddedHosts) -> None:
    done = ssh(hosts, "demo2", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_end_of_input_reaches_the_command(hosts: EmbeddedHosts) -> None:
    done = ssh(hosts, "demo1", "cat; echo after", b"one line")
    assert done.stdout == b"one lineafter\n"


def test_five_megabytes_of_binary_go_both_ways(hosts: EmbeddedHosts) -> None:
    done = ssh(hosts, "demo1", "cat", FIVE_MB)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(FIVE_MB).digest()


def test_a_command_that_never_reads_its_input_does_not_hang_the_session(hosts: EmbeddedHosts) -> None:
    done = ssh(hosts, "demo1", "exec 0<&-; echo done", FIVE_MB)
    assert done.stdout == b"done\n"


def test_a_killed_command_reports_no_exit_status_like_sshd(hosts: EmbeddedHosts) -> None:
    assert ssh(hosts, "demo1", "kill -9 $$").returncode == 255


@pytest.mark.parametrize("direction", ["push", "pull"])
def test_rsync_runs_over_it(hosts: EmbeddedHosts, tmp_path: Path, direction: str) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "big.bin").write_bytes(FIVE_MB)
    (source / "sub").mkdir()
    (source / "sub" / "small.txt").write_text("small")
    remote = hosts.homes["demo2"] / direction
    if direction == "pull":
        subprocess.run(["cp", "-r", str(source), str(remote)], check=True)
        places = [f"127.0.0.1:{remote}/", f"{target}/"]
    else:
        target = remote
        places = [f"{source}/", f"127.0.0.1:{remote}/"]
    subprocess.run(["rsync", "-rt", "-e", " ".join(ssh_argv(hosts, "demo2")), *places], check=True, timeout=30)
    assert (target / "big.bin").read_bytes() == FIVE_MB
    assert (target / "sub" / "small.txt").read_text() == "small"


def test_a_daemon_survives_the_end_of_its_session(hosts: EmbeddedHosts) -> None:
    done = ssh(hosts, "demo1", "(sleep 0.5; echo alive >daemon) </dev/null >/dev/null 2>&1 & echo started")
    assert done.stdout == b"started\n"
    assert wait_for(hosts.homes["demo1"] / "daemon") == "alive\n"


def test_a_cut_connection_gives_the_command_end_of_input_and_no_signal(hosts: EmbeddedHosts) -> None:
    command = "trap 'echo signal >fate; exit' HUP TERM INT; echo up; cat >/dev/null; echo eof >fate"
    with subprocess.Popen(
        [*ssh_argv(hosts, "demo2"), "127.0.0.1", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"up\n"
        hosts.disconnect("demo2")
        assert client.wait(timeout=10) == 255
        assert wait_for(hosts.homes["demo2"] / "fate") == "eof\n"


def test_a_host_accepts_no_other_key(hosts: EmbeddedHosts, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    done = subprocess.run([*ssh_argv(hosts, "demo1", key=other), "127.0.0.1", "true"], capture_output=True, timeout=30)
    assert done.returncode == 255
    assert b"Permission denied" in done.stderr


def test_every_host_has_a_host_key_of_its_own(hosts: EmbeddedHosts) -> None:
    keys = {line.split()[2] for line in hosts.known_hosts.read_text().splitlines()}
    assert len(keys) == len(hosts.names)


def test_nothing_is_left_when_the_hosts_are_switched_off(tmp_path: Path) -> None:
    before = len(os.listdir("/dev/fd"))
    started = time.monotonic()
    with EmbeddedHosts(1, tmp_path) as hosts:
        client = subprocess.Popen(
            [*ssh_argv(hosts, "demo1"), "127.0.0.1", "echo $$ >pid; exec sleep 60"], stdin=subprocess.PIPE
        )
        pid = int(wait_for(hosts.homes["demo1"] / "pid"))
    assert client.wait(timeout=10) == 255
    assert client.stdin is not None
    client.stdin.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert len(os.listdir("/dev/fd")) <= before
    assert time.monotonic() - started < 10


def test_what_outlives_its_session_may_tidy_up_and_ends_with_its_host(tmp_path: Path) -> None:
    with EmbeddedHosts(1, tmp_path) as hosts:
        home = hosts.homes["demo1"]
        polite = "trap 'sleep 0.5; echo tidy >fate; exit' TERM; echo $$ >polite; while :; do sleep 0.1; done"
        stubborn = "trap '' TERM; echo $$ >stubborn; while :; do sleep 0.1; done"
        for command in (polite, stubborn):
            ssh(hosts, "demo1", f"({command}) </dev/null >/dev/null 2>&1 &")
        pids = [int(wait_for(home / name)) for name in ("polite", "stubborn")]
    assert (home / "fate").read_text() == "tidy\n"
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_host_has_neither_docker_nor_sudo_of_this_machine_and_its_own_temporary_directory(hosts: EmbeddedHosts) -> None:
    for tool in ("docker", "sudo"):
        done = ssh(hosts, "demo1", f"{tool} --version")
        assert (done.returncode, done.stderr) == (1, f"{tool}: not on an embedded host\n".encode())
    assert ssh(hosts, "demo1", "mktemp -u").stdout.decode().startswith(f"{hosts.homes['demo1']}/tmp/")


def read_all(session: Session) -> bytes:
    chunks = []
    while chunk := session.receive(20):
        chunks.append(chunk)
    return b"".join(chunks)


def test_fleets_transport_carries_five_megabytes_both_ways(transport: Transport) -> None:
    session = transport.start(f"head -c {len(FIVE_MB)} | tee copy")
    sender = threading.Thread(target=session.send, args=(FIVE_MB,))
    sender.start()
    received = read_all(session)
    sender.join(timeout=20)
    assert received == FIVE_MB
    assert session.exit_status(10) == 0


def test_fleets_transport_sees_status_stderr_and_life(transport: Transport) -> None:
    session = transport.start("echo wrong >&2; exit 3")
    assert read_all(session) == b""
    assert session.exit_status(10) == 3
    assert session.stderr_tail() == b"wrong\n"
    assert transport.alive(5)


def test_a_session_closed_early_leaves_the_connection_and_the_server_in_order(transport: Transport) -> None:
    for _ in range(20):
        session = transport.start("echo first; cat; echo last")
        assert session.receive(10) == b"first\n"
        session.close()
    assert read_all(transport.start("echo still here")) == b"still here\n"


def test_fleets_transport_pulls_files(hosts: EmbeddedHosts, transport: Transport, tmp_path: Path) -> None:
    source = hosts.homes["demo1"] / "results"
    source.mkdir()
    (source / "big.bin").write_bytes(FIVE_MB)
    request = PullRequest(str(source), ("big.bin",), tmp_path, len(FIVE_MB), len(FIVE_MB), 30.0)
    assert transport.pull(request).bytes_received >= len(FIVE_MB)
    assert (tmp_path / "big.bin").read_bytes() == FIVE_MB


def test_a_cut_connection_is_no_answer_and_not_an_empty_one(hosts: EmbeddedHosts) -> None:
    inventory = load_inventory(hosts.hosts_file)
    connector = SshConnector(inventory.defaults)
    transport = connector.open(inventory.get("demo2"))
    session = transport.start("echo up; cat >/dev/null")
    assert session.receive(10) == b"up\n"
    hosts.disconnect("demo2")
    assert read_all(session) == b""
    assert session.exit_status(5) is None
    assert not transport.alive(5)
    connector.close()


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")
