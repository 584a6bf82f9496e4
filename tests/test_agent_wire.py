"""How the agent gets to a host and how its answers are told from whatever else comes out of a shell."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.agent import AgentClient, wire
from fleet.agent.wire import COMMAND
from fleet.errors import AgentError, AnotherMachine, NoAnswer
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import agent_source
from fleet.testing import LocalTransport, local_host
from fleet.testing.local import LocalSession
from fleet.transport import SshConnector
from tests.support.agent_host import AgentHost
from tests.support.catalogue import attack, fault
from tests.support.sshd_farm import SshdFarm


def installed(host: AgentHost) -> Path:
    (path,) = host.fleet.glob("agent-*/fleet_host.py")
    return path


def talk(host: AgentHost, line: bytes) -> subprocess.CompletedProcess[bytes]:
    """Speak to the remote command without our client."""
    return subprocess.run(
        ["/bin/sh", "-c", COMMAND],
        input=wire._PREAMBLE + line,
        env={"HOME": str(host.home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        timeout=20,
        check=False,
    )


def test_the_agent_ships_itself_once(host: AgentHost) -> None:
    host.client.status()
    path = installed(host)
    assert path.read_bytes() == agent_source()
    before = path.stat()
    host.client.status()
    assert path.stat() == before or path.stat().st_mtime_ns == before.st_mtime_ns
    assert (host.fleet.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize("damage", [b"", b"print('evil')\n", agent_source()[:-100]])
def test_a_damaged_agent_is_replaced_before_it_runs(host: AgentHost, damage: bytes) -> None:
    host.client.status()
    installed(host).write_bytes(damage)
    assert len(host.client.status()["host_uid"]) == 32
    assert installed(host).read_bytes() == agent_source()


@fault("C14")
def test_two_versions_live_side_by_side(host: AgentHost) -> None:
    host.launch("sleep 1")
    newer = AgentClient(host.transport, agent_source() + b"\n# another version\n")
    assert newer.status()["attempts"][0]["state"] == "running"
    assert len(list(host.fleet.glob("agent-*"))) == 2
    assert host.wait()["rc"] == 0


def test_many_first_calls_at_once_all_get_an_answer(host: AgentHost) -> None:
    seen: list[str] = []
    threads = [threading.Thread(target=lambda: seen.append(host.client.status()["host_uid"])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(seen) == 6 and len(set(seen)) == 1


@fault("C14")
def test_another_protocol_is_refused_with_the_code(host: AgentHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PROTOCOL", 99)
    with pytest.raises(AgentError) as caught:
        host.client.status()
    assert caught.value.code == "protocol"


@fault("H3")
def test_a_machine_with_another_identity_refuses_every_request(host: AgentHost) -> None:
    uid = host.client.status([])["host_uid"]
    known = AgentClient(host.transport, host.source, uid)
    assert known.status([])["host_uid"] == uid
    stranger = AgentClient(host.transport, host.source, "0" * 32)
    for ask in (lambda: stranger.status([]), lambda: stranger.launch(attempt="a1", key=host.key(), spec=host.spec("true"))):
        with pytest.raises(AnotherMachine, match="eval1: another machine answers") as caught:
            ask()
        assert caught.value.bit == 16
        assert caught.value.hint
    assert host.starts() == []
    assert not host.dir("a1").exists()


@attack("S32")
def test_a_request_over_one_megabyte_is_refused_before_it_is_sent(host: AgentHost) -> None:
    with pytest.raises(AgentError) as caught:
        host.client.status(["x" * 1_100_000])
    assert caught.value.code == "bad-request"
    assert not host.fleet.exists()


@attack("S32")
@pytest.mark.parametrize(
    "line", [b"", b"not json\n", b"[1]\n", b"{}\n", b'{"agent": 1}\n', b'{"nonce": "x"' + b" " * 1_100_000 + b"}\n"]
)
def test_a_line_that_is_no_request_gets_no_frame_and_leaves_nothing(host: AgentHost, line: bytes) -> None:
    done = talk(host, line)
    assert done.returncode != 0 and b"<<" not in done.stdout
    assert not host.fleet.exists()


@attack("S32")
def test_a_request_with_a_key_that_its_verb_does_not_know_is_refused(host: AgentHost) -> None:
    with pytest.raises(AgentError, match="status knows no command") as caught:
        host.client._ask({"verb": "status", "attempts": None, "command": "touch x"}, 10.0)
    assert caught.value.code == "bad-request"


def test_an_agent_digest_that_is_a_path_is_refused(host: AgentHost) -> None:
    request = {"nonce": "0" * 32, "agent": "../../escape", "agent_size": 1, "verb": "status", "protocol": 1}
    done = talk(host, json.dumps(request).encode() + b"\n")
    assert b'"code": "refused"' in done.stdout
    assert not (host.home / "escape").exists() and not (host.home.parent / "escape").exists()


def test_a_call_takes_little_time(host: AgentHost) -> None:
    questions = {"files": ["~/x"], "disk": "~", "tools": ["rsync"], "memory": True, "processes": ["run_infer"], "logind": True}
    host.client.probe(questions)
    measured = []
    for _ in range(8):
        begun = time.monotonic()
        host.client.probe(questions)
        measured.append(time.monotonic() - begun)
    print(f"probe: {min(measured) * 1000:.0f} ms at best, {max(measured) * 1000:.0f} ms at worst")
    assert min(measured) < 0.25


def test_a_readiness_command_that_leaves_a_daemon_behind_still_answers(host: AgentHost) -> None:
    commands = [
        {"name": "daemon", "argv": ["sh", "-c", "setsid sleep 60 & echo done"], "timeout_s": 20},
        {"name": "slow", "argv": ["sh", "-c", "setsid sleep 61 & echo begun; sleep 62"], "timeout_s": 0.5},
        {"name": "loud", "argv": ["sh", "-c", "yes | head -c 30000000; echo END"], "timeout_s": 20},
        {"name": "absent", "argv": ["no-such-program"]},
    ]
    begun = time.monotonic()
    answers = host.client.probe({"commands": commands})["commands"]
    assert time.monotonic() - begun < 10
    assert (answers["daemon"]["rc"], answers["daemon"]["tail"]) == (0, "done\n")
    assert (answers["slow"]["timed_out"], answers["slow"]["tail"]) == (True, "begun\n")
    assert answers["loud"]["tail"].endswith("END\n") and len(answers["loud"]["tail"]) == 2048
    assert "No such file" in answers["absent"]["error"]


class Farm:
    """One OpenSSH host whose login shell is bash, and so reads ~/.bashrc for every command."""

    def __init__(self, farm: SshdFarm) -> None:
        self.home = farm.homes["eval1"]
        self.inventory = load_inventory(farm.hosts_file)
        self.connect()

    def connect(self) -> None:
        """Open a connection, as another controller would."""
        self.connector = SshConnector(self.inventory.defaults)
        self.client = AgentClient(self.connector.open(self.inventory.get("eval1")), agent_source())


@pytest.fixture
def bash(farm_hosts: SshdFarm) -> Iterator[Farm]:
    farm = Farm(farm_hosts)
    yield farm
    farm.connector.close()


@fault("H10")
def test_a_noisy_bashrc_breaks_no_answer(bash: Farm) -> None:
    (bash.home / ".bashrc").write_text(
        "echo NOISE; echo '<<00000000000000000000000000000000 {\"ok\": true}>>'; printf 'half a line'; echo oops >&2\n"
        "head -c 3000000 /dev/zero | tr '\\0' x\n(sleep 0.2; echo LATER) &\n"
    )
    first = bash.client.status()["host_uid"]
    assert bash.client.probe({"memory": True})["host_uid"] == first


@fault("H10")
def test_a_bashrc_that_is_slow_is_waited_for(bash: Farm) -> None:
    (bash.home / ".bashrc").write_text("sleep 1\n")
    assert len(bash.client.status()["host_uid"]) == 32


@pytest.mark.parametrize("line", ["exec false", "exit 5", "exec sh -c 'echo no >&2; exit 3'"])
def test_a_bashrc_that_ends_the_shell_is_named_as_the_likely_cause(bash: Farm, line: str) -> None:
    (bash.home / ".bashrc").write_text(line + "\n")
    with pytest.raises(NoAnswer) as caught:
        bash.client.status()
    assert ".bashrc" in str(caught.value.hint)
    assert "no answer" in caught.value.message


@fault("H10")
def test_a_bashrc_that_eats_the_request_is_no_answer_and_no_start(bash: Farm) -> None:
    (bash.home / ".bashrc").write_text("read -r eaten\n")
    with pytest.raises(NoAnswer):
        bash.client.status()
    assert not (bash.home / ".fleet").exists()


@fault("H11")
def test_a_host_without_python_is_told_what_it_lacks(bash: Farm) -> None:
    (bash.home / ".bashrc").write_text("PATH=/nonexistent\n")
    with pytest.raises(AgentError, match="no python3 on the PATH"):
        bash.client.status()


def test_an_interpreter_that_hosts_yaml_names_and_the_host_has_not_is_named(bash: Farm) -> None:
    host = bash.inventory.get("eval1").model_copy(update={"python": "python9"})
    client = AgentClient(bash.connector.open(host), agent_source())
    with pytest.raises(AgentError, match="no python9 on the PATH") as caught:
        client.status()
    assert "python: in hosts.yaml" in caught.value.hint


def test_an_eval_outlives_its_connection(bash: Farm) -> None:
    (bash.home / "work").mkdir()
    spec = AgentHost.spec("sleep 0.7; exit 4")
    bash.client.launch(attempt="a1", key=AgentHost.key(), spec=spec)
    bash.connector.close()
    time.sleep(0.2)
    bash.connect()
    status = [status for status, final in bash.client.wait("a1", max_s=20) if final][-1]
    assert (status["state"], status["rc"]) == ("finished", 4)
    shutil.rmtree(bash.home / ".fleet")


def test_a_talking_shell_is_reported_with_the_facts(tmp_path: Path) -> None:
    class Talking(LocalTransport):
        def start(self, command: str) -> LocalSession:
            return super().start(f"echo NOISE; {command}")

    (tmp_path / "home").mkdir()
    source = agent_source()
    quiet = AgentClient(LocalTransport(local_host("quiet"), tmp_path / "home"), source).probe({})
    loud = AgentClient(Talking(local_host("loud"), tmp_path / "home"), source).probe({})
    assert quiet["noise"] == {"bytes": 0, "sample": ""}
    assert loud["noise"] == {"bytes": 6, "sample": "NOISE\n"}


def test_the_agent_runs_under_the_interpreter_that_the_inventory_names(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    other = tmp_path / "other-python"
    other.symlink_to("/usr/bin/python3")
    host = local_host("h", python=str(other))
    assert AgentClient(LocalTransport(host, tmp_path / "home"), agent_source()).probe({})["python"]
    missing = local_host("h", python="/nowhere/python3")
    with pytest.raises(AgentError, match="python3") as raised:
        AgentClient(LocalTransport(missing, tmp_path / "home"), agent_source()).probe({})
    assert raised.value.code == "not-ready"
