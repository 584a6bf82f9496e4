"""Packets vanish: before a connection, in the middle of one, one way only, or until a middlebox has forgotten it."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.netns import NetnsFarm
from tests.support.network_job import DETECTED_S, FAST, NetworkJob
from tests.support.operator import finish, wait_until

pytestmark = pytest.mark.containers
ALL = {"eval1": ["one"], "eval2": ["two"], "eval3": ["three"]}


@fault("N1")
def test_a_host_that_swallows_packets_costs_its_own_task_one_timeout(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, ALL)
    network.drop("eval2", "in")
    began = time.monotonic()
    checked = job.run("check")
    assert time.monotonic() - began < FAST["connect_timeout"] + 4
    assert checked.code == 4
    assert "eval2" in checked.out
    assert "did not answer within" in checked.out
    said = job.dispatch()
    assert said.code == 4, said
    assert dict(job.accepted()) == {"one": 1, "three": 1}
    assert job.states()["two/gpt/run1"] == "blocked"
    why = job.run("why", "two")
    assert "eval2" in why.out
    assert "did not answer within" in why.out
    assert "fleet check eval2" in why.out or "fleet dispatch" in why.out
    network.heal("eval2")
    assert job.dispatch().code == 0
    job.assert_each_ran_once()


@fault("N2")
def test_a_server_that_never_speaks_costs_the_banner_timeout(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, ALL)
    network.stop_host("eval2")
    with _mute(network, "eval2"):
        began = time.monotonic()
        said = job.dispatch()
        assert time.monotonic() - began < FAST["banner_timeout"] + 8
        assert said.code == 4, said
        assert "sent no SSH banner" in job.run("why", "eval2").out
    assert dict(job.accepted()) == {"one": 1, "three": 1}
    network.start_host("eval2")
    assert job.dispatch().code == 0
    job.assert_each_ran_once()


@fault("N3")
def test_a_parted_network_is_noticed_and_the_eval_is_followed_again(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, {"eval1": ["one"]}, seconds=4)
    process = job.begin()
    job.await_starts(1)
    network.drop("eval1")
    assert job.await_link("eval1", "unreachable") < DETECTED_S
    assert job.states() == {"one/gpt/run1": "running"}
    wait_until(lambda: (network.homes["eval1"] / "stops").exists())
    assert job.states() == {"one/gpt/run1": "running"}, "an eval that ended unseen is not lost"
    network.heal("eval1")
    said = finish(process)
    assert said.code == 0, said
    job.assert_each_ran_once()
    assert [link for link, _ in job.links("eval1")][-1] == "ok"
    assert not any(one.get("state") == "lost" for one in job.journal())


@fault("N4")
def test_a_launch_whose_answer_is_lost_is_sent_again_under_the_same_id(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, {"eval1": ["one"]}, seconds=3)
    stop = threading.Event()
    markers = network.homes["eval1"] / ".fleet" / "attempts"

    def drop_the_answer() -> None:
        while not stop.is_set():
            if any(markers.glob("*/spec.json")):
                network.drop("eval1", "out")
                return

    watcher = threading.Thread(target=drop_the_answer)
    process = job.begin()
    watcher.start()
    try:
        wait_until(lambda: job.starts()["one"] == 1)
        wait_until(lambda: job.links("eval1")[-1:] and job.links("eval1")[-1][0] == "unreachable")
        assert not any(one["type"] == "started" for one in job.journal()), "the answer was to be lost"
        assert job.states() == {"one/gpt/run1": "launching"}
    finally:
        stop.set()
        watcher.join()
        network.heal("eval1")
    said = finish(process)
    assert said.code == 0, said
    job.assert_each_ran_once()
    intended = [one["attempt"] for one in job.journal() if one["type"] == "attempt"]
    assert job.attempts("eval1") == intended, "one attempt, the one that was journaled first"


@fault("N11")
def test_a_forgotten_connection_is_opened_again_and_the_end_is_known_soon(network: NetnsFarm, tmp_path: Path) -> None:
    job = NetworkJob(tmp_path, network, {"eval1": ["one"]}, seconds=5)
    process = job.begin()
    job.await_starts(1)
    assert network.forget("eval1") >= 1
    ended = network.homes["eval1"] / "stops"
    wait_until(ended.exists)
    known = _seconds_until(lambda: any(one["type"] == "observed" and one["state"] == "finished" for one in job.journal()))
    assert finish(process).code == 0
    assert known < DETECTED_S, "the eval's end became known late"
    assert [link for link, _ in job.links("eval1")] == ["unreachable", "ok"]
    job.assert_each_ran_once()


def _seconds_until(true: object) -> float:
    began = time.monotonic()
    wait_until(true)  # type: ignore[arg-type]
    return time.monotonic() - began


class _mute:
    """A server in a host's namespace that accepts and never speaks."""

    def __init__(self, network: NetnsFarm, name: str) -> None:
        with network.inside_host(name):
            self._listening = socket.create_server(("0.0.0.0", network.port), backlog=16)

    def __enter__(self) -> None:
        """Listen; the kernel accepts."""

    def __exit__(self, *_: object) -> None:
        self._listening.close()
