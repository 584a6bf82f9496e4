"""A cancel ends everything of one attempt, proves it, and touches nothing else."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.errors import AgentError
from tests.support.agent_host import AgentHost, agent_host, eventually, gone, kill

DOCKER = """#!/usr/bin/python3
import json, os, sys
home = os.environ["HOME"]
path = os.path.join(home, "containers.json")
if os.path.exists(os.path.join(home, "docker-down")):
    sys.exit("Cannot connect to the Docker daemon")
known = json.load(open(path)) if os.path.exists(path) else []
def keep(names):
    json.dump(names, open(path + ".new", "w"))
    os.replace(path + ".new", path)
if sys.argv[1] == "ps":
    for one in known:
        print(json.dumps({"ID": one, "Names": one, "Image": "image", "State": "running", "Labels": "", "CreatedAt": ""}))
elif sys.argv[1] == "run":
    keep([*known, sys.argv[2]])
elif sys.argv[1] == "rm":
    keep([one for one in known if one not in sys.argv[3:]])
"""
"""A docker whose containers are a list in a file; the real engine is tested on the container hosts."""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AgentHost]:
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    (bin_directory / "docker").write_text(DOCKER)
    (bin_directory / "docker").chmod(0o755)
    monkeypatch.setattr("fleet.testing.local._PATH", f"{bin_directory}:/usr/local/bin:/usr/bin:/bin")
    with agent_host(tmp_path / "eval1") as one:
        yield one


def refusal(host: AgentHost, attempt: str = "a1", epoch: int | None = 1, grace_s: float = 1) -> AgentError:
    with pytest.raises(AgentError) as caught:
        host.client.cancel(attempt, epoch, grace_s)
    return caught.value


def containers(host: AgentHost) -> list[str]:
    path = host.home / "containers.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def with_docker(**changes: Any) -> dict[str, Any]:
    return {"preflight": {"docker": True}, "cleanup": {"processes": "kill", "containers": "keep", "grace_s": 1}} | changes


def test_a_cancel_ends_the_tree_and_says_what_it_ended(host: AgentHost) -> None:
    host.launch("setsid sleep 61 & env -i setsid sleep 62 & exec sleep 63")
    host.await_start()
    answer = host.client.cancel("a1", 1, 5)
    assert (answer["outcome"], answer["processes_left"], answer["containers_left"]) == ("cancelled", 0, 0)
    status = answer["status"]
    assert (status["state"], status["cancelled"], status["sealed"], status["rc"]) == ("finished", True, True, 143)
    assert not [one for one in host.pids().values() if "sleep" in one]
    assert host.launch("true", "b1")["outcome"] == "started"


def test_a_cancel_sent_again_changes_nothing(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    host.await_start()
    first = host.client.cancel("a1", 1, 5)["status"]
    again = host.client.cancel("a1", 1, 5)
    assert again["outcome"] == "already-over"
    assert again["status"] == first


def test_a_cancel_gives_the_time_that_it_names_not_the_pipelines(host: AgentHost) -> None:
    host.launch("trap '' TERM; while :; do sleep 0.1; done", cleanup={"grace_s": 30})
    host.await_start()
    begun = time.monotonic()
    answer = host.client.cancel("a1", 1, 0.5)
    assert time.monotonic() - begun < 5
    assert (answer["status"]["rc"], answer["status"]["cancelled"]) == (137, True)


def test_a_stale_epoch_is_refused_and_nothing_is_ended(host: AgentHost) -> None:
    host.launch("exec sleep 60")
    assert refusal(host, epoch=7).code == "stale-epoch"
    assert host.state() == "running"


def test_an_unknown_attempt_cannot_be_cancelled(host: AgentHost) -> None:
    assert refusal(host, "nobody", None).code == "unknown-attempt"


def test_a_finished_attempt_keeps_how_it_ended(host: AgentHost) -> None:
    host.launch("exit 3")
    host.wait()
    answer = host.client.cancel("a1", 1)
    assert answer["outcome"] == "already-over"
    assert (answer["status"]["rc"], answer["status"]["cancelled"]) == (3, False)


def test_a_taken_attempt_that_was_cancelled_never_starts(host: AgentHost) -> None:
    host.launch("true")
    host.wait()
    for name in ("started.json", "rc.json", "manifest.json"):
        (host.dir() / name).unlink()
    assert host.state() == "accepted"
    answer = host.client.cancel("a1", 1)
    assert (answer["status"]["state"], answer["status"]["cancelled"]) == ("finished", True)
    assert host.launch("true")["outcome"] == "already"
    assert host.starts() == ["a1"]


def test_a_lost_attempt_is_swept_and_stays_lost(host: AgentHost) -> None:
    child = "import subprocess;subprocess.Popen(['sleep','60'],start_new_session=True)"
    host.launch(f'python3 -c "{child}"; exec sleep 61')
    host.await_start()
    eventually(lambda: sum(one.startswith("sleep 6") for one in host.pids().values()) == 2, "both sleep")
    for pid in (host.supervisor(), host.runner()):
        kill(pid)
    kill(next(pid for pid, command in host.pids().items() if command.startswith("sleep 61")))
    eventually(lambda: host.state() == "lost", "it is lost")
    answer = host.client.cancel("a1", 1)
    assert (answer["outcome"], answer["processes_ended"], answer["status"]["state"]) == ("already-over", 1, "lost")


def test_without_a_supervisor_the_runner_is_told(host: AgentHost) -> None:
    host.launch("trap 'exit 6' TERM; sleep 60 & wait")
    host.await_start()
    kill(host.supervisor())
    answer = host.client.cancel("a1", 1, 5)
    assert (answer["status"]["rc"], answer["status"]["cancelled"]) == (6, True)


def test_without_both_the_eval_itself_is_ended(host: AgentHost) -> None:
    host.launch("trap '' TERM; while :; do sleep 0.1; done")
    host.await_start()
    pids = [host.supervisor(), host.runner()]
    for pid in pids:
        kill(pid)
    eventually(lambda: all(map(gone, pids)), "both are gone")
    answer = host.client.cancel("a1", 1, 0.5)
    assert (answer["status"]["state"], answer["status"]["cancelled"]) == ("finished", True)
    assert "exit code was lost" in answer["status"]["reason"]
    assert host.lock()["state"] == "free"


def test_a_stopped_eval_can_be_cancelled(host: AgentHost) -> None:
    host.launch("kill -STOP $$; sleep 60")
    host.await_start()
    answer = host.client.cancel("a1", 1, 0.5)
    assert (answer["outcome"], answer["status"]["rc"]) == ("cancelled", 137)


def test_a_cancel_during_the_launch_ends_the_eval_or_prevents_it(host: AgentHost) -> None:
    prevented = 0
    for turn in range(8):
        attempt, refused = f"t{turn}", []

        def launch(attempt: str = attempt, refused: list[str] = refused) -> None:
            try:
                host.launch("exec sleep 60", attempt)
            except AgentError as error:
                refused.append(error.message)

        thread = threading.Thread(target=launch)
        thread.start()
        time.sleep(turn * 0.012)
        try:
            host.client.cancel(attempt, None, 5)
        except AgentError as error:
            assert error.code == "unknown-attempt", error
            thread.join()
            assert "cancelled before it arrived" in refused[0]
            assert host.state(attempt) == "refused"
            prevented += 1
        else:
            thread.join()
            status = host.status(attempt)
            assert (status["state"], status["cancelled"]) == ("finished", True)
        assert not [one for one in host.pids().values() if "sleep" in one]
    print(f"{prevented} of 8 launches were forestalled")
    assert prevented < 8 or not host.starts()


def test_containers_of_the_attempt_are_removed_and_older_ones_are_not(host: AgentHost) -> None:
    (host.home / "containers.json").write_text('["database"]')
    host.launch("docker run mine; exec sleep 60", **with_docker())
    eventually(lambda: "mine" in containers(host), "the container runs")
    assert host.client.cancel("a1", 1, 5)["containers_removed"] == ["mine"]
    assert containers(host) == ["database"]


def test_cancelling_an_old_attempt_leaves_the_containers_of_the_running_one(host: AgentHost) -> None:
    host.launch("true", **with_docker())
    host.wait()
    host.launch("docker run theirs; exec sleep 60", "b1", **with_docker())
    eventually(lambda: "theirs" in containers(host), "the container runs")
    assert host.client.cancel("a1", 1)["containers_removed"] == []
    assert containers(host) == ["theirs"]
    assert host.state("b1") == "running"


def test_a_leftover_container_refuses_the_next_eval_until_it_is_cancelled(host: AgentHost) -> None:
    host.launch("docker run mine", **with_docker())
    assert [one["id"] for one in host.wait()["leftovers"]["containers"]] == ["mine"]
    with pytest.raises(AgentError, match="container mine is left over from attempt a1"):
        host.launch("true", "b1", **with_docker())
    host.client.cancel("a1", 1)
    assert host.launch("true", "b1", **with_docker())["outcome"] == "started"


def test_a_docker_that_gives_no_answer_is_never_reported_as_no_containers_left(host: AgentHost) -> None:
    host.launch("docker run mine; touch ~/docker-down; exec sleep 60", **with_docker())
    eventually(lambda: (host.home / "docker-down").exists(), "docker is down")
    error = refusal(host)
    assert error.code == "held" and "Cannot connect" in error.message
    assert host.state() == "finished"
    os.unlink(host.home / "docker-down")
    with pytest.raises(AgentError, match="left over from attempt a1"):
        host.launch("true", "b1", **with_docker())
    assert host.client.cancel("a1", 1)["containers_removed"] == ["mine"]
    assert host.launch("true", "b1", **with_docker())["outcome"] == "started"
