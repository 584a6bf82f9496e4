"""A host or a link that fails is noticed within a deadline, says what happened, and is never taken for an answer."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest

from fleet.errors import NoAnswer, Unreachable
from fleet.inventory import load_inventory
from fleet.model.hosts import Defaults, Hop, Host
from fleet.transport import SshConnector
from fleet.transport.protocol import Connector, Session, Transport
from fleet.transport.sockets import dial
from tests.support.catalogue import attack, fault
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh
FAST = Defaults(connect_timeout=1.0, banner_timeout=1.0, auth_timeout=2.0)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdFarm]:
    with SshdFarm(3, tmp_path_factory.mktemp("faults") / "farm") as running:
        yield running


@pytest.fixture
def connector() -> Iterator[SshConnector]:
    with SshConnector(FAST) as opened:
        yield opened


def _host(farm: SshdFarm, name: str = "eval1", **hop: object) -> Host:
    host = load_inventory(farm.hosts_file).get(name)
    return host.model_copy(update={"hop": host.hop.model_copy(update=hop)})


def _read(session: Session, deadline_s: float = 20.0) -> bytes:
    output = b""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        chunk = session.receive(end - time.monotonic())
        if not chunk:
            return output
        output += chunk
    raise AssertionError("no end of output")


@contextmanager
def _listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        yield listening


def test_the_protocols_are_kept(farm: SshdFarm, connector: SshConnector) -> None:
    transport = connector.open(_host(farm))
    session = transport.start("true")
    assert isinstance(connector, Connector)
    assert isinstance(transport, Transport)
    assert isinstance(session, Session)


@fault("N1")
def test_a_host_that_swallows_packets_costs_the_connect_timeout(farm: SshdFarm, connector: SshConnector) -> None:
    with _listener() as listening, ExitStack() as stack:
        address = listening.getsockname()
        for _ in range(2):
            full = stack.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(address)
        time.sleep(0.05)
        started = time.monotonic()
        with pytest.raises(Unreachable, match="did not answer within 1 s") as caught:
            connector.open(_host(farm, address=address[0], port=address[1]))
    assert time.monotonic() - started < 2.5
    assert "firewall" in caught.value.hint


@fault("N2")
def test_a_port_without_a_banner_costs_the_banner_timeout(farm: SshdFarm, connector: SshConnector) -> None:
    with _listener() as listening:
        started = time.monotonic()
        with pytest.raises(Unreachable, match="sent no SSH banner"):
            connector.open(_host(farm, address="127.0.0.1", port=listening.getsockname()[1]))
    assert time.monotonic() - started < 2.5


def test_a_closed_port_is_said_to_refuse(farm: SshdFarm, connector: SshConnector) -> None:
    with _listener() as listening:
        port = listening.getsockname()[1]
    with pytest.raises(Unreachable, match="refuses connections") as caught:
        connector.open(_host(farm, address="127.0.0.1", port=port))
    assert "sshd" in caught.value.hint


def test_a_name_that_cannot_be_resolved_is_said_so_within_the_deadline(farm: SshdFarm, connector: SshConnector) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"the name no-such-host\.invalid cannot be resolved"):
        connector.open(_host(farm, address="no-such-host.invalid"))
    assert time.monotonic() - started < 2.5


@fault("N9")
def test_a_login_that_sshd_dropped_is_tried_again(farm: SshdFarm, connector: SshConnector) -> None:
    host = _host(farm)
    with _listener() as listening:
        listening.listen(16)
        served: list[int] = []

        def serve() -> None:
            for number in range(3):
                client, _ = listening.accept()
                served.append(number)
                if number < 2:
                    client.close()
                    continue
                upstream = socket.create_connection((host.hop.address, host.hop.port))
                back = threading.Thread(target=_pump, args=(upstream, client), daemon=True)
                back.start()
                _pump(client, upstream)
                back.join(5)
                client.close()
                upstream.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        # The key is pinned for the real address, so the proxy needs the same name.
        alias = f"[{host.hop.address}]:{host.hop.port}"
        address, port = listening.getsockname()
        hop = host.hop.model_copy(update={"address": address, "port": port, "host_key_alias": alias})
        transport = connector.open(host.model_copy(update={"hop": hop}))
        assert _read(transport.start("echo there")) == b"there\n"
        transport.close()
        thread.join(5)
    assert served == [0, 1, 2]


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        target.close()


def test_a_frozen_host_is_noticed_by_the_round_trip(farm: SshdFarm, connector: SshConnector) -> None:
    transport = connector.open(_host(farm, "eval2"))
    assert transport.alive(5.0)
    frozen = farm.sessions("eval2")
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert not transport.alive(1.0)
        assert time.monotonic() - started < 2.5
        with pytest.raises(Unreachable):
            transport.start("true")
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGKILL)


@fault("N3")
def test_the_kernel_watches_a_direct_connection(farm: SshdFarm) -> None:
    host = _host(farm)
    connection = dial(host.hop, 2.0, host.name)
    with connection:
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        limit = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) / 1000
    last_probe = next(at for at in range(idle, 60, interval) if at >= limit)
    assert last_probe <= 15


def test_five_megabytes_of_stderr_do_not_hold_the_answer_up(farm: SshdFarm, connector: SshConnector) -> None:
    session = connector.open(_host(farm)).start("head -c 5000000 /dev/zero | tr '\\0' e >&2; echo last >&2; echo done")
    assert _read(session) == b"done\n"
    assert session.exit_status(5) == 0
    assert len(session.stderr_tail()) == 8192
    assert session.stderr_tail().endswith(b"last\n")


def test_an_unread_answer_is_held_back_on_the_host(farm: SshdFarm, connector: SshConnector) -> None:
    session = connector.open(_host(farm)).start("head -c 20000000 /dev/zero")
    time.sleep(0.5)
    assert len(session._channel.in_buffer) <= 4_000_000
    assert len(_read(session)) == 20_000_000


@fault("N5")
def test_a_cut_in_the_middle_is_no_answer(farm: SshdFarm, connector: SshConnector) -> None:
    transport = connector.open(_host(farm, "eval3"))
    session = transport.start("head -c 1000 /dev/zero; sleep 30")
    assert session.receive(5) == bytes(1000)
    assert session.receive(0.05) is None
    for pid in farm.sessions("eval3"):
        os.kill(pid, signal.SIGKILL)
    assert session.receive(5) == b""
    assert session.exit_status(5) is None
    with pytest.raises(NoAnswer):
        session.send(b"more\n")
    with pytest.raises(Unreachable):
        transport.start("true")
    assert not transport.alive(1.0)


def test_exit_status_comes_last_and_a_signal_is_not_a_status(farm: SshdFarm, connector: SshConnector) -> None:
    transport = connector.open(_host(farm))
    for command, status in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", None)):
        session = transport.start(command)
        assert _read(session) == b""
        assert session.exit_status(5) == status
    running = transport.start("sleep 5")
    assert running.exit_status(0.05) is None


def test_stdin_reaches_the_command_and_many_sessions_share_a_connection(farm: SshdFarm, connector: SshConnector) -> None:
    transport = connector.open(_host(farm))

    def echo(number: int) -> bytes:
        session = transport.start("head -n 1")
        session.send(b"x" * 300_000 + b"%d\n" % number)
        return _read(session)[300_000:]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(echo, range(16))) == [b"%d\n" % number for number in range(16)]


@attack("S37")
def test_nothing_of_ours_reaches_the_host(farm: SshdFarm, connector: SshConnector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_FLEET_CANARY", "secret")
    session = connector.open(_host(farm)).start(
        'test -z "$SSH_AUTH_SOCK" && test -z "$LC_FLEET_CANARY" && test ! -t 0 && echo none'
    )
    assert _read(session) == b"none\n"


def test_closing_is_prompt_and_leaves_no_thread(farm: SshdFarm) -> None:
    before = threading.active_count()
    with SshConnector(FAST) as connector:
        host = _host(farm)
        for _ in range(10):
            connector.open(host).start("sleep 30")
        assert threading.active_count() == before + 10
        started = time.monotonic()
    assert time.monotonic() - started < 1.0
    assert threading.active_count() == before


def test_closing_wakes_whoever_waits_for_an_answer(farm: SshdFarm, connector: SshConnector) -> None:
    transport = connector.open(_host(farm))
    session = transport.start("sleep 30")
    threading.Timer(0.2, transport.close).start()
    started = time.monotonic()
    assert session.receive(20) == b""
    assert time.monotonic() - started < 2.0


def test_idle_connections_cost_no_cpu(farm: SshdFarm, connector: SshConnector) -> None:
    for _ in range(20):
        connector.open(_host(farm)).start("sleep 30")
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(1.5)
    assert time.process_time() - before < 0.02


def test_twenty_hosts_behind_a_dead_jump_host_cost_one_timeout() -> None:
    with _listener() as listening, SshConnector(FAST) as connector:
        address, port = listening.getsockname()
        jump = Hop(address=address, port=port, user="nobody", host_key_alias="jump")
        hosts = [
            Host(name=f"h{number}", hop=Hop(address="127.0.0.9", user="x", host_key_alias=f"h{number}"), jumps=(jump,))
            for number in range(20)
        ]

        def outcome(host: Host) -> str:
            with pytest.raises(Unreachable) as caught:
                connector.open(host)
            return str(caught.value)

        started = time.monotonic()
        with ThreadPoolExecutor(20) as pool:
            texts = list(pool.map(outcome, hosts))
        assert time.monotonic() - started < 3.0
        assert all(text.startswith(f"h{number}: jump host 127.0.0.1: ") for number, text in enumerate(texts))
