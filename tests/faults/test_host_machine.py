"""Faults of a whole machine: reboot, disk, memory, a hung tree, missing programs; on hosts with their own sshd and engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.catalogue import fault
from tests.support.containers import USER, ContainerFleet
from tests.support.datasets import task, write_dataset
from tests.support.operator import Operator, finish, wait_until
from tests.test_dispatch_main_job import one_task, operator, starts

__all__ = ["operator"]

LABEL = "one-1/gpt/run1"
PIPELINE = """
schema: fleet.pipeline/1
name: script
workdir: ~/work
command: [bash, ../eval.sh, "{output_dir}"]
readiness:
  docker: true
  disk: {max_used_percent: 95, min_free_gb: 0.1, min_free_inodes: 100}
  min_free_memory_gb: 0
outputs: {root: "{output_dir}"}
cleanup: {grace_s: 1}
stall_after_s: 1
"""
NEW_BOOT = "11111111-2222-3333-4444-555555555555"


def scripted(operator: Operator, hosts: ContainerFleet, name: str, script: str, *instances: str) -> Path:
    """Write an assignment for one host whose evals are `script`, each noting its start in ~/starts."""
    folder = operator.directory / "remote_scripts" / "script"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(PIPELINE)
    hosts.put(name, f"echo $FLEET_ATTEMPT >> ~/starts\n{script}\n".encode(), "eval.sh")
    hosts.shell(name, "mkdir -p ~/work")
    directory = operator.directory / "assignments"
    entries = []
    for instance in instances or ("one-1",):
        write_dataset(directory / f"{instance}.jsonl", instance)
        entries.append(task(instance, "gpt", f"{instance}.jsonl", pipeline="script"))
    path = directory / "phase8.json"
    path.write_text(json.dumps({name: entries}))
    return path


@pytest.fixture
def scripts(tmp_path: Path, eval_hosts: ContainerFleet) -> Operator:
    """Return an operator whose hosts run the pipeline `script`."""
    text = eval_hosts.hosts_file.read_text().replace("pipeline: openhands", "pipeline: script")
    for name in ("ssh_config", "known_hosts"):
        text = text.replace(f"{name}: {name}", f"{name}: {eval_hosts.directory / name}")
    tmp_path.joinpath("hosts.yaml").write_text(text)
    return Operator(tmp_path, tmp_path / "hosts.yaml")


def begun(hosts: ContainerFleet, name: str) -> int:
    """Return how many evals the host itself has seen start."""
    return len(hosts.read(name, "starts").split())


def records(operator: Operator, kind: str) -> list[dict[str, Any]]:
    return [record for record in operator.journal() if record["type"] == kind]


def root(hosts: ContainerFleet, name: str, script: str) -> str:
    return hosts.exec(name, ["bash", "-c", script], user="root").stdout.decode()


def reboot(hosts: ContainerFleet, name: str) -> None:
    """Stop and start a host: every process gone, the disk as it was, and a boot id as the kernel would have made it."""
    root(hosts, name, f"pkill -KILL -u {USER}; true")
    hosts.stop_docker(name)
    # What a kernel's start leaves of /run: nothing. Stale pid files of the engine would have it wait for others.
    root(hosts, name, "umount -l /run/docker/netns/* 2>/dev/null; rm -rf /run/docker* /run/containerd /run/eval-host-ready")
    hosts.restart(name)
    root(hosts, name, f"echo {NEW_BOOT} > /tmp/boot; mount --bind /tmp/boot /proc/sys/kernel/random/boot_id")
    root(hosts, name, "for _ in $(seq 500); do [ -e /run/eval-host-ready ] && exit; sleep 0.1; done; exit 1")


@pytest.fixture
def rebooted(eval_hosts: ContainerFleet) -> Iterator[ContainerFleet]:
    yield eval_hosts
    root(eval_hosts, "eval1", "umount /proc/sys/kernel/random/boot_id || true")


@fault("H1")
def test_a_reboot_loses_the_attempt_and_nothing_else(operator: Operator, rebooted: ContainerFleet) -> None:
    hosts = rebooted
    hosts.switch("eval1", "*", {"seconds": 0.3})
    hosts.switch("eval1", "one-1", {"seconds": 60})
    path = one_task(operator.directory)
    document = json.loads(path.read_text())
    write_dataset(path.parent / "d2.jsonl", "two-2")
    document["eval1"].append(task("two-2", "gpt", "d2.jsonl"))
    path.write_text(json.dumps(document))
    running = operator.start("dispatch", path)
    wait_until(lambda: bool(hosts.containers("eval1")))
    partial = "SWETEs7/OpenHands/evaluation/evaluation_outputs/outputs/x/y"
    row = '{"instance_id": "one-1", "test_result": {"git_patch": ""}}'
    hosts.shell("eval1", f"mkdir -p {partial}; echo '{row}' > {partial}/output.jsonl")
    running.kill()
    finish(running)
    reboot(hosts, "eval1")
    said = operator.run("dispatch", path)
    assert said.code == 4, said.err
    assert operator.states() == {LABEL: "lost", "two-2/gpt/run1": "accepted"}
    assert [one["reason"] for one in records(operator, "observed") if one["state"] == "lost"] == [
        "the host rebooted during the eval"
    ]
    # What it had written is here, its container is gone, and the host was looked at again before it got the next task.
    salvaged = operator.collected / "phase8" / LABEL / "attempt1"
    assert json.loads((salvaged / "output.jsonl").read_text())["instance_id"] == "one-1"
    kinds = [record["type"] for record in operator.journal()]
    lost = next(at for at, one in enumerate(operator.journal()) if one["type"] == "observed" and one["state"] == "lost")
    assert "host" in kinds[lost : len(kinds) - kinds[::-1].index("attempt")]
    assert hosts.containers("eval1") == []
    assert "rebooted" in operator.run("why", "one-1").out and "fleet retry" in operator.run("why", "one-1").out
    # Nothing runs again by itself.
    assert operator.run("dispatch", path).code == 4
    assert starts(hosts) == {"one-1/gpt": 1, "two-2/gpt": 1}
    hosts.switch("eval1", "one-1", {"seconds": 0.3})
    assert operator.run("retry", "one-1").code == 0
    assert operator.run("dispatch", path).code == 0
    assert starts(hosts) == {"one-1/gpt": 2, "two-2/gpt": 1}


@pytest.fixture
def small_home(eval_hosts: ContainerFleet) -> Iterator[ContainerFleet]:
    """Give eval2 a home of 420 MB on a disk of its own."""
    home = f"/home/{USER}"
    mount = f"mount -t tmpfs -o size=420m,mode=755,uid=1000,gid=1000 home {home}"
    root(eval_hosts, "eval2", f"cp -a {home}/.ssh /tmp/keep; {mount}; cp -a /tmp/keep {home}/.ssh")
    try:
        yield eval_hosts
    finally:
        root(
            eval_hosts,
            "eval2",
            f"pkill -KILL -u {USER}; umount -l {home}/.fleet 2>/dev/null; umount -l {home}; rm -r /tmp/keep",
        )


@fault("H4")
def test_a_disk_that_an_eval_fills_costs_neither_its_end_nor_the_next_task(
    scripts: Operator, small_home: ContainerFleet
) -> None:
    fill = 'head -c 1G /dev/zero > ~/filler\necho "{}" > "$1/output.jsonl" || exit 9'
    path = scripted(scripts, small_home, "eval2", fill, "one-1", "two-2")
    said = scripts.run("dispatch", path)
    assert said.code == 2, said.err
    assert scripts.states() == {LABEL: "rejected", "two-2/gpt/run1": "blocked"}
    (ended,) = [one for one in records(scripts, "observed") if one["state"] == "finished"]
    assert ended["rc"] == 9
    assert small_home.shell("eval2", "ls ~/.fleet/attempts/*/rc.json ~/.fleet/attempts/*/manifest.json").count("\n") == 2
    assert small_home.shell("eval2", "ls ~/.fleet").split().count("reserve") == 0
    (judged,) = records(scripts, "judged")
    assert judged["cause"] == "environment" and judged["reasons"][0]["code"] == "host-failed"
    assert "No space left" in (scripts.collected / "phase8" / LABEL / "attempt1" / "fleet.log").read_text()
    why = scripts.run("why", "eval2").out
    assert "disk of" in why and "fleet check eval2" in why
    assert "never prunes" in scripts.run("check", "eval2").out
    assert begun(small_home, "eval2") == 1
    small_home.shell("eval2", "rm ~/filler")
    small_home.put("eval2", b"echo again >> ~/starts\n", "eval.sh")
    assert scripts.run("dispatch", path).code == 2
    assert begun(small_home, "eval2") == 2
    assert scripts.states()["two-2/gpt/run1"] == "rejected"


@fault("H5")
@fault("H6")
def test_a_disk_without_space_inodes_or_writing_takes_no_attempt(scripts: Operator, small_home: ContainerFleet) -> None:
    hosts, home = small_home, f"/home/{USER}"
    path = scripted(scripts, hosts, "eval2", "true")
    assert scripts.run("check", "eval2").code == 0

    def refused(*words: str) -> None:
        said = scripts.run("dispatch", path)
        assert said.code == 2, said.err
        assert scripts.states() == {LABEL: "blocked"}
        why = scripts.run("why", "eval2").out
        assert all(word in why for word in words), why
        assert records(scripts, "attempt") == []

    hosts.shell("eval2", "head -c 1G /dev/zero > ~/filler || true")
    refused("disk", "used", "df -h")
    hosts.shell("eval2", "rm ~/filler")
    root(hosts, "eval2", f"used=$(df --output=iused {home} | tail -1); mount -o remount,nr_inodes=$((used + 50)) {home}")
    refused("inodes free", "100 needed")
    root(hosts, "eval2", f"mount -o remount,nr_inodes=100000 {home}; mount -o remount,ro {home}")
    refused("cannot be used for fleet's records", "mount | grep")
    root(hosts, "eval2", f"mount -o remount,rw {home}")
    assert scripts.run("dispatch", path).code == 2
    assert scripts.states() == {LABEL: "rejected"}
    assert begun(hosts, "eval2") == 1


@fault("H6")
def test_an_eval_whose_records_cannot_be_written_is_known_by_its_lock(scripts: Operator, small_home: ContainerFleet) -> None:
    hosts, home = small_home, f"/home/{USER}"
    path = scripted(scripts, hosts, "eval2", 'echo "{}" > "$1/output.jsonl"; until [ -e ~/go ]; do sleep 0.1; done; exit 3')
    running = scripts.start("dispatch", path)
    wait_until(lambda: begun(hosts, "eval2") == 1)
    running.kill()
    finish(running)
    root(hosts, "eval2", f"mount --bind {home}/.fleet {home}/.fleet; mount -o remount,bind,ro {home}/.fleet")
    status = scripts.run("status", "--json").json
    assert [row["state"] for row in status["hosts"]] == ["running"]
    hosts.shell("eval2", "touch ~/go")
    wait_until(lambda: scripts.run("status", "--json").json["hosts"][0]["state"] != "running")
    root(hosts, "eval2", f"umount {home}/.fleet")
    said = scripts.run("dispatch", path)
    assert said.code & 4, said.err
    assert scripts.states() == {LABEL: "lost"}
    assert (scripts.collected / "phase8" / LABEL / "attempt1" / "output.jsonl").read_text() == "{}\n"
    assert begun(hosts, "eval2") == 1


@fault("H7")
def test_a_container_over_its_memory_ends_with_137_and_the_question_why(scripts: Operator, eval_hosts: ContainerFleet) -> None:
    eater = "docker run --rm -m 64m --network none fleet-eval-base:latest sh -c 'x=0123456789; while :; do x=$x$x; done'"
    path = scripted(scripts, eval_hosts, "eval3", eater)
    assert scripts.run("dispatch", path).code == 2
    (ended,) = [one for one in records(scripts, "observed") if one["state"] == "finished"]
    assert ended["rc"] == 137, eval_hosts.shell("eval3", "cat ~/.fleet/attempts/*/log")
    assert "out of memory?" in ended["reason"] and "kernel log" in ended["reason"]
    assert begun(eval_hosts, "eval3") == 1


@fault("H8")
def test_a_hung_tree_is_shown_as_stalled_keeps_its_host_and_ends_by_a_cancel(
    scripts: Operator, eval_hosts: ContainerFleet, tmp_path: Path
) -> None:
    path = scripted(scripts, eval_hosts, "eval4", "sleep 600")
    running = scripts.start("dispatch", path)
    wait_until(lambda: begun(eval_hosts, "eval4") == 1)
    stop = "for p in $(pgrep -u ubuntu -f 'fleet_host.supervise|eval.sh|sleep 600'); do kill -STOP $p; done"
    root(eval_hosts, "eval4", stop)
    wait_until(lambda: bool(records(scripts, "stalled")), every_s=0.5)
    status = scripts.run("status", "--json").json
    assert [row["state"] for row in status["hosts"]] == ["stalled"]
    assert "STALLED" in scripts.run("why", "one-1").out
    other = Operator(tmp_path / "other", eval_hosts.hosts_file)
    assert other.run("dispatch", one_task(other.directory, place="eval4", instance="two-2")).code == 64
    assert begun(eval_hosts, "eval4") == 1
    cancelled = scripts.run("cancel", "one-1", "--yes", "--grace", "1", "--json")
    assert cancelled.code == 0, cancelled.out + cancelled.err
    assert cancelled.json["cancelled"][0]["processes_left"] == 0
    assert finish(running).code == 2
    assert scripts.states() == {LABEL: "cancelled"}
    assert root(eval_hosts, "eval4", "pgrep -cu ubuntu -f 'supervise|sleep 600' || true").strip() == "0"


@fault("H11")
def test_every_missing_program_is_listed_at_once(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory, place="eval3")
    programs = root(eval_hosts, "eval3", "which rsync docker python3").split()
    with away(eval_hosts, "eval3", programs[:2]):
        check = operator.run("check", "eval3", "--json")
        assert check.code == 2
        failing = {one["check"]: one for one in check.json["hosts"][0]["findings"] if one["mark"] == "fail"}
        said = json.dumps(failing)
        assert "rsync" in said and "docker" in said and "apt install" in said
        assert operator.run("dispatch", path).code == 2
        assert operator.states() == {LABEL: "blocked"}
    with away(eval_hosts, "eval3", programs[2:]):
        check = operator.run("check", "eval3")
        assert check.code != 0 and "python3" in check.out + check.err
    assert records(operator, "attempt") == []
    assert operator.run("dispatch", path).code == 0


class away:
    """Take programs away from a host for a while."""

    def __init__(self, hosts: ContainerFleet, name: str, programs: Sequence[str]) -> None:
        self.hosts, self.name, self.programs = hosts, name, programs

    def __enter__(self) -> None:
        root(self.hosts, self.name, "; ".join(f"mv {one} {one}.away" for one in self.programs))

    def __exit__(self, *_: object) -> None:
        root(self.hosts, self.name, "; ".join(f"mv {one}.away {one}" for one in self.programs))


@fault("E4")
def test_what_cannot_be_ended_is_named_and_holds_the_host_until_somebody_else_ends_it(
    scripts: Operator, eval_hosts: ContainerFleet, tmp_path: Path
) -> None:
    # Root's own program, started by the eval: its user may not signal it, and it shows no mark once its parents are gone.
    root(eval_hosts, "eval3", "cp $(readlink -f /usr/bin/python3) /usr/local/bin/rootpy; chmod 4755 /usr/local/bin/rootpy")
    become = "import os\nos.setuid(0)\nos.execv('/bin/sleep', ['rootly', '600'])\n"
    eval_hosts.put("eval3", become.encode(), "become.py")
    leave = 'echo "{}" > "$1/output.jsonl"; setsid rootpy -IS ~/become.py >/dev/null 2>&1 & sleep 0.5'
    path = scripted(scripts, eval_hosts, "eval3", leave)
    said = scripts.run("dispatch", path)
    assert said.code == 4, said.err
    assert scripts.states() == {LABEL: "held"}
    why = scripts.run("why", "one-1").out
    assert "rootly 600" in why and "fleet cancel" in why
    cancelled = scripts.run("cancel", "one-1", "--yes", "--grace", "1")
    assert cancelled.code == 4 and "could not be ended" in cancelled.out
    other = Operator(tmp_path / "other", eval_hosts.hosts_file)
    second = one_task(other.directory, place="eval3", instance="two-2", seconds=0.3)
    blocked = other.run("dispatch", second)
    assert blocked.code == 4, blocked.err
    assert "rootly 600" in other.run("why", "two-2").out + other.run("why", "eval3").out
    root(eval_hosts, "eval3", "pkill -f '[r]ootly 600'; rm /usr/local/bin/rootpy")
    assert other.run("dispatch", second).code == 0
    assert scripts.run("dispatch", path).code == 2
    assert scripts.states() == {LABEL: "rejected"}
    assert begun(eval_hosts, "eval3") == 1
