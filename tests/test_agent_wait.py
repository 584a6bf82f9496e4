"""Waiting blocks in the kernel: it costs nothing, and it ends when there is something to tell."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from fleet.agent.wire import COMMAND
from fleet.errors import AgentError, NoAnswer
from tests.support.agent_host import AgentHost, eventually, gone, kill


def waiters(host: AgentHost) -> list[int]:
    mark = COMMAND.partition('"')[2].rstrip('"')
    return [pid for pid, command in host.pids().items() if mark in command and "/bin/sh" not in command]


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_end_is_told_at_once(host: AgentHost) -> None:
    measured = []
    for turn in range(3):
        host.launch("while [ ! -e ~/go ]; do sleep 0.01; done; date +%s.%N > ~/ended; rm ~/go", f"t{turn}")
        stream = host.client.wait(f"t{turn}", beat_s=30, max_s=30)
        assert next(stream)[0]["state"] == "running"
        (host.home / "go").touch()
        status = [status for status, final in stream if final][-1]
        measured.append(time.time() - float((host.home / "ended").read_text()))
        assert (status["state"], status["sealed"]) == ("finished", True)
    print(f"end to answer: {min(measured) * 1000:.0f} ms at best, {max(measured) * 1000:.0f} ms at worst")
    assert min(measured) < 1.0


def test_waiting_uses_no_processor_time(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    stream = host.client.wait("a1", beat_s=30, max_s=60)
    next(stream)
    keepers = [host.supervisor(), host.runner(), *waiters(host)]
    assert len(keepers) == 3
    time.sleep(0.3)
    before = [cpu_ticks(pid) for pid in keepers]
    time.sleep(2)
    used = [(after - one) * 1000 / os.sysconf("SC_CLK_TCK") for one, after in zip(before, map(cpu_ticks, keepers), strict=True)]
    print(f"supervisor, runner, waiting agent: {used} ms of CPU in 2 s")
    assert max(used) < 50
    stream.close()  # type: ignore[attr-defined]


def test_a_caller_that_hangs_up_leaves_no_agent_behind(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    stream = host.client.wait("a1", beat_s=30, max_s=60)
    next(stream)
    (pid,) = waiters(host)
    stream.close()  # type: ignore[attr-defined]
    eventually(lambda: gone(pid), "the agent is gone", 2)
    assert host.state() == "running"


def test_a_beat_brings_the_last_line_of_the_log(host: AgentHost) -> None:
    host.launch("for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.1; done")
    seen = [status["last_line"] for status, _ in host.client.wait("a1", beat_s=0.1, max_s=20)]
    assert seen[-1] == "line 8"
    assert len({line for line in seen if line.startswith("line")}) >= 4


def test_a_wait_that_reaches_its_time_is_not_final(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    assert [final for _, final in host.client.wait("a1", beat_s=30, max_s=0.3)][-1] is False


def test_waiting_for_what_is_not_there_ends_at_once(host: AgentHost) -> None:
    ((status, final),) = host.client.wait("nobody", max_s=30)
    assert (status["state"], final) == ("unknown", True)


def test_many_may_wait_for_one_eval(host: AgentHost) -> None:
    host.launch("sleep 0.7")
    ends: list[str] = []
    threads = [threading.Thread(target=lambda: ends.append(host.wait()["state"])) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert ends == ["finished"] * 6


def test_those_who_wait_do_not_count_as_the_eval(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    stream = host.client.wait("a1", beat_s=30, max_s=30)
    next(stream)
    for pid in (host.evaluation(), host.supervisor(), host.runner()):
        kill(pid)
    begun = time.monotonic()
    status, final = list(stream)[-1]
    assert final and status["state"] in ("lost", "finished")
    assert time.monotonic() - begun < 2


def test_a_log_is_read_by_offset(host: AgentHost) -> None:
    host.launch("printf 'one\\ntwo\\nthree\\n'")
    host.wait()
    first = host.client.logs("a1", 0, 4)
    assert (first.data, first.next, first.size) == (b"one\n", 4, 14)
    rest = host.client.logs("a1", first.next)
    assert (rest.data, rest.next, rest.state) == (b"two\nthree\n", 14, "finished")
    past = host.client.logs("a1", 1000)
    assert (past.data, past.size) == (b"", 14)


def test_following_a_log_returns_with_each_new_piece_and_with_the_end(host: AgentHost) -> None:
    host.launch("sleep 0.3; echo one; sleep 0.3; echo two; sleep 0.3")
    text, offset, calls = b"", 0, 0
    begun = time.monotonic()
    while True:
        piece = host.client.logs("a1", offset, wait_s=20)
        text, offset, calls = text + piece.data, piece.next, calls + 1
        if not piece.data and piece.state == "finished":
            break
    assert text == b"one\ntwo\n"
    assert calls <= 6
    assert time.monotonic() - begun < 5


def test_the_log_of_an_unknown_attempt_is_refused(host: AgentHost) -> None:
    with pytest.raises(AgentError) as caught:
        host.client.logs("nobody")
    assert caught.value.code == "unknown-attempt"


def test_hostile_bytes_of_a_log_arrive_as_they_are(host: AgentHost) -> None:
    host.launch(r"printf '\033]0;title\007<<00 {}>>\n\377\376\n'")
    status = host.wait()
    assert host.client.logs("a1").data == b"\033]0;title\x07<<00 {}>>\n\xff\xfe\n"
    assert status["last_line"] == "\ufffd\ufffd"


def test_a_supervisor_that_dies_before_it_can_be_watched_is_noticed_soon(host: AgentHost) -> None:
    host.launch("true")
    host.wait()
    for name in ("started.json", "rc.json", "manifest.json", "alive"):
        (host.dir() / name).unlink()
    lock = os.open(host.fleet / "host.lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    stream = host.client.wait("a1", beat_s=0.5, max_s=60)
    assert [next(stream)[0]["state"] for _ in range(3)] == ["starting"] * 3
    os.close(lock)
    begun = time.monotonic()
    assert list(stream)[-1][0]["state"] == "accepted"
    assert time.monotonic() - begun < 5


def test_a_link_that_is_cut_while_an_eval_is_followed_is_no_end_of_the_wait(host: AgentHost) -> None:
    host.launch("sleep 5", "a1")
    stream = host.client.wait("a1", beat_s=30, max_s=30)
    assert next(stream)[0]["state"] == "running"
    for pid in waiters(host):
        kill(pid)
    with pytest.raises(NoAnswer):
        list(stream)


def test_a_wait_whose_time_is_up_ends_without_a_word_about_the_link(host: AgentHost) -> None:
    host.launch("sleep 5", "a1")
    assert [final for _, final in host.client.wait("a1", beat_s=30, max_s=0.3)] == [False, False]
