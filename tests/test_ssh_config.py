"""The user's ssh_config is honoured as ssh honours it, and no name in it or in hosts.yaml can run anything."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import InputError
from fleet.inventory import load_inventory
from fleet.inventory.ssh_config import SshConfig, _from_ssh_g
from fleet.model.hosts import Host
from fleet.transport import PullRequest, SshConnector
from tests.support.sshd_farm import SshdFarm


def _host(tmp_path: Path, config: str, hosts: str = 'hosts: {a: {alias: "box-{name}"}}') -> Host:
    file = tmp_path / "ssh_config"
    file.write_text(config)
    path = tmp_path / "hosts.yaml"
    path.write_text(hosts)
    return load_inventory(path, ssh_config=file).hosts[0]


def test_an_alias_gives_address_user_port_key_and_pin(tmp_path: Path) -> None:
    host = _host(
        tmp_path,
        """
        Host box-*
            HostName=%h.example.com
            User ubuntu
            Port 2222
            IdentityFile ~/.ssh/fleet-%n
            IdentitiesOnly yes
            HostKeyAlias pinned
            UserKnownHostsFile "/tmp/with space" /tmp/other
        Host *
            User nobody
            IdentityFile /keys/second
        """,
    )
    assert (host.hop.address, host.hop.user, host.hop.port) == ("box-a.example.com", "ubuntu", 2222)
    assert host.hop.identity_files == (Path("~/.ssh/fleet-box-a").expanduser(), Path("/keys/second"))
    assert host.hop.identities_only
    assert host.hop.host_key_alias == "pinned"
    assert host.known_hosts[-2:] == (Path("/tmp/with space"), Path("/tmp/other"))
    assert host.origin == "ssh_config"


def test_hosts_yaml_wins_where_it_speaks_about_the_host_and_not_by_its_defaults(tmp_path: Path) -> None:
    config = "Host box-a\n HostName h\n User ubuntu\n Port 2222\n"
    assert _host(tmp_path, config, "defaults: {user: x, port: 3}\nhosts: {a: {alias: box-a}}").hop.user == "ubuntu"
    host = _host(tmp_path, config, "hosts: {a: {alias: box-a, user: x, port: 3}}")
    assert (host.hop.user, host.hop.port) == ("x", 3)


def test_a_jump_in_defaults_is_for_hosts_whose_ssh_config_gives_none(tmp_path: Path) -> None:
    hosts = "defaults: {{jump: fallback}}\nhosts: {{a: {{alias: box-a{own}}}}}"

    def way(config: str, own: str = "") -> list[str]:
        return [hop.address for hop in _host(tmp_path, config, hosts.format(own=own)).jumps]

    assert way("Host box-a\n ProxyJump bastion\n") == ["bastion"]
    assert way("Host box-a\n ProxyCommand ssh -W %h:%p bastion\n") == ["bastion"]
    assert way("Host box-a\n ProxyJump bastion\n", ", jump: near") == ["near"]
    assert way("Host box-a\n ProxyJump bastion\n", ", jump: none") == []
    assert way("Host box-a\n User ubuntu\n") == ["fallback"]
    assert way("Host box-a\n User ubuntu\n", ", jump: none") == []


def test_jump_hosts_chain_as_in_ssh(tmp_path: Path) -> None:
    config = """
    Host box-a
        ProxyJump me@mid:2200
    Host mid
        HostName 10.0.0.2
        ProxyJump outer
    Host outer
        HostName 10.0.0.1
        User gate
    """
    jumps = _host(tmp_path, config).jumps
    assert [(hop.user, hop.address, hop.port) for hop in jumps] == [("gate", "10.0.0.1", 22), ("me", "10.0.0.2", 2200)]


def test_the_old_way_to_write_a_jump_is_understood(tmp_path: Path) -> None:
    host = _host(tmp_path, "Host box-a\n ProxyCommand ssh -W %h:%p gate@bastion\n")
    assert [(hop.user, hop.address) for hop in host.jumps] == [("gate", "bastion")]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("Host box-a\n ProxyCommand nc %h %p", "ProxyCommand, which fleet does not run"),
        ("Host box-a\n ProxyCommand sh -c 'ssh -W %h:%p b'", "ProxyCommand, which fleet does not run"),
        ("Host box-a\n HostName -oProxyCommand=x", "is not a host name"),
        ("Host box-a\n HostName a;touch", "is not a host name"),
        ("Host box-a\n User root$(id)", "is not a user name"),
        ("Host box-a\n User a`id`", "is not a user name"),
        ("Host box-a\n HostKeyAlias a,b", "is not a usable HostKeyAlias"),
        ("Host box-a\n ProxyJump -oProxyCommand=x", "is not a jump host"),
        ("Host box-a\n ProxyJump a;b", "is not a jump host"),
        ("Host box-a\n ProxyJump box-a", "jump hosts in a row"),
        ("Host box-a\n Port many", "port"),
        ("Host box-a\n HostName %q", "is not supported"),
        ("Host box-a\n IdentityFile ${FLEET_NOT_SET}/x", "FLEET_NOT_SET} is not set"),
    ],
)
def test_a_value_that_could_act_as_something_else_is_refused(tmp_path: Path, config: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        _host(tmp_path, config)
    assert said in caught.value.message


HOSTILE = [
    "-oProxyCommand=touch {0}",
    "a; touch {0}",
    "$(touch {0})",
    "`touch {0}`",
    "h --exec=evil 1",
    "a\nb",
    "../x",
    "a b",
    "%h",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_reaches_neither_ssh_nor_match_exec(tmp_path: Path, name: str) -> None:
    ran = tmp_path / "ran"
    config = tmp_path / "ssh_config"
    config.write_text(f'Match exec "touch {tmp_path}/matched-%h"\n User x\n')
    with pytest.raises(InputError, match="not a name"):
        SshConfig(config).settings(name.format(ran))
    (tmp_path / "hosts.yaml").write_text("hosts: {a: {alias: " + repr(name.format(ran)).replace('"', '\\"') + "}}")
    with pytest.raises(InputError):
        load_inventory(tmp_path / "hosts.yaml", ssh_config=config)
    assert not ran.exists()
    assert not list(tmp_path.glob("matched*"))


def test_what_only_ssh_understands_is_left_to_ssh(tmp_path: Path) -> None:
    config = f'Match originalhost box-a exec "test -e {tmp_path}"\n  HostName 10.1.2.3\n  User "ubuntu"\n'
    host = _host(tmp_path, config, "hosts: {a: {alias: box-a}, b: {alias: box-b}}")
    assert (host.hop.address, host.hop.user) == ("10.1.2.3", "ubuntu")


def test_a_config_that_others_can_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ssh_config"
    file.write_text("")
    file.chmod(0o666)
    with pytest.raises(InputError, match="can be changed by other users"):
        SshConfig(file)


def test_includes_are_followed(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "1").write_text("Host box-a\n HostName one\n")
    (tmp_path / "conf.d" / "2").write_text("Host *\n HostName two\n User u2\n")
    host = _host(tmp_path, f"Include {tmp_path}/conf.d/*\nHost box-a\n User late\n Port 9\n")
    assert (host.hop.address, host.hop.user, host.hop.port) == ("one", "u2", 9)


_PATTERN = st.sampled_from(["*", "box-*", "box-a", "b?x-a", "!box-b", "!box-a", "other", "box-a box-b", "* !box-a"])
_LINE = st.sampled_from(
    [
        "HostName one.example", "HostName two", "HostName=three", "User u1", "User u2", "user u3", "Port 22", "Port 2222",
        "IdentityFile ~/.ssh/k1", 'IdentityFile "/keys/k 2"', "IdentityFile none", "IdentitiesOnly yes", "IdentitiesOnly no",
        "ProxyJump j1", "ProxyJump u@j2:23,j3", "ProxyJump none", "ProxyCommand ssh -W %h:%p b", "ProxyCommand none",
        "HostKeyAlias k1", "HostKeyAlias k2", "UserKnownHostsFile /k/1 /k/2", "UserKnownHostsFile /k/3", "# comment",
        "ForwardAgent yes", "User u4 # comment", "",
    ]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(_PATTERN, st.lists(_LINE, max_size=5)), max_size=5))
def test_our_reader_and_ssh_agree(tmp_path: Path, blocks: list[tuple[str, list[str]]]) -> None:
    file = tmp_path / "ssh_config"
    file.write_text("".join(f"Host {pattern}\n" + "".join(f"  {line}\n" for line in lines) for pattern, lines in blocks))
    ours = SshConfig(file).settings("box-a")
    argv = ["ssh", "-G", "-F", str(file), "--", "box-a"]
    told = subprocess.run(argv, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    theirs = _from_ssh_g(told.stdout.decode())
    assert (ours.hostname or "box-a", ours.port or 22) == (theirs.hostname, theirs.port)
    assert ours.user in (theirs.user, None)
    assert ours.identities_only == theirs.identities_only
    assert (ours.proxy_jump, ours.proxy_command) == (theirs.proxy_jump, theirs.proxy_command)
    assert (ours.host_key_alias, ours.known_hosts) == (theirs.host_key_alias, theirs.known_hosts)
    assert (ours.identity_files or ()) == (theirs.identity_files or ())


def test_three_hundred_aliases_cost_little(tmp_path: Path) -> None:
    blocks = [
        f"Host box-n{number}\n HostName 10.0.{number // 250}.{number % 250}\n ProxyJump gate\n" for number in range(1, 301)
    ]
    (tmp_path / "ssh_config").write_text("".join(blocks) + "Host gate\n HostName 10.9.9.9\n")
    (tmp_path / "hosts.yaml").write_text('defaults: {alias: "box-{name}"}\nhosts: {"n[1-300]": }\n')
    started = time.process_time()
    inventory = load_inventory(tmp_path / "hosts.yaml", ssh_config=tmp_path / "ssh_config")
    assert len(inventory.hosts) == 300
    assert len({host.jumps for host in inventory.hosts}) == 1
    assert time.process_time() - started < 1.0


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdFarm]:
    with SshdFarm(20, tmp_path_factory.mktemp("jump") / "farm", bastion=True) as farm:
        yield farm


@pytest.mark.openssh
def test_twenty_hosts_through_one_bastion_with_default_max_startups(behind: SshdFarm) -> None:
    inventory = load_inventory(behind.hosts_file)

    def ask(host: Host) -> bytes | None:
        return connector.open(host).start("echo $HOME").receive(10)

    with SshConnector(inventory.defaults) as connector, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, inventory.hosts))
        assert answers == [f"{behind.homes[host.name]}\n".encode() for host in inventory.hosts]
        assert behind.log("bastion").count("Accepted publickey") == 1


@pytest.mark.openssh
def test_pulls_through_a_bastion_wait_for_a_place(behind: SshdFarm, tmp_path: Path) -> None:
    inventory = load_inventory(behind.hosts_file)

    def pull(host: Host) -> str:
        home = behind.homes[host.name]
        (home / "who").write_text(host.name)
        target = tmp_path / host.name
        target.mkdir()
        connector.open(host).pull(PullRequest(str(home), ("who",), target, 1000, 1000, 60))
        return (target / "who").read_text()

    with SshConnector(inventory.defaults) as connector, ThreadPoolExecutor(12) as pool:
        assert list(pool.map(pull, inventory.hosts[:12])) == [host.name for host in inventory.hosts[:12]]
    assert "MaxStartups" not in behind.log("bastion")
