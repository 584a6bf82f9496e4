"""Several questions to one remote agent: the same answers as from an agent each, and a broken one costs one question."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.agent import AgentClient
from fleet.errors import AgentError, NoAnswer
from fleet.inventory.pipelines import agent_source
from fleet.testing import local_host
from fleet.testing.local import LocalSession, LocalTransport


class CountingTransport(LocalTransport):
    """A local host that remembers every remote command that was started on it."""

    def __init__(self, home: Path) -> None:
        super().__init__(local_host("eval1"), home)
        self.started: list[LocalSession] = []

    def start(self, command: str) -> LocalSession:
        session = super().start(command)
        self.started.append(session)
        return session


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[CountingTransport]:
    with_home = CountingTransport(tmp_path)
    yield with_home
    with_home.close()
    for thread in threading.enumerate():
        if thread.name == "reap eval1":
            thread.join(10)


@pytest.fixture
def client(transport: CountingTransport) -> AgentClient:
    return AgentClient(transport, agent_source())


def test_questions_of_a_conversation_share_one_remote_process(client: AgentClient, transport: CountingTransport) -> None:
    alone = client.status()
    assert len(transport.started) == 1
    with client.conversation():
        assert client.probe({"memory": True})["memory"]["total"] > 0
        assert client.status()["lock"] == alone["lock"]
        assert client.probe({"files": ["~/none"]})["files"]["~/none"]["exists"] is False
    assert len(transport.started) == 2


def test_the_agent_is_sent_once_and_then_answers_on(client: AgentClient, transport: CountingTransport) -> None:
    with client.conversation():
        client.status()
        client.status()
    assert len(transport.started) == 1


def test_after_a_refusal_the_next_question_has_a_fresh_agent(client: AgentClient, transport: CountingTransport) -> None:
    with client.conversation():
        client.status()
        with pytest.raises(AgentError) as caught:
            client.ack("nobody-knows-it", 1)
        assert caught.value.code == "unknown-attempt"
        assert client.status()["attempts"] == []
    assert len(transport.started) == 2


def test_an_agent_that_died_between_two_questions_costs_one_of_them(client: AgentClient, transport: CountingTransport) -> None:
    with client.conversation():
        client.status()
        transport.started[0]._process.kill()
        transport.started[0]._process.wait()
        with pytest.raises(NoAnswer):
            client.status()
        assert client.status()["attempts"] == []


def test_files_and_waits_have_agents_of_their_own(client: AgentClient, transport: CountingTransport) -> None:
    body = b"{}"
    digest = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with client.conversation():
        client.status()
        staged = client.stage({digest: ("task.jsonl", body)})
        assert Path(staged[digest]).read_bytes() == body
        assert [final for _, final in client.wait("nobody-knows-it")] == [True]
        client.status()
    assert len(transport.started) == 3


def test_conversations_nest(client: AgentClient, transport: CountingTransport) -> None:
    with client.conversation():
        client.status()
        with client.conversation():
            client.status()
        client.status()
    assert len(transport.started) == 1
    client.status()
    assert len(transport.started) == 2
