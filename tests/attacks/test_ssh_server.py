"""A server that is not the pinned one is told nothing; the pinned one gets a login and commands, and no way back to us."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import paramiko
import pytest

from fleet.inventory import load_inventory
from fleet.model.hosts import Defaults, Hop, Host
from fleet.transport import PullRequest, SshConnector
from fleet.transport.known_hosts import HostKey
from fleet.transport.openssh import write_config
from tests.support.catalogue import attack
from tests.support.operator import Operator, Said
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[SshdFarm]:
    with SshdFarm(2, tmp_path / "farm", options=["LogLevel DEBUG1"]) as running:
        yield running


def _check(farm: SshdFarm, tmp_path: Path) -> Said:
    return Operator(tmp_path / "operator", farm.hosts_file).run("check", "--json", "--pipeline", "demo")


def _rows(said: Said) -> dict[str, dict[str, object]]:
    return {row["host"]: row for row in said.json["hosts"]}


def _took_no_login(farm: SshdFarm, name: str) -> bool:
    return "Connection from" in farm.log(name) and "userauth-request" not in farm.log(name)


@attack("S33")
@attack("S36")
@pytest.mark.parametrize(
    ("kind", "words"), [("ed25519", "presents ssh-ed25519 SHA256:"), ("ecdsa", "offers no key of that type")]
)
def test_a_server_with_another_key_or_another_type_of_key_is_refused_before_a_login(
    farm: SshdFarm, tmp_path: Path, kind: str, words: str
) -> None:
    farm.stop_host("eval1")
    farm.start_host("eval1", key=farm.new_key("other", kind))
    pinned = farm.known_hosts.read_bytes()
    said = _check(farm, tmp_path)
    assert said.code & 16, said
    rows = _rows(said)
    assert rows["eval1"]["link"] == "host-key-changed"
    assert words in str(rows["eval1"]["error"])
    assert "nothing was sent" in str(rows["eval1"]["error"])
    assert "fleet trust eval1 --replace" in str(rows["eval1"]["fix"])
    assert rows["eval2"]["link"] == "ok"
    assert _took_no_login(farm, "eval1")
    assert farm.known_hosts.read_bytes() == pinned


@attack("S34")
def test_an_unknown_key_is_refused_until_a_person_pins_it(farm: SshdFarm, tmp_path: Path) -> None:
    pinned = farm.known_hosts.read_text().splitlines(keepends=True)[1]
    farm.known_hosts.write_text(pinned)
    said = _check(farm, tmp_path)
    assert said.code & 16, said
    row = _rows(said)["eval1"]
    assert (row["link"], row["fix"]) == ("host-key-unknown", "fleet trust eval1")
    assert _took_no_login(farm, "eval1")
    assert farm.known_hosts.read_text() == pinned
    operator = Operator(tmp_path / "operator", farm.hosts_file)
    shown = operator.run("trust", "eval1", "--yes")
    assert shown.code == 0
    assert "SHA256:" in shown.err
    assert _rows(_check(farm, tmp_path))["eval1"]["link"] == "ok"


@attack("S34")
def test_only_fleets_own_file_of_keys_is_written(farm: SshdFarm, tmp_path: Path) -> None:
    # The ssh_config names the farm's file, so that it is the user's own here, with one of the two keys.
    theirs, own = farm.known_hosts, tmp_path / "own"
    theirs.write_text(theirs.read_text().splitlines(keepends=True)[1])
    before = theirs.read_bytes()
    farm.hosts_file.write_text(
        farm.hosts_file.read_text().replace("known_hosts: known_hosts", f"known_hosts: [{own}, {theirs}]")
    )
    operator = Operator(tmp_path / "operator", farm.hosts_file)
    assert operator.run("trust", "eval1", "--yes").code == 0
    assert theirs.read_bytes() == before
    assert own.stat().st_mode & 0o777 == 0o600
    assert {row["link"] for row in _rows(_check(farm, tmp_path)).values()} == {"ok"}


@attack("S35")
def test_what_a_library_does_by_default_would_have_let_the_impostor_in(farm: SshdFarm, tmp_path: Path) -> None:
    farm.stop_host("eval1")
    farm.start_host("eval1", key=farm.new_key("other"))
    naive = paramiko.SSHClient()
    naive.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    with naive:
        where = {"hostname": farm.addresses["eval1"], "port": farm.port, "username": farm.user}
        naive.connect(**where, key_filename=str(farm.identity), allow_agent=False, look_for_keys=False)
        assert "Accepted publickey" in farm.log("eval1"), "the attack is real"
    assert _check(farm, tmp_path).code & 16
    assert farm.log("eval1").count("Accepted publickey") == 1


@pytest.fixture
def ssh_agent(farm: SshdFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    path = str(tmp_path / "agent.sock")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        for _ in range(200):
            if (
                subprocess.run(["ssh-add", "-q", str(farm.identity)], capture_output=True, check=False, timeout=10).returncode
                == 0
            ):
                break
        yield path
    finally:
        process.terminate()
        process.wait(10)


@attack("S37")
def test_a_host_gets_no_agent_no_display_and_no_port_although_ssh_config_offers_them(
    farm: SshdFarm, tmp_path: Path, ssh_agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", ":77")
    port = farm.port + 1
    generous = f"Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  ForwardX11Trusted yes\n  RemoteForward {port} localhost:22\n"
    farm.ssh_config.write_text(farm.ssh_config.read_text() + generous)
    home = farm.homes["eval1"]
    (home / "bin").mkdir()
    (home / "bin" / "rsync").write_text('#!/bin/sh\nenv > "$HOME/seen"\nexec /usr/bin/rsync "$@"\n')
    (home / "bin" / "rsync").chmod(0o755)
    (home / ".bashrc").write_text('PATH="$HOME/bin:$PATH"\n')
    (home / "out").mkdir()
    (home / "out" / "file").write_text("x")
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    with SshConnector() as connector:
        transport = connector.open(load_inventory(farm.hosts_file).get("eval1"))
        session = transport.start("env; exec sleep 0")
        output = b""
        while chunk := session.receive(10):
            output += chunk
        transport.pull(PullRequest(str(home / "out"), ("file",), target, 1000, 1000, 20))
    assert os.environ["SSH_AUTH_SOCK"] == ssh_agent
    for seen in (output.decode(), (home / "seen").read_text()):
        assert "SSH_CONNECTION=" in seen
        assert "SSH_AUTH_SOCK" not in seen
        assert "DISPLAY" not in seen
    assert "remote forward" not in farm.log("eval1").lower()
    assert "auth-agent-req" not in farm.log("eval1")
    assert "x11-req" not in farm.log("eval1")


class _Rogue(paramiko.ServerInterface):
    """Lets anybody in and runs nothing."""

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username, key
        return 0

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return 0

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        del command
        self.asked = channel
        return True


@attack("S37")
def test_a_server_that_asks_for_channels_to_us_is_refused_each_and_the_command_goes_on(farm: SshdFarm, tmp_path: Path) -> None:
    key = paramiko.Ed25519Key(filename=str(farm.new_key("rogue")))
    pins = tmp_path / "pins"
    pins.write_text(HostKey(key.get_name(), key.asbytes()).line("rogue"))
    pins.chmod(0o600)
    refused: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        hop = Hop(
            address="127.0.0.1",
            port=listening.getsockname()[1],
            user="me",
            identity_files=(farm.identity,),
            host_key_alias="rogue",
        )

        def serve() -> None:
            client, _ = listening.accept()
            with paramiko.Transport(client) as server:
                server.add_server_key(key)
                server.start_server(server=_Rogue())
                channel = server.accept(10)
                for kind in ("auth-agent@openssh.com", "x11", "forwarded-tcpip", "direct-tcpip", "session"):
                    try:
                        where = ("127.0.0.1", 22)
                        server.open_channel(kind, where, where, timeout=5)
                    except paramiko.ChannelException:
                        refused.append(kind)
                channel.sendall(b"still here")
                channel.send_exit_status(0)
                channel.close()
                server.join(5)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with SshConnector() as connector:
            transport = connector.open(Host(name="rogue", hop=hop, known_hosts=(pins,)))
            session = transport.start("true")
            said = b""
            while chunk := session.receive(10):
                said += chunk
        thread.join(10)
    assert said == b"still here"
    assert refused == ["auth-agent@openssh.com", "x11", "forwarded-tcpip", "direct-tcpip", "session"]


@attack("S37")
def test_the_ssh_that_rsync_runs_forwards_nothing_by_what_openssh_itself_makes_of_its_configuration(
    farm: SshdFarm, tmp_path: Path
) -> None:
    with SshConnector() as connector:
        chain = connector.open(load_inventory(farm.hosts_file).get("eval1"))._chain
        config = write_config(tmp_path, chain, Defaults())
        argv = ["ssh", "-G", "-F", str(config), "fleet-target"]
        shown = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    effective = dict(line.split(" ", 1) for line in shown if " " in line)
    asked = ("forwardagent", "forwardx11", "clearallforwardings", "permitlocalcommand", "tunnel", "stricthostkeychecking")
    assert [effective[name] for name in asked] == ["no", "no", "yes", "no", "false", "true"]
    assert not {"remoteforward", "localforward", "dynamicforward", "localcommand", "proxycommand"} & set(effective)
    assert json.dumps(effective).count("/dev/null") >= 1
