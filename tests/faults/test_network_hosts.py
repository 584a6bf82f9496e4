"""What happens to the machine behind a link: its sshd restarts or dies, it moves, or another one takes its place."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.inventory import load_inventory
from fleet.model.hosts import Defaults
from fleet.transport import SshConnector
from tests.support.catalogue import attack, fault
from tests.support.netns import NetnsFarm
from tests.support.network_job import NetworkJob
from tests.support.operator import finish, wait_until

pytestmark = pytest.mark.containers
ONE = {"eval1": ["one"]}


@fault("N9")
def test_an_sshd_that_restarts_is_called_again_and_its_sessions_go_on(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, {"eval1": ["one"], "eval2": ["two"]}, seconds=3)
    process = job.begin()
    job.await_starts(2)
    listener = network.listeners.pop("eval1")
    os.kill(listener.pid, signal.SIGTERM)
    listener.wait(10)
    network.start_host("eval1")
    network.stop_host("eval2")
    network.start_host("eval2")
    assert finish(process).code == 0
    job.assert_each_ran_once()
    assert [link for link, _ in job.links("eval1")] in ([], ["unreachable", "ok"])
    assert [link for link, _ in job.links("eval2")] == ["unreachable", "ok"]


@fault("N9")
def test_an_sshd_that_takes_one_login_at_a_time_is_asked_again_with_pauses(network: NetnsFarm, tmp_path: Path) -> None:
    network.stop_host("eval1")
    network.start_host("eval1", options=["MaxStartups 1:100:1", "LoginGraceTime 30", "LogLevel VERBOSE"])
    job = NetworkJob(tmp_path, network, ONE)
    with network.inside():
        greedy = socket.create_connection((network.addresses["eval1"], 22), 5)
    greedy.recv(64)
    process = job.begin()
    wait_until(lambda: network.log("eval1").count("drop connection") >= 2)
    greedy.close()
    assert finish(process).code == 0
    job.assert_each_ran_once()


@fault("N9")
def test_many_connections_to_an_sshd_that_refuses_under_load_all_come_about(network: NetnsFarm) -> None:
    network.stop_host("eval1")
    network.start_host("eval1", options=["MaxStartups 2:50:4", "LogLevel VERBOSE"])
    host = load_inventory(network.hosts_file).get("eval1")
    with SshConnector(Defaults()) as connector, ThreadPoolExecutor(6) as pool:

        def there(_: int) -> bool:
            with network.inside():
                return connector.open(host).alive(5)

        assert all(pool.map(there, range(6)))


@fault("H2")
def test_a_host_that_returns_with_another_address_is_the_same_host(network: NetnsFarm, tmp_path: Path) -> None:
    network.lead("eval1", "eval1.test", 22)
    network.resolve({"eval1.test": network.addresses["eval1"]})
    job = NetworkJob(tmp_path, network, ONE, seconds=4)
    process = job.begin()
    job.await_starts(1)
    address = network.move("eval1", 9)
    network.resolve({"eval1.test": address})
    said = finish(process)
    assert said.code == 0, said
    job.assert_each_ran_once()
    assert len(job.attempts("eval1")) == 1
    assert [link for link, _ in job.links("eval1")] == ["unreachable", "ok"]
    assert network.log("eval1").count(f"on {address} port 22") or network.log("eval1").count("10.214.9.1") > 0


@fault("H3")
@attack("S33")
def test_another_machine_at_the_address_is_told_nothing(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, {"eval1": ["one"], "eval2": ["two"]}, seconds=3)
    process = job.begin()
    job.await_starts(2)
    network.stop_host("eval1")
    before = len(network.log("eval1"))
    impostor = network.directory / "sshd" / "impostor.key"
    network.start_host("eval1", key=impostor if impostor.exists() else network.new_key("impostor"), options=["LogLevel DEBUG1"])
    said = finish(process)
    assert said.code & 16, said
    assert dict(job.accepted()) == {"two": 1}
    heard = network.log("eval1")[before:]
    assert "Connection from" in heard
    assert "userauth-request" not in heard, "a login was tried"
    why = job.run("why", "eval1").out
    assert why.count("SHA256:") == 2, why
    assert "fleet trust eval1" in why
    assert job.states()["one/gpt/run1"] == "running", "nothing is known of it, and it is not lost"
    network.stop_host("eval1")
    network.start_host("eval1")
    assert job.dispatch().code == 0
    job.assert_each_ran_once()


@fault("H3")
def test_a_machine_with_a_copied_key_and_another_home_is_not_taken_for_the_host(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, ONE)
    job.hold()
    process = job.begin()
    job.await_starts(1)
    process.send_signal(signal.SIGINT)
    assert finish(process).code == 130
    home = network.homes["eval1"]
    own, other = home / ".fleet", tmp_path / "own-fleet"
    shutil.move(own, other)
    said = job.dispatch(patience_s=1)
    assert said.code & 16, said
    assert job.starts()["one"] == 1
    assert list((own / "attempts").glob("*")) == [], "an attempt was given to another machine"
    assert job.states() == {"one/gpt/run1": "running"}
    assert "another machine answers" in job.run("why", "eval1").out
    shutil.rmtree(own)
    shutil.move(other, own)
    job.let_go()
    assert job.dispatch().code == 0
    job.assert_each_ran_once()


@fault("H9")
def test_an_eval_whose_host_lost_its_sshd_is_collected_when_it_is_back(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, ONE, seconds=1.5)
    process = job.begin()
    job.await_starts(1)
    network.stop_host("eval1")
    job.await_link("eval1", "unreachable")
    process.send_signal(signal.SIGINT)
    said = finish(process)
    assert said.code == 130, said
    wait_until((network.homes["eval1"] / "stops").exists)
    said = job.run("collect", "small")
    assert said.code == 4, said
    assert "eval1" in said.out + said.err
    assert job.states() == {"one/gpt/run1": "running"}, "out of reach is not lost"
    network.start_host("eval1")
    assert job.run("collect", "small").code == 0
    job.assert_each_ran_once()


@fault("H10")
@pytest.mark.parametrize("noise", ["echo NOISE; echo '<<00 {}>>'; printf '%0100000d' 7; echo E >&2", "sleep 0.5"])
def test_a_login_shell_that_talks_or_dawdles_costs_no_eval(network: NetnsFarm, tmp_path: Path, noise: str) -> None:
    job = NetworkJob(tmp_path, network, ONE)
    bashrc = network.homes["eval1"] / ".bashrc"
    process = job.begin()
    wait_until(lambda: any(one["type"] == "attempt" for one in job.journal()))
    bashrc.write_text(noise + "\n")
    if "sleep" in noise:
        assert finish(process).code == 0
    else:
        wait_until(lambda: any(one["type"] == "collect-failed" for one in job.journal()))
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 130
        reason = next(one["reason"] for one in job.journal() if one["type"] == "collect-failed")
        assert ".bashrc" in reason + job.run("why", "one").out
        bashrc.unlink()
        assert job.run("collect", "small").code == 0
    job.assert_each_ran_once()


@fault("H10")
def test_a_login_shell_that_ends_is_named(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, ONE)
    bashrc = network.homes["eval1"] / ".bashrc"
    bashrc.write_text("exec false\n")
    said = job.dispatch()
    assert said.code in (2, 4), said
    assert ".bashrc" in job.run("why", "eval1").out + said.out + said.err
    assert job.starts().total() == 0
    bashrc.unlink()
    assert job.dispatch().code == 0
    job.assert_each_ran_once()
