"""Faults of the Docker engine, its containers and its images, on hosts that have an engine of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.catalogue import attack, fault
from tests.support.containers import ContainerFleet
from tests.support.datasets import task, write_dataset
from tests.support.operator import Operator, finish, wait_until
from tests.test_dispatch_main_job import assert_each_ran_once, one_task, operator, starts

__all__ = ["operator"]

LABEL = "one-1/gpt/run1"
TAG = "mswebench/sweb.eval.x86_64.one-1:latest"
BASE, OTHER = "fleet-eval-base:latest", "other-code:latest"


def with_fields(path: Path, **fields: Any) -> Path:
    """Add fields to the only task of an assignment."""
    document = json.loads(path.read_text())
    ((entry,),) = document.values()
    entry.update(fields)
    path.write_text(json.dumps(document))
    return path


def image_id(hosts: ContainerFleet, name: str = "eval1", image: str = BASE) -> str:
    return hosts.shell(name, f"docker image inspect --format '{{{{.Id}}}}' {image}").strip()


def result(operator: Operator, label: str = LABEL, attempt: int = 1, batch: str = "phase8") -> Path:
    return operator.collected / batch / label / f"attempt{attempt}"


def verdict(operator: Operator) -> dict[str, Any]:
    return [record for record in operator.journal() if record["type"] == "judged"][-1]


def codes(operator: Operator, severity: str = "reject") -> list[str]:
    return [reason["code"] for reason in verdict(operator)["reasons"] if reason["severity"] == severity]


def started(operator: Operator) -> bool:
    return any(record["type"] == "started" for record in operator.journal())


@pytest.fixture
def other_image(eval_hosts: ContainerFleet) -> str:
    """Put a second image on eval1, of other code under another name, and return its id."""
    eval_hosts.shell("eval1", f"docker create --name made {BASE} true && docker commit -m other made {OTHER} && docker rm made")
    return image_id(eval_hosts, image=OTHER)


@fault("D1")
def test_an_engine_that_is_down_at_launch_costs_no_attempt(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory)
    eval_hosts.stop_docker("eval1")
    try:
        said = operator.run("dispatch", path)
        assert said.code == 2, said.err
        assert operator.states() == {LABEL: "blocked"}
        assert not any(record["type"] == "attempt" for record in operator.journal())
        why = operator.run("why", "eval1").out
        assert "docker does not answer" in why and "systemctl start docker" in why
        assert operator.run("check", "eval1").code == 2
    finally:
        eval_hosts.start_docker("eval1")
    assert operator.run("dispatch", path).code == 0
    assert [record["number"] for record in operator.journal() if record["type"] == "attempt"] == [1]
    assert_each_ran_once(eval_hosts, 1)


@fault("D2")
def test_an_engine_killed_during_an_eval_is_the_hosts_failure_and_nothing_runs_again_by_itself(
    operator: Operator, eval_hosts: ContainerFleet
) -> None:
    path = one_task(operator.directory, "slow", seconds=60)
    document = json.loads(path.read_text())
    write_dataset(path.parent / "d2.jsonl", "two-2")
    document["eval1"].append(task("two-2", "gpt", "d2.jsonl"))
    path.write_text(json.dumps(document))
    running = operator.start("dispatch", path)
    wait_until(lambda: bool(eval_hosts.containers("eval1")))
    eval_hosts.stop_docker("eval1")
    try:
        said = finish(running)
        assert said.code == 2, said.err
        assert operator.states() == {LABEL: "rejected", "two-2/gpt/run1": "blocked"}
        assert codes(operator)[0] == "host-failed", verdict(operator)
        assert verdict(operator)["cause"] == "environment"
        row = operator.run("status", "--offline", "--json").json["tasks"][0]
        assert row["failure"] == "environment"
        # The task that waited was given to nobody while the engine is away.
        assert starts(eval_hosts) == {"one-1/gpt": 1}
        assert "docker" in operator.run("why", "eval1").out
    finally:
        eval_hosts.start_docker("eval1")
    # The container outlived its engine or came back with it; it is the dead attempt's, and the next one waits for its end.
    again = operator.run("dispatch", path)
    if again.code != 2:
        assert again.code & 4, again.err
        assert operator.run("cancel", "one-1", "--yes", "--grace", "1").code == 0
        assert operator.run("dispatch", path).code == 2
    assert eval_hosts.containers("eval1") == []
    assert operator.states() == {LABEL: "rejected", "two-2/gpt/run1": "accepted"}
    assert starts(eval_hosts) == {"one-1/gpt": 1, "two-2/gpt": 1}
    eval_hosts.switch("eval1", "one-1/gpt", {})
    assert operator.run("retry", "one-1").code == 0
    # What the engine's absence refused has used no number up.
    assert {record["number"] for record in operator.journal() if record["type"] == "attempt"} == {1}


@fault("D3")
def test_a_killed_container_is_not_called_a_lack_of_memory(operator: Operator, eval_hosts: ContainerFleet) -> None:
    running = operator.start("dispatch", one_task(operator.directory, "slow", seconds=60))
    wait_until(lambda: bool(eval_hosts.containers("eval1")))
    wait_until(lambda: eval_hosts.shell("eval1", "docker ps -q") != "")
    eval_hosts.shell("eval1", "docker kill $(docker ps -q)")
    said = finish(running)
    assert said.code == 2, said.err
    assert operator.states() == {LABEL: "rejected"}
    log = (result(operator) / "fleet.log").read_text()
    assert "docker run ended with 137" in log
    everything = json.dumps(verdict(operator)) + operator.run("why", "one-1").out + said.err
    assert "memory" not in everything and "OOM" not in everything
    assert starts(eval_hosts) == {"one-1/gpt": 1}


@fault("D4")
def test_a_container_of_a_dead_attempt_keeps_the_host_until_it_is_gone(
    operator: Operator, eval_hosts: ContainerFleet, tmp_path: Path
) -> None:
    path = one_task(operator.directory, "slow", "leave-container", seconds=60)
    running = operator.start("dispatch", path)
    wait_until(lambda: len(eval_hosts.containers("eval1")) == 2)
    running.kill()
    finish(running)
    eval_hosts.shell("eval1", "docker rm -f $(docker ps -q --filter name=one-1 | tail -1) >/dev/null; true")
    eval_hosts.exec("eval1", ["pkill", "-KILL", "-u", "ubuntu"], user="root", check=False)
    (left,) = eval_hosts.containers("eval1")
    other = Operator(tmp_path / "other", eval_hosts.hosts_file)
    second = one_task(other.directory, instance="two-2")
    said = other.run("dispatch", second)
    assert said.code == 4, said.err
    assert other.states() == {"two-2/gpt/run1": "blocked"}
    assert f"container {left}" in said.err + other.run("why", "two-2").out
    assert starts(eval_hosts) == {"one-1/gpt": 1}
    assert eval_hosts.containers("eval1") == [left]
    # The lock is free all the while: it is the comparison with the list taken at the start that keeps the host.
    assert "held" not in eval_hosts.shell("eval1", "flock -n ~/.fleet/host.lock true || echo held")
    assert operator.run("cancel", "one-1", "--yes", "--grace", "1").code == 0
    assert eval_hosts.containers("eval1") == []
    assert other.run("dispatch", second).code == 0
    assert starts(eval_hosts) == {"one-1/gpt": 1, "two-2/gpt": 1}


@fault("D4")
def test_a_container_that_is_to_be_kept_holds_its_task_and_a_cancel_gives_both_back(
    operator: Operator, eval_hosts: ContainerFleet
) -> None:
    path = with_fields(one_task(operator.directory, "leave-container", seconds=0.6), pipeline="keeping")
    keeping = Path("remote_scripts/openhands/pipeline.yaml").read_text()
    folder = operator.directory / "remote_scripts" / "keeping"
    folder.mkdir(parents=True)
    folder.joinpath("pipeline.yaml").write_text(
        keeping.replace("name: openhands", "name: keeping").replace("containers: remove", "containers: keep")
    )
    said = operator.run("dispatch", path)
    assert said.code == 4, said.err
    assert operator.states() == {LABEL: "held"}
    (left,) = eval_hosts.containers("eval1")
    why = operator.run("why", "one-1").out
    assert left in why and "fleet cancel one-1/gpt/run1" in why
    assert (result(operator) / "output.jsonl").exists(), said.err
    check = operator.run("check", "eval1", "--json")
    assert check.code == 2 and f"container {left}" in check.out
    # Run again, nothing changes; the host is not given anything.
    assert operator.run("dispatch", path).code == 4
    assert operator.run("cancel", "one-1", "--yes", "--json").code == 0
    assert operator.states() == {LABEL: "accepted"}
    assert eval_hosts.containers("eval1") == []
    assert operator.run("dispatch", path).code == 0
    assert starts(eval_hosts) == {"one-1/gpt": 1}


@fault("D5")
def test_the_image_that_an_eval_ran_in_is_kept_with_its_result(operator: Operator, eval_hosts: ContainerFleet) -> None:
    base = image_id(eval_hosts)
    path = with_fields(one_task(operator.directory, "leave-container", seconds=0.3), image_id=base)
    assert operator.run("dispatch", path).code == 0
    images = json.loads((result(operator) / "fleet.json").read_text())["images"]
    assert images["expected"] == base
    assert images["start"] == {TAG: None, "mswebench/example_m_teapot:pr-one-1": None}
    assert set(images["end"].values()) == {base}
    assert images["used"] == {BASE: base}
    assert verdict(operator)["facts"]["image_id"] == base


@fault("D5")
@attack("S43")
def test_a_moved_tag_is_refused_before_the_launch_and_rejected_after_the_eval(
    operator: Operator, eval_hosts: ContainerFleet, other_image: str, tmp_path: Path
) -> None:
    base = image_id(eval_hosts)
    # What checks nothing but the name takes the other code for the task's, and its result counts.
    naive = Operator(tmp_path / "naive", eval_hosts.hosts_file)
    moved = {"HARNESS_IMAGE": OTHER}
    assert naive.run("dispatch", with_fields(one_task(naive.directory, seconds=0.3), env=moved)).code == 0
    eval_hosts.shell("eval1", f"docker tag {BASE} {TAG}; docker tag {BASE} mswebench/example_m_teapot:pr-one-1")
    # The tag is right at the start, and moved by the eval.
    path = with_fields(one_task(operator.directory, seconds=0.3), env=moved, image_id=base, run=2)
    said = operator.run("dispatch", path)
    assert said.code == 2, said.err
    assert operator.states() == {"one-1/gpt/run2": "rejected"}
    assert codes(operator) == ["image-mismatch"] * 2
    assert verdict(operator)["cause"] == "environment"
    reasons = json.dumps(verdict(operator)["reasons"])
    assert other_image[:19] in reasons and base[:19] in reasons
    # Now it is wrong before the start: no attempt is made of it.
    third = Operator(tmp_path / "third", eval_hosts.hosts_file)
    path = with_fields(one_task(third.directory, seconds=0.3), image_id=base, run=3)
    said = third.run("dispatch", path)
    assert said.code == 2, said.err
    assert third.states() == {"one-1/gpt/run3": "blocked"}
    assert "image:" in third.run("why", "one-1").out and "docker rmi" in third.run("why", "one-1").out
    assert starts(eval_hosts) == {"one-1/gpt": 2}
    eval_hosts.shell("eval1", f"docker rmi {TAG} mswebench/example_m_teapot:pr-one-1")
    assert third.run("dispatch", path).code == 0


@fault("D5")
@attack("S43")
def test_a_cut_off_archive_and_a_replaced_one_never_give_a_result_that_counts(
    operator: Operator, eval_hosts: ContainerFleet, other_image: str
) -> None:
    base = image_id(eval_hosts)
    load = "docker load -i ~/image.tar >/dev/null 2>&1; echo $?"
    eval_hosts.shell("eval1", f"docker tag {OTHER} archived:1; docker save archived:1 > ~/image.tar; docker rmi archived:1")
    cut = eval_hosts.shell("eval1", f"truncate -s -40000 ~/image.tar; {load}").strip()
    assert cut != "0"
    path = with_fields(one_task(operator.directory, seconds=0.3), env={"HARNESS_IMAGE": "archived:1"}, image_id=base)
    assert operator.run("dispatch", path).code == 2
    assert "image-mismatch" in codes(operator)
    assert "no image of the task was there" in json.dumps(verdict(operator))
    # Whole, and of other code: it loads without a word, and so it did for the eval.
    eval_hosts.shell("eval1", f"docker tag {OTHER} archived:1; docker save archived:1 > ~/image.tar; docker rmi archived:1")
    assert eval_hosts.shell("eval1", load).strip() == "0"
    assert operator.run("dispatch", path, "--only", "rejected").code == 2
    assert "image-mismatch" in codes(operator)
    assert verdict(operator)["facts"]["image_id"] == other_image


@fault("D5")
def test_one_instance_in_different_images_on_two_hosts_is_shown(operator: Operator, eval_hosts: ContainerFleet) -> None:
    # Each host imported the base image itself, at another second: the same name, and not the same image.
    assert image_id(eval_hosts, "eval1") != image_id(eval_hosts, "eval2")
    path = one_task(operator.directory, seconds=0.3)
    entries = json.loads(path.read_text())["eval1"]
    path.write_text(json.dumps({"eval1": entries, "eval2": [entries[0] | {"model": "claude"}]}))
    assert operator.run("dispatch", path).code == 0
    flags = operator.run("dashboard", "phase8", "--json").json["flags"]
    assert [(flag["code"], flag["count"]) for flag in flags] == [("image-differs", 2)]
    assert "different images" in operator.run("why", "one-1/gpt").out
    verdicts = operator.run("validate", operator.collected / "phase8", "--json").json
    assert verdicts["summary"]["flagged"] == 2


@pytest.fixture
def small_engine(eval_hosts: ContainerFleet) -> Iterator[ContainerFleet]:
    """Give eval4's engine a disk of its own of 400 MB, and its own back afterwards."""
    eval_hosts.stop_docker("eval4")
    mount = "for _ in $(seq 50); do pgrep -x dockerd >/dev/null || break; sleep 0.1; done; mount -t tmpfs -o size=400m docker "
    eval_hosts.exec("eval4", ["sh", "-c", mount + "/var/lib/docker"], user="root")
    eval_hosts.start_docker("eval4")
    try:
        yield eval_hosts
    finally:
        eval_hosts.stop_docker("eval4")
        eval_hosts.exec("eval4", ["sh", "-c", "sleep 0.3; umount -l /var/lib/docker"], user="root")
        eval_hosts.start_docker("eval4")


@fault("D6")
def test_a_disk_filled_by_images_is_named_and_nothing_is_pruned(operator: Operator, small_engine: ContainerFleet) -> None:
    fill = "mkdir big; head -c 370M /dev/zero > big/x; tar -C big -c . | docker import - filler:1; rm -r big"
    small_engine.exec("eval4", ["sh", "-c", fill], check=False)
    images = small_engine.shell("eval4", "docker images -aq | sort")
    assert len(images.split()) >= 2
    said = operator.run("dispatch", one_task(operator.directory, place="eval4"))
    assert said.code == 2, said.err
    assert operator.states() == {LABEL: "blocked"}
    why = operator.run("why", "eval4").out
    assert "disk of /var/lib/docker" in why and "docker system df" in why and "never prunes" in why
    assert not any(record["type"] == "attempt" for record in operator.journal())
    assert small_engine.shell("eval4", "docker images -aq | sort") == images
