"""The public fakes behave as the real transport does, and fail as planned."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import NoAnswer, TransferFailed, Unreachable
from fleet.testing import Fault, FlakyConnector, LocalConnector, local_host
from fleet.transport.protocol import Connector, PullRequest, Session, Transport

HOST = local_host("a")


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalConnector]:
    home = tmp_path / "home"
    home.mkdir()
    connector = LocalConnector({"a": home})
    yield connector
    connector.close()


def _read(session: Session) -> bytes:
    output = b""
    while chunk := session.receive(5):
        output += chunk
    return output


def test_the_protocols_are_kept(local: LocalConnector) -> None:
    flaky = FlakyConnector(local, lambda host, number: None)
    for connector in (local, flaky):
        transport = connector.open(HOST)
        assert isinstance(connector, Connector)
        assert isinstance(transport, Transport)
        assert isinstance(transport.start("true"), Session)


def test_a_command_runs_in_the_home_of_its_host(local: LocalConnector) -> None:
    session = local.open(HOST).start('echo "$HOME"; pwd; echo late >&2; exit 3')
    home = str(local.homes["a"])
    assert _read(session).decode().split() == [home, home]
    assert session.exit_status(5) == 3
    assert session.stderr_tail() == b"late\n"


def test_a_chatty_stderr_holds_nothing_up(local: LocalConnector) -> None:
    session = local.open(HOST).start("head -c 5000000 /dev/zero >&2; echo done")
    assert _read(session) == b"done\n"
    assert len(session.stderr_tail()) == 8192


def test_nothing_in_time_is_not_the_end(local: LocalConnector) -> None:
    session = local.open(HOST).start("read line; echo got $line")
    assert session.receive(0.05) is None
    assert session.exit_status(0.05) is None
    session.send(b"it\n")
    assert _read(session) == b"got it\n"


def test_closing_wakes_a_reader_and_spares_the_process(local: LocalConnector) -> None:
    marker = local.homes["a"] / "survived"
    transport = local.open(HOST)
    session = transport.start(f"sleep 0.5; touch {marker}")
    threading.Timer(0.1, transport.close).start()
    assert session.receive(5) == b""
    assert session.exit_status(1) is None
    with pytest.raises(NoAnswer):
        session.send(b"x")
    with pytest.raises(Unreachable):
        transport.start("true")
    deadline = time.monotonic() + 5
    while not marker.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_host_can_be_down(local: LocalConnector) -> None:
    local.down.add("a")
    with pytest.raises(Unreachable):
        local.open(HOST)
    local.down.clear()
    assert local.open(HOST).alive(1)
    with pytest.raises(Unreachable):
        local.open(local_host("stranger"))


def _flaky(local: LocalConnector, fault: Fault) -> Transport:
    return FlakyConnector(local, lambda host, number: fault if number == 1 else None).open(HOST)


def test_a_dropped_request_never_runs(local: LocalConnector) -> None:
    transport = _flaky(local, Fault(drop="request"))
    session = transport.start("touch ran")
    with pytest.raises(NoAnswer):
        session.send(b"{}")
    assert session.receive(1) == b""
    assert not (local.homes["a"] / "ran").exists()
    assert not transport.alive(1)


def test_a_dropped_answer_has_run(local: LocalConnector) -> None:
    transport = _flaky(local, Fault(drop="answer"))
    session = transport.start("touch ran; echo ok")
    assert session.receive(5) == b""
    assert session.exit_status(1) is None
    assert (local.homes["a"] / "ran").exists()
    with pytest.raises(Unreachable):
        transport.start("true")


def test_an_answer_is_cut_after_so_many_bytes(local: LocalConnector) -> None:
    session = _flaky(local, Fault(cut_after=3)).start("echo abcdef")
    assert _read(session) == b"abc"
    assert session.exit_status(1) is None


def test_an_answer_comes_late(local: LocalConnector) -> None:
    session = _flaky(local, Fault(delay_s=0.3)).start("echo ok")
    assert session.receive(0.1) is None
    assert session.receive(5) == b"ok\n"


def test_openings_and_pulls_fail_as_planned(local: LocalConnector, tmp_path: Path) -> None:
    (local.homes["a"] / "x").write_text("x")
    target = tmp_path / "staging"
    target.mkdir()
    request = PullRequest(str(local.homes["a"]), ("x",), target, 100, 100, 10)
    plan = iter([Fault(drop="open"), None, Fault(drop="request"), Fault(drop="answer"), None])
    flaky = FlakyConnector(local, lambda host, number: next(plan))
    with pytest.raises(Unreachable):
        flaky.open(HOST)
    transport = flaky.open(HOST)
    for here in (False, True):
        with pytest.raises(TransferFailed):
            transport.pull(request)
        assert (target / "x").exists() is here
    assert transport.pull(request).resumed
