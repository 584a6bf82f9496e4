"""Two accounts of one machine: an eval of one keeps the other's from starting, and says whose it is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.test_host_machine import PIPELINE
from tests.support.containers import USER, ContainerFleet
from tests.support.datasets import task, write_dataset
from tests.support.operator import Operator, finish, wait_until

SECOND = "colleague"
LET_GO = "[ -e ~/go ]"
ADD = f"""
id {SECOND} >/dev/null 2>&1 || useradd --create-home --uid 1001 --shell /bin/bash --groups docker {SECOND}
usermod -p '*' {SECOND}
install -d -m 700 -o {SECOND} -g {SECOND} /home/{SECOND}/.ssh
install -m 600 -o {SECOND} -g {SECOND} /fleet/authorized_keys /home/{SECOND}/.ssh/authorized_keys
install -d -m 1777 /run/lock
"""


@pytest.fixture
def shared(eval_hosts: ContainerFleet) -> Iterator[ContainerFleet]:
    """Return the hosts, the first of which has a second account that may log in."""
    eval_hosts.exec("eval1", ["bash", "-c", ADD], user="root")
    yield eval_hosts
    eval_hosts.exec("eval1", ["bash", "-c", f"pkill -KILL -u {SECOND}; userdel -r {SECOND}; true"], user="root")


def person(directory: Path, hosts: ContainerFleet, account: str, until: str = "true") -> Operator:
    """Return somebody who knows eval1 by this account, with an assignment of one task that lasts until a command succeeds."""
    folder = directory / account
    (folder / "remote_scripts" / "script").mkdir(parents=True)
    (folder / "remote_scripts" / "script" / "pipeline.yaml").write_text(PIPELINE)
    (folder / "ssh_config").write_text(hosts.ssh_config.read_text().replace(f"User {USER}", f"User {account}"))
    (folder / "hosts.yaml").write_text(
        'defaults:\n  alias: "aws-instance-{name}"\n  pipeline: script\n  ssh_config: ssh_config\n'
        f"  known_hosts: {hosts.known_hosts}\nhosts:\n  eval1: {{}}\n"
    )
    script = f"mkdir -p ~/work; echo 'echo $FLEET_ATTEMPT >> ~/starts; until {until}; do sleep 0.1; done' > ~/eval.sh"
    hosts.shell("eval1", script, user=account)
    write_dataset(folder / "one-1.jsonl", "one-1")
    (folder / "phase8.json").write_text(json.dumps({"eval1": [task("one-1", "gpt", "one-1.jsonl")]}))
    return Operator(folder, folder / "hosts.yaml")


def starts(hosts: ContainerFleet, account: str) -> int:
    return len(hosts.shell("eval1", "cat ~/starts 2>/dev/null || true", user=account).split())


def test_one_accounts_eval_keeps_the_others_from_starting_and_is_named(tmp_path: Path, shared: ContainerFleet) -> None:
    mine, theirs = person(tmp_path, shared, USER), person(tmp_path, shared, SECOND, LET_GO)
    running = theirs.start("dispatch", theirs.directory / "phase8.json")
    wait_until(lambda: starts(shared, SECOND) == 1)
    said = mine.run("dispatch", mine.directory / "phase8.json", "--patience", "0")
    assert said.code == 64, said.err
    pids = shared.shell("eval1", f"pgrep -u {SECOND} fleet-sup").split()
    (named,) = re.findall(
        rf"another account of this machine runs an eval of fleet: {SECOND} \(uid 1001, pid (\d+)\)",
        mine.run("why", "one-1").out,
    )
    assert named in pids
    assert mine.states() == {"one-1/gpt/run1": "blocked"}
    assert starts(shared, USER) == 0
    # Nothing is left over from it: when that eval has ended, the kernel has let go of its lock.
    shared.shell("eval1", "touch ~/go", user=SECOND)
    finish(running)
    assert mine.run("dispatch", mine.directory / "phase8.json").code == 2, "it ran, and left no output"
    assert (starts(shared, USER), starts(shared, SECOND)) == (1, 1)


def test_an_account_that_lost_its_fleet_directory_still_keeps_the_other_out(tmp_path: Path, shared: ContainerFleet) -> None:
    mine, theirs = person(tmp_path, shared, USER), person(tmp_path, shared, SECOND, LET_GO)
    running = theirs.start("dispatch", theirs.directory / "phase8.json")
    wait_until(lambda: starts(shared, SECOND) == 1)
    shared.shell("eval1", "rm -rf ~/.fleet; pkill -KILL fleet-sup; true", user=SECOND)
    said = mine.run("dispatch", mine.directory / "phase8.json", "--patience", "0")
    assert (said.code, starts(shared, USER)) == (64, 0), said.err
    running.kill()
    finish(running)


@pytest.mark.parametrize(
    "squat",
    [
        "ln -s /etc/passwd /run/lock/fleet-eval-{uid}",
        "mkfifo /run/lock/fleet-eval-{uid}",
        "mkdir /run/lock/fleet-eval-{uid}",
        "touch /run/lock/fleet-eval-{uid}; chmod 600 /run/lock/fleet-eval-{uid}; "
        "setsid flock /run/lock/fleet-eval-{uid} sleep 30 >/dev/null 2>&1 &",
        "touch /run/lock/fleet-eval-4242; setsid flock /run/lock/fleet-eval-4242 sleep 30 >/dev/null 2>&1 &",
    ],
    ids=["a link", "a pipe", "a directory", "another's file in our name", "a file in a third one's name"],
)
def test_what_another_account_puts_in_the_way_stops_nobody(tmp_path: Path, shared: ContainerFleet, squat: str) -> None:
    shared.exec("eval1", ["bash", "-c", "rm -rf /run/lock/fleet-eval-*"], user="root")
    shared.shell("eval1", squat.format(uid=1000), user=SECOND)
    mine = person(tmp_path, shared, USER)
    try:
        assert mine.run("dispatch", mine.directory / "phase8.json").code == 2
        assert starts(shared, USER) == 1
    finally:
        shared.exec("eval1", ["bash", "-c", "rm -rf /run/lock/fleet-eval-*"], user="root")
