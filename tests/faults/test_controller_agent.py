"""Another version of fleet has been on the host, or this installation is put together of two versions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fleet.agent import AgentClient
from fleet.agent.wire import Exchange
from fleet.errors import AgentError, InputError
from fleet.inventory.pipelines import agent_source
from fleet.testing import LocalConnector, local_host
from tests.support.catalogue import fault
from tests.support.operator import finish
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm


@fault("C14")
def test_an_older_and_a_newer_agent_on_the_host_are_left_alone_and_not_used(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["skew-1"]})
    fleet = farm_hosts.homes["eval1"] / ".fleet"
    fleet.mkdir(mode=0o700)
    source = agent_source()
    others = [source.replace(b"PROTOCOL = 1", b"PROTOCOL = %d" % number) for number in (0, 2)]
    for other in others:
        folder = fleet / f"agent-{hashlib.sha256(other).hexdigest()}"
        folder.mkdir(mode=0o700)
        (folder / "fleet_host.py").write_bytes(other)
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()
    kept = {folder.name.removeprefix("agent-"): (folder / "fleet_host.py").read_bytes() for folder in fleet.glob("agent-*")}
    assert set(kept.values()) == {source, *others}
    assert all(hashlib.sha256(body).hexdigest() == name for name, body in kept.items())


@fault("C14")
def test_an_agent_that_is_not_what_its_name_says_is_replaced_before_it_is_used(farm_hosts: SshdFarm, tmp_path: Path) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["stale-1"]})
    source = agent_source()
    folder = farm_hosts.homes["eval1"] / ".fleet" / f"agent-{hashlib.sha256(source).hexdigest()}"
    folder.mkdir(mode=0o700, parents=True)
    (folder.parent).chmod(0o700)
    (folder / "fleet_host.py").write_bytes(source[:-100])
    assert job.run("dispatch", job.assignment).code == 0
    assert (folder / "fleet_host.py").read_bytes() == source
    job.assert_each_ran_once()


@fault("C14")
@pytest.mark.parametrize("words", [["check"], ["dispatch", "small.json"]])
def test_an_installation_of_two_versions_is_refused_as_input_and_told_how_to_mend_it(
    farm_hosts: SshdFarm, tmp_path: Path, words: list[str]
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["mixed-1"]})
    program = "import sys\nfrom fleet.cli.main import main\nfrom fleet.agent import wire\nwire.PROTOCOL = 2\nmain(sys.argv[1:])"
    said = finish(job.start_as(program, *words))
    assert said.code == 1, said.err
    assert "the host agent of this installation speaks protocol 1, fleet itself 2" in said.err
    assert "→ reinstall fleet" in said.err
    assert job.markers() == {}


@fault("C14")
def test_the_agent_itself_refuses_a_protocol_that_is_not_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connector = LocalConnector({"h1": tmp_path})
    source = agent_source()
    with pytest.raises(InputError, match="speaks protocol 3, fleet itself 1"):
        AgentClient(connector.open(local_host("h1")), source.replace(b"PROTOCOL = 1", b"PROTOCOL = 3"))
    monkeypatch.setattr("fleet.agent.wire.PROTOCOL", 2)
    request = {"verb": "status", "attempts": []}
    exchange = Exchange(connector.open(local_host("h1")), source, hashlib.sha256(source).hexdigest(), request)
    with pytest.raises(AgentError, match="this agent speaks protocol 1, the controller 2") as refused:
        list(exchange.frames(10.0))
    assert refused.value.code == "protocol"
    exchange.close()
    connector.close()
