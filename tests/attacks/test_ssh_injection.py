"""Names, users and configuration of SSH: what runs a command with the naive way runs nothing with fleet.

Each test shows first that its attack is real, where it is one: the mark is made. Then fleet gets the same input.
"""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleet.agent.client import SyncFile
from fleet.cli.main import run
from fleet.errors import AgentError
from fleet.inventory import load_inventory
from fleet.inventory.ssh_config import SshConfig
from fleet.model.hosts import Defaults, Hop
from fleet.transport import PullRequest, SshConnector
from fleet.transport.keys import Credential
from fleet.transport.known_hosts import HostKey
from fleet.transport.openssh import write_config
from tests.support.agent_host import agent_host
from tests.support.catalogue import attack
from tests.support.hostile import broken_names, refusal
from tests.support.sshd_farm import SshdFarm

DEADLINE_S = 20


# ---------------------------------------------------------------- S25, S26: host and user names


@attack("S25")
def test_a_host_that_is_an_option_runs_with_plain_ssh_and_not_with_fleet(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = f"-oProxyCommand=touch {mark}"
    subprocess.run(["ssh", host, "uptime"], capture_output=True, timeout=DEADLINE_S, check=False)
    assert mark.exists(), "the attack is real"
    mark.unlink()

    monkeypatch.setenv("HOME", str(tmp_path))
    refusal(lambda: SshConfig().settings(host))
    refusal(lambda: SshConfig()._ask_ssh(host))
    subprocess.run(["ssh", "-G", "--", host], capture_output=True, timeout=DEADLINE_S, check=False)
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("hosts: {a: {address: 127.0.0.1, port: 1}}\n")
    for words in (["check", host], ["check", "--", host], ["trust", "--", host], ["logs", "--", host], ["why", "--", host]):
        assert run([*words, "--hosts-file", str(hosts)]) == 1, words
    assert "Traceback" not in capsys.readouterr().err
    assert not mark.exists()


def endpoint(address: str = "127.0.0.1", user: str = "me", alias: str = "a", identity: Path | None = None) -> Any:
    """Return a proven hop as rsync's ssh is told about it."""

    class End:
        hop = Hop(address=address, port=1, user=user, host_key_alias=alias)
        credential = Credential(identity, "ssh-ed25519 AAAA\n")
        host_key = HostKey("ssh-ed25519", b"k")

    return End()


@attack("S24", "S25", "S26")
@pytest.mark.parametrize("field", ["address", "user", "alias"])
def test_below_the_inventory_no_name_reaches_the_generated_ssh_config(tmp_path: Path, mark: Path, field: str) -> None:
    for number, (name, payload) in enumerate(broken_names(mark).items()):
        if (field, name) == ("user", "dots"):
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        refusal(lambda where=folder, text=payload: write_config(where, [endpoint(**{field: text})], Defaults()))
    assert not mark.exists()


@attack("S26")
def test_a_user_that_a_shell_would_expand_runs_with_ssh_and_not_with_fleet(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ProxyCommand that names %r is handed to a shell, and a User of the configuration is not looked at."""
    config = tmp_path / "naive"
    config.write_text(
        f"Host h\n  HostName 127.0.0.1\n  User a$(touch\\ {mark})\n  ProxyCommand echo %r\n".replace("\\ ", "${IFS}")
    )
    subprocess.run(["ssh", "-F", config, "h", "true"], capture_output=True, timeout=DEADLINE_S, check=False)
    assert mark.exists(), "the attack is real"
    mark.unlink()

    monkeypatch.setenv("HOME", str(tmp_path))
    hosts = tmp_path / "hosts.yaml"
    for user in (f"`touch {mark}`", f"a$(touch {mark})", "a\\b", "$USER", "%u"):
        config.write_text(f"Host h\n  HostName 127.0.0.1\n  User {user}\n")
        hosts.write_text(yaml.safe_dump({"defaults": {"ssh_config": str(config)}, "hosts": {"h": {}}}))
        assert "user" in refusal(lambda: load_inventory(hosts))
    hosts.write_text(yaml.safe_dump({"hosts": {"h": {"address": "127.0.0.1", "jump": [{"address": "b"}]}}}))
    load_inventory(hosts)
    for variable in ("LOGNAME", "USER"):
        monkeypatch.setenv(variable, f"`touch {mark}`")
    assert "user" in refusal(lambda: load_inventory(hosts))
    assert not mark.exists()


# ---------------------------------------------------------------- S27, S28, S30: configuration of ssh and of libraries


NAIVE_LOOKUP = """
import sys, paramiko
config = paramiko.SSHConfig.from_text(sys.argv[1])
print(config.lookup(sys.argv[2]).get("proxycommand"))
"""


def naive_lookup(config: str, host: str) -> str:
    """Ask paramiko's own reader, in a process of its own: this one has it without the module that runs commands."""
    done = subprocess.run(
        [sys.executable, "-c", NAIVE_LOOKUP, config, host], capture_output=True, text=True, timeout=DEADLINE_S, check=True
    )
    return done.stdout.strip()


@attack("S27")
def test_a_match_exec_runs_a_host_name_in_the_library_and_not_in_fleet(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'Match exec "test -n %h"\n  User somebody\n'
    host = f"a; touch {mark}"
    naive_lookup(text, host)
    assert mark.exists(), "the attack is real"
    mark.unlink()

    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "config"
    config.write_text(text)
    config.chmod(0o600)
    reader = SshConfig(config)
    refusal(lambda: reader.settings(host))
    reader.prefetch(["plain"])
    assert reader.settings("plain").user == "somebody", "what the user's own Match says holds, as for ssh"
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text(yaml.safe_dump({"defaults": {"ssh_config": str(config)}, "hosts": {"x": {"alias": host}}}))
    refusal(lambda: load_inventory(hosts))
    assert not mark.exists()


@attack("S28")
def test_a_proxy_command_takes_a_host_name_apart_in_the_library_and_is_not_run_by_fleet(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = "h --exec=evil 1"
    assert "--exec=evil" in naive_lookup("Host *\n  ProxyCommand nc %h %p\n", host).split(), "the attack is real"

    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "config"
    hosts = tmp_path / "hosts.yaml"
    for command in (
        f"touch {mark}",
        "nc %h %p",
        f"ssh -W %h:%p bastion; touch {mark}",
        f"ssh -W %h:%p -oProxyCommand=touch${{IFS}}{mark}",
    ):
        config.write_text(f"Host *\n  ProxyCommand {command}\n")
        hosts.write_text(yaml.safe_dump({"defaults": {"ssh_config": str(config)}, "hosts": {"a": {"alias": "plain"}}}))
        said = refusal(lambda: load_inventory(hosts))
        assert "ProxyCommand" in said or "jump host" in said
    hosts.write_text(yaml.safe_dump({"hosts": {"a": {"address": host}}}))
    refusal(lambda: load_inventory(hosts))
    assert not mark.exists()


@attack("S30")
def test_planted_configuration_of_libraries_changes_nothing(
    farm_hosts: SshdFarm, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["hosts", "--json", "--hosts-file", str(farm_hosts.hosts_file)]
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    assert run(words) == 0
    clean = capsys.readouterr().out

    script = tmp_path / "run"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    for name in (".fabric.yaml", "fabric.yaml", ".invoke.yaml", ".fabric.yml"):
        (home / name).write_text(
            f"user: attacker\nport: 1\nconnect_kwargs: {{key_filename: {mark}}}\ngateway: attacker@127.0.0.1\n"
        )
    (home / ".ssh" / "config").write_text(
        f"Host *\n  User attacker\n  ProxyCommand {script}\n  LocalCommand {script}\n  PermitLocalCommand yes\n"
    )
    (home / ".ssh" / "rc").write_text(f"touch {mark}\n")
    (home / ".popt").write_text(f"rsync alias -e --rsh={script}\n")
    planted = {
        "FABRIC_USER": "attacker", "FABRIC_GATEWAY": "attacker", "INVOKE_RUN_SHELL": str(script), "SSH_ASKPASS": str(script),
        "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0", "RSYNC_RSH": str(script), "RSYNC_CONNECT_PROG": str(script),
        "RSYNC_PROXY": "127.0.0.1:1", "RSYNC_PARTIAL_DIR": "/tmp", "RSYNC_OLD_ARGS": "1",
        "SSH_CONNECTION": "a b c d", "SSH_ORIGINAL_COMMAND": str(script),
    }  # fmt: skip
    for name, text in planted.items():
        monkeypatch.setenv(name, text)
    assert run(words) == 0
    assert capsys.readouterr().out == clean

    source = farm_hosts.homes["eval1"] / "out"
    source.mkdir()
    (source / "a").write_text("content")
    target = tmp_path / "target"
    target.mkdir()
    inventory = load_inventory(farm_hosts.hosts_file)
    with SshConnector(inventory.defaults) as connector:
        transport = connector.open(inventory.get("eval1"))
        transport.pull(PullRequest(str(source), ("a",), target, 1 << 20, 1 << 20, DEADLINE_S))
    assert (target / "a").read_text() == "content"
    assert f"Accepted publickey for {getpass.getuser()}" in farm_hosts.log("eval1")
    assert "attacker" not in farm_hosts.log("eval1")
    assert not mark.exists()


@attack("S30")
def test_of_the_users_ssh_config_only_the_documented_keywords_count(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    config = tmp_path / ".ssh" / "config"
    evil = f"touch {mark}"
    config.write_text(
        f"Host a\n  HostName 127.0.0.1\n  LocalCommand {evil}\n  PermitLocalCommand yes\n  RemoteCommand {evil}\n"
        f"  KnownHostsCommand {evil}\n  ForwardAgent yes\n  PKCS11Provider {mark}.so\n  SendEnv *\n  ForwardX11 yes\n"
        f"  ControlPath {mark}\n  ControlMaster auto\n  StrictHostKeyChecking no\n  PasswordAuthentication yes\n"
    )
    config.chmod(0o600)
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("hosts: {a: }\n")
    host = load_inventory(hosts).get("a")
    assert (host.hop.address, host.accept_new_key, host.jumps) == ("127.0.0.1", False, ())
    assert not mark.exists()


@attack("S30", "S46")
@pytest.mark.parametrize("which", ["config", "included"])
def test_an_ssh_config_that_others_can_change_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    files = {"config": tmp_path / ".ssh" / "config", "included": tmp_path / "more"}
    files["config"].write_text(f"Include {files['included']}\n")
    files["included"].write_text("Host a\n  HostName 127.0.0.1\n")
    for path in files.values():
        path.chmod(0o600)
    (tmp_path / "hosts.yaml").write_text("hosts: {a: }\n")
    load_inventory(tmp_path / "hosts.yaml")
    files[which].chmod(0o666)
    assert str(files[which]) in refusal(lambda: load_inventory(tmp_path / "hosts.yaml"))


# ---------------------------------------------------------------- S31: paths on the host


@attack("S31")
def test_remote_paths_are_not_read_by_a_shell_in_rsync_stage_and_sync(farm_hosts: SshdFarm, tmp_path: Path, mark: Path) -> None:
    home = farm_hosts.homes["eval1"]
    inventory = load_inventory(farm_hosts.hosts_file)
    names = [
        f"$(touch {mark.name})",
        f"`touch {mark.name}`",
        "a b",
        'it\'s "q"',
        f"; touch {mark.name} ;",
        "*",
        "a[b]*",
        "b\\*c",
        "b\\c",
        "-e sh",
        "~root",
    ]
    with SshConnector(inventory.defaults) as connector:
        transport = connector.open(inventory.get("eval1"))
        for number, name in enumerate(names):
            source = home / "out" / name
            source.mkdir(parents=True)
            (source / "a").write_text(name)
            target = tmp_path / f"target{number}"
            target.mkdir()
            transport.pull(PullRequest(str(source), ("a",), target, 1 << 20, 1 << 20, DEADLINE_S))
            assert (target / "a").read_text() == name
    with agent_host(tmp_path / "local") as host:
        for name in names:
            root = host.home / "roots" / name
            root.mkdir(parents=True)
            host.client.sync(str(root), [SyncFile("x/file", name.encode(), 0o644)], dry_run=False)
            assert (root / "x" / "file").read_text() == name
            with pytest.raises(AgentError, match="not an input name"):
                host.client.stage({"0" * 64: (name, b"x")})
            with pytest.raises(AgentError, match="not a relative path"):
                host.client.sync(str(root), [SyncFile(name, b"x", 0o644)], dry_run=False)
    assert not [*home.rglob(mark.name), *tmp_path.rglob(mark.name)]
