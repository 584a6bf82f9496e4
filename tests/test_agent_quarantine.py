"""A host in quarantine takes no new attempt from anybody, keeps what it has, and is released by a person alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import AgentError
from tests.support.agent_host import AgentHost, agent_host


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    with agent_host(tmp_path / "eval1") as made:
        yield made


def test_a_quarantined_host_refuses_every_controller_with_the_reason_until_it_is_released(host: AgentHost) -> None:
    host.client.quarantine("3 tasks in a row ended badly here", ["a/gpt/run1"], "phase8", "ops@control pid 4242")
    with pytest.raises(AgentError, match="3 tasks in a row ended badly here") as refused:
        host.launch("exit 0", "a1")
    assert refused.value.code == "not-ready"
    assert host.state("a1") == "unknown"
    released = host.client.release()
    assert released is not None and released["tasks"] == ["a/gpt/run1"]
    host.launch("exit 0", "a1")
    assert host.wait("a1")["rc"] == 0
    assert host.starts() == ["a1"]


def test_quarantine_and_release_may_be_sent_again_and_the_first_reason_stands(host: AgentHost) -> None:
    host.client.quarantine("first", ["a/gpt/run1"])
    host.client.quarantine("second", ["b/gpt/run1"])
    assert host.client.status([])["quarantine"]["reason"] == "first"
    assert host.client.probe({})["quarantine"]["reason"] == "first"
    assert host.client.release() is not None
    assert host.client.release() is None
    assert host.client.status([])["quarantine"] is None


def test_what_runs_when_the_host_is_quarantined_goes_on_and_is_found_again(host: AgentHost) -> None:
    host.launch("sleep 0.5; exit 4", "a1")
    host.client.quarantine("enough", [])
    assert host.launch("sleep 0.5; exit 4", "a1")["outcome"] == "already"
    assert host.wait("a1")["rc"] == 4


def test_a_note_that_cannot_be_read_holds_the_host_back_all_the_same(host: AgentHost) -> None:
    (host.fleet).mkdir(mode=0o700, exist_ok=True)
    (host.fleet / "quarantine.json").write_bytes(b'{"reason": "cut of')
    with pytest.raises(AgentError, match="cannot be read"):
        host.launch("exit 0", "a1")
    host.client.release()
    assert host.launch("exit 0", "a1")["outcome"] == "started"


def test_an_order_that_a_release_has_overtaken_holds_nothing_back(host: AgentHost) -> None:
    host.launch("exit 4", "a1")
    epoch = host.wait("a1")["epoch"]
    host.client.release()
    assert not host.client.quarantine("decided before the release, and late", ["a1/gpt/run1"], epoch=epoch)
    assert host.launch("exit 4", "a2")["outcome"] == "started"
    assert host.client.quarantine("a row that has gone on since", ["a2/gpt/run1"], epoch=host.wait("a2")["epoch"])
    with pytest.raises(AgentError, match="a row that has gone on since"):
        host.launch("exit 4", "a3")


def test_an_eval_that_ran_during_the_release_may_speak_against_the_host_when_it_has_ended(host: AgentHost) -> None:
    host.launch("sleep 0.5; exit 4", "a1")
    host.client.release()
    epoch = host.wait("a1")["epoch"]
    assert host.client.quarantine("one task in a row ended badly here", ["a1/gpt/run1"], epoch=epoch)
