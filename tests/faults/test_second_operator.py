"""Two operators on two machines with the same hosts: one start, and whoever comes second is told, follows, or only looks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.catalogue import attack, fault
from tests.support.operator import finish, kill, wait_until
from tests.support.small_job import BATCH, SmallJob
from tests.support.sshd_farm import SshdFarm

TASKS = {"eval1": ["a-1"], "eval2": ["b-1"]}
LABEL = "a-1/gpt/run1"


@pytest.fixture
def first(tmp_path: Path, farm_hosts: SshdFarm) -> Iterator[SmallJob]:
    made = SmallJob(tmp_path / "first", farm_hosts, TASKS, env={"XDG_STATE_HOME": str(tmp_path / "state1")})
    made.hold()
    yield made
    made.end()


@pytest.fixture
def second(tmp_path: Path, farm_hosts: SshdFarm, first: SmallJob) -> SmallJob:
    """Return another person's machine with the same assignment; nothing of the first one's is there."""
    return SmallJob(tmp_path / "second", farm_hosts, TASKS, env={"XDG_STATE_HOME": str(tmp_path / "state2")})


def running(job: SmallJob) -> bool:
    return sum(record["type"] == "started" for record in job.journal()) == len(job.instances)


@fault("C6")
def test_the_same_assignment_from_a_second_machine_follows_what_runs(first: SmallJob, second: SmallJob) -> None:
    began = first.start("dispatch", first.assignment)
    wait_until(lambda: running(first))
    follower = second.start("dispatch", second.assignment)
    wait_until(lambda: running(second) or follower.poll() is not None)
    first.let_go()
    codes = finish(began).code, finish(follower).code
    assert codes[0] == 0
    if codes[1]:
        # Told "busy" by a readiness check: it started nothing, and the same command again follows.
        assert codes[1] & 64
        assert second.run("dispatch", second.assignment).code == 0
    first.assert_each_ran_once()
    second.assert_each_ran_once()
    attempts = [{record["attempt"] for record in job.journal() if record["type"] == "judged"} for job in (first, second)]
    assert attempts[0] == attempts[1]


@fault("C6")
def test_another_assignment_on_a_busy_host_is_told_who_has_it_and_starts_nothing(first: SmallJob, second: SmallJob) -> None:
    began = first.start("dispatch", first.assignment)
    wait_until(lambda: running(first))
    other = second.directory / "other.json"
    entries = json.loads(second.assignment.read_text())
    other.write_text(json.dumps({"eval1": [{**entries["eval1"][0], "model": "claude"}]}))
    said = second.run("dispatch", other, "--patience", "0")
    assert said.code == 64, said.err
    why = second.run("why", "a-1", "--batch", "other")
    assert f"{LABEL} of batch {BATCH}" in why.out
    first.let_go()
    assert finish(began).code == 0
    first.assert_each_ran_once()


@fault("C6")
def test_a_machine_without_a_journal_looks_and_changes_nothing(first: SmallJob, second: SmallJob) -> None:
    began = first.start("dispatch", first.assignment)
    wait_until(lambda: running(first))
    first_pid = began.pid
    said = second.run("status", "--all-hosts", "--hosts", "eval[1-2]", "--json")
    assert said.code == 0, said.err
    rows = {one["host"]: one["attempts"] for one in said.json["hosts"]}
    (one,) = rows["eval1"]
    assert (one["batch"], one["task"], one["state"]) == (BATCH, LABEL, "running")
    assert f"pid {first_pid}" in one["controller"]
    assert re.match(r"\d{4}-", one["since"])
    shown = second.run("status", BATCH, "--all-hosts")
    assert LABEL in shown.out and f"pid {first_pid}" in shown.out
    log = second.run("logs", "a-1", "--host", "eval1")
    assert log.code == 0, log.err
    missing = second.run("logs", "a-2", "--host", "eval1")
    assert (missing.code, "fleet status --all-hosts" in missing.err) == (1, True)
    assert not second.collected.exists()
    first.let_go()
    assert finish(began).code == 0
    first.assert_each_ran_once()


@attack("S45")
def test_a_stale_controllers_orders_are_refused_and_said(first: SmallJob) -> None:
    began = first.start("dispatch", first.assignment)
    wait_until(lambda: running(first))
    kill(began)
    attempt = next(record["attempt"] for record in first.journal() if record["type"] == "attempt" and record["host"] == "eval1")
    spec = first.farm.homes["eval1"] / ".fleet" / "attempts" / attempt / "spec.json"
    intent = json.loads(spec.read_text())
    spec.write_text(json.dumps({**intent, "epoch": intent["epoch"] + 1}))
    said = first.run("cancel", "a-1", "--yes", "--grace", "1", "--json")
    assert said.code == 4, said.out
    (row,) = said.json["cancelled"]
    assert row["outcome"] == "stale-epoch"
    assert f"has epoch {intent['epoch'] + 1}, not {intent['epoch']}" in row["text"]
    assert not (spec.parent / "rc.json").exists()
    spec.write_text(json.dumps(intent))


@fault("O2")
def test_a_host_that_left_the_inventory_is_an_orphan_and_collectable_once_it_is_back(first: SmallJob) -> None:
    began = first.start("dispatch", first.assignment)
    wait_until(lambda: running(first))
    kill(began)
    hosts_file = first.directory / "hosts.yaml"
    whole = hosts_file.read_text()
    hosts_file.write_text(whole.replace("eval[1-4]", "eval[2-4]"))
    status = first.run("status", BATCH, "--json")
    assert status.code == 4
    states = {one["host"]: one for one in status.json["hosts"]}
    assert states["eval1"]["state"] == "orphan"
    assert str(hosts_file) in states["eval1"]["reason"]
    for subject in ("a-1", "eval1"):
        why = first.run("why", subject, "--batch", BATCH)
        assert "orphan" in why.out and f"fleet collect {BATCH}" in why.out
    dashboard = first.run("dashboard", BATCH, "--json")
    assert {one["name"]: one["status"] for one in dashboard.json["hosts"]}["eval1"] == "orphan"
    collected = first.run("collect", BATCH)
    assert "no longer in" in collected.err and "eval1" in collected.err
    refused = first.run("dispatch", first.assignment)
    assert (refused.code, "eval1" in refused.err) == (1, True)
    hosts_file.write_text(whole)
    first.let_go()
    wait_until((first.farm.homes["eval1"] / "stops").exists)
    assert first.run("dispatch", first.assignment).code == 0
    first.assert_each_ran_once()
