"""Connections end or change at any byte, in either direction: what came before it is never taken for an answer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.agent import AgentClient
from fleet.errors import TransferFailed, TransportError
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import agent_source
from fleet.model.hosts import Defaults, Host
from fleet.transport import PullRequest, SshConnector, Transport
from tests.support.agent_host import AgentHost
from tests.support.catalogue import fault
from tests.support.fault_proxy import CLEAN, Fault, FaultProxy
from tests.support.sshd_farm import SshdFarm

SEED = 20_260
_CHANCE = random.Random(SEED)
LENGTHS = [0, *sorted(_CHANCE.choices(range(8_000), k=4) + _CHANCE.choices(range(200_000), k=3))]
CUTS = [Fault(cut_after=length, how=how) for length in LENGTHS for how in ("rst", "fin")]
CHANGES = [Fault(corrupt_at=length) for length in LENGTHS[1:]]
FAST = Defaults(connect_timeout=2.0, banner_timeout=2.0, auth_timeout=4.0, dead_after=3.0)
BYTES = random.Random(SEED).randbytes(300_000)


class Line:
    """A host behind a proxy: every attempt at something is made over a connection of its own, with a fault of its own."""

    def __init__(self, farm: SshdFarm, proxy: FaultProxy, connector: SshConnector) -> None:
        self.home = farm.homes["eval1"]
        self.proxy = proxy
        self.connector = connector
        self.host: Host = load_inventory(farm.hosts_file).get("eval1")
        self.source = agent_source()

    def open(self) -> Transport:
        return self.connector.open(self.host)

    def without_agent(self) -> None:
        """Let the host ask for the agent's source again: some 150 kB more on the line."""
        for installed in self.home.glob(".fleet/agent-*/fleet_host.py"):
            installed.unlink()

    def agent(self) -> AgentClient:
        return AgentClient(self.open(), self.source)


@pytest.fixture
def line(farm_hosts: SshdFarm) -> Iterator[Line]:
    with FaultProxy(farm_hosts.addresses["eval1"], farm_hosts.port) as proxy, SshConnector(FAST) as connector:
        farm_hosts.lead("eval1", *proxy.address)
        (farm_hosts.homes["eval1"] / "work").mkdir()
        yield Line(farm_hosts, proxy, connector)
        farm_hosts.ways.clear()
        farm_hosts.write_ssh_config()


def _both_ways(faults: list[Fault]) -> list[tuple[Fault, Fault]]:
    """Return (up, down) for each fault: in turn, and those far along on the way up, where the agent's source travels."""
    far = [(one.cut_after or one.corrupt_at or 0) > 6_000 for one in faults]
    return [(one, CLEAN) if far[number] or number % 2 else (CLEAN, one) for number, one in enumerate(faults)]


@fault("N5")
@fault("N6")
def test_a_check_over_a_broken_line_has_the_whole_answer_or_none(line: Line) -> None:
    whole, none = 0, 0
    for up, down in _both_ways(CUTS + CHANGES):
        line.without_agent()
        line.proxy.clear()
        line.proxy.plan(up=up, down=down)
        try:
            facts = line.agent().probe({"tools": ["rsync"]})
        except TransportError as error:
            none += 1
            assert error.host == "eval1"
            assert error.hint
        else:
            whole += 1
            assert facts["hostname"]
            assert facts["tools"]["rsync"]
    assert none > 10
    assert whole > 5
    assert line.proxy.faults >= none


@fault("N4")
@fault("N5")
@fault("N6")
def test_a_launch_that_is_repeated_until_it_is_answered_starts_one_eval(line: Line) -> None:
    unanswered, faults = 0, CUTS[1::2] + CHANGES[::2]
    for number, (up, down) in enumerate(_both_ways(faults)):
        attempt = f"a{number}"
        spec = AgentHost.spec("true")
        line.without_agent()
        line.proxy.plan(up=up, down=down)
        for _ in range(5):
            try:
                line.agent().launch(attempt=attempt, key=AgentHost.key(attempt), spec=spec)
                break
            except TransportError:
                unanswered += 1
        else:
            raise AssertionError("the line was clean from the second try on")
        line.proxy.clear()
        for status, final in line.agent().wait(attempt, beat_s=5):
            assert status["attempt"] == attempt
            assert not final or status["rc"] == 0
        assert _starts(line.home).count(attempt) == 1
    assert unanswered > 5
    assert len(_starts(line.home)) == len(faults)


@fault("N5")
@fault("N6")
def test_a_wait_over_a_broken_line_tells_the_end_only_when_the_host_said_it(line: Line) -> None:
    line.agent().launch(attempt="a1", key=AgentHost.key("a1"), spec=AgentHost.spec("exit 3"))
    ends = 0
    for up, down in _both_ways(CUTS[::2] + CHANGES[1::2]):
        line.proxy.clear()
        line.proxy.plan(up=up, down=down)
        told = []
        try:
            told = [status for status, final in line.agent().wait("a1", beat_s=5) if final]
        except TransportError:
            continue
        ends += len(told)
        assert [status["rc"] for status in told] in ([3], []), "no end, or the whole one"
    assert ends > 2


@fault("N5")
@fault("N6")
def test_a_transfer_over_a_broken_line_brings_the_very_bytes_or_says_that_it_failed(line: Line, tmp_path: Path) -> None:
    (line.home / "out").mkdir()
    (line.home / "out" / "trace.bin").write_bytes(BYTES)
    transport = line.open()
    failed = 0
    for number, down in enumerate([*CUTS[:2], *CUTS[-5:], *CHANGES[-3:]]):
        target = tmp_path / str(number)
        target.mkdir(mode=0o700)
        request = PullRequest(str(line.home / "out"), ("trace.bin",), target, 1 << 20, 1 << 20, 20)
        line.proxy.clear()
        line.proxy.plan(down=down)
        try:
            transport.pull(request)
        except TransferFailed as error:
            failed += 1
            assert "eval1" in error.message
            assert not (target / "trace.bin").exists(), "half a file stands under its name"
            line.proxy.clear()
            transport.pull(request)
        assert hashlib.sha256((target / "trace.bin").read_bytes()).digest() == hashlib.sha256(BYTES).digest()
    assert failed > 2


def _starts(home: Path) -> list[str]:
    return [words.split()[0] for words in (home / "starts").read_text().splitlines()]
