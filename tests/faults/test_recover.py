"""A journal that is gone or damaged is rebuilt from hosts and results: nothing runs again, nothing that counted is lost."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.operator import Said, kill, wait_until
from tests.support.small_job import BATCH, SmallJob
from tests.support.sshd_farm import SshdFarm

TASKS = {"eval1": ["a-1", "a-2"], "eval2": ["b-1", "b-2"]}


@pytest.fixture
def job(tmp_path: Path, farm_hosts: SshdFarm) -> Iterator[SmallJob]:
    made = SmallJob(tmp_path, farm_hosts, TASKS, seconds=0.6)
    yield made
    made.end()


def recover(job: SmallJob, *options: str) -> Said:
    return job.run("recover", BATCH, "--file", job.assignment, "--json", *options)


def interrupted(job: SmallJob) -> None:
    """Dispatch, and kill the controller when the first result is judged and others run or wait."""
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: any(record["type"] == "judged" for record in job.journal()))
    kill(process)


def damage(job: SmallJob, how: str) -> None:
    data = job.journal_file.read_bytes()
    if how == "gone":
        job.journal_file.unlink()
    elif how == "empty":
        job.journal_file.write_bytes(b"")
    elif how == "cut":
        job.journal_file.write_bytes(data[: len(data) * 2 // 3])
    elif how == "headless":
        job.journal_file.write_bytes(data[data.index(b"\n") + 1 :])
    else:
        middle = data.index(b'"type":"started"')
        job.journal_file.write_bytes(data[:middle] + b"\x00\xff" + data[middle + 2 :])


@fault("C8")
@pytest.mark.parametrize("how", ["gone", "empty", "cut", "headless", "garbled"])
def test_a_damaged_journal_stops_the_batch_and_recover_lets_it_go_on_without_a_second_start(job: SmallJob, how: str) -> None:
    interrupted(job)
    damage(job, how)
    refused = job.run("dispatch", job.assignment)
    assert refused.code == 32, refused.err
    assert f"fleet recover {BATCH}" in refused.err
    said = recover(job)
    assert said.code == 0, said.out + said.err
    assert said.json["complete"] and said.json["held"] == []
    assert said.json["tasks"].get("accepted", 0) >= 1
    ended = job.run("dispatch", job.assignment)
    assert ended.code == 0, ended.err
    job.assert_each_ran_once()
    assert set(job.states().values()) == {"accepted"}


@fault("C8")
def test_recovering_what_is_whole_changes_nothing_and_keeps_the_old_file(job: SmallJob) -> None:
    assert job.run("dispatch", job.assignment).code == 0
    before, states = job.journal_file.read_bytes(), job.states()
    rehearsed = recover(job, "--dry-run")
    assert (rehearsed.code, rehearsed.json["written"]) == (0, False)
    assert job.journal_file.read_bytes() == before
    for _ in range(2):
        said = recover(job)
        assert (said.code, said.json["tasks"]) == (0, {"accepted": 4})
    kept = sorted(job.batch.glob("journal.jsonl.damaged-*"))
    assert len(kept) == 2
    assert kept[0].read_bytes() == before
    assert job.states() == states
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()


@fault("C8")
def test_what_may_be_on_a_host_that_gives_no_answer_is_held_until_it_answers(job: SmallJob, farm_hosts: SshdFarm) -> None:
    interrupted(job)
    damage(job, "gone")
    farm_hosts.stop_host("eval2")
    said = recover(job)
    farm_hosts.start_host("eval2")
    assert said.code == 4, said.out + said.err
    held = {row["task"]: row["reason"] for row in said.json["held"]}
    here = {path.parts[-4] for path in job.batch.glob("*/gpt/run1/attempt1")}
    assert set(held) == {f"{one}/gpt/run1" for one in TASKS["eval2"] if one not in here}
    assert all("eval2, which gave no answer" in reason for reason in held.values())
    assert job.run("dispatch", job.assignment).code == 4
    why = job.run("why", next(iter(held)), "--batch", BATCH)
    assert f"fleet recover {BATCH}" in why.out
    assert recover(job).code == 0
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()


@fault("C8")
def test_a_task_of_a_shared_queue_is_not_begun_on_another_host_while_the_one_that_may_have_it_is_silent(
    tmp_path: Path, farm_hosts: SshdFarm
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval1": ["p-1", "p-2"], "eval2": ["p-1", "p-2"]}, seconds=1.5)
    entries = json.loads(job.assignment.read_text())
    job.assignment.write_text(json.dumps({"eval[1-2]": entries["eval1"]}))
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: sum(job.starts().values()) == 2)
    kill(process)
    damage(job, "gone")
    farm_hosts.stop_host("eval2")
    try:
        said = recover(job)
        (held,) = said.json["held"]
        assert said.code == 4
        assert job.run("dispatch", job.assignment, "--patience", "1").code == 4
        assert sum(job.starts().values()) == 2
    finally:
        farm_hosts.start_host("eval2")
    assert held["task"] not in {row["task"] for row in recover(job).json["held"]}
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()
    job.end()


@fault("C8")
def test_with_journal_and_results_gone_the_hosts_still_know(job: SmallJob) -> None:
    assert job.run("dispatch", job.assignment).code == 0
    shutil.rmtree(job.batch)
    said = recover(job)
    assert said.code == 0, said.out + said.err
    assert said.json["tasks"] == {"finished": 4}
    assert job.run("dispatch", job.assignment).code == 0
    job.assert_each_ran_once()


def test_a_running_controller_keeps_its_journal(job: SmallJob) -> None:
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: any(record["type"] == "started" for record in job.journal()))
    said = recover(job)
    assert said.code == 64
    assert f"pid {process.pid}" in said.err
    assert kill(process, signal.SIGTERM).code == 130
    assert not list(job.batch.glob("journal.jsonl.damaged-*"))


@fault("H3")
def test_a_machine_that_took_a_hosts_name_is_not_believed(job: SmallJob, farm_hosts: SshdFarm) -> None:
    assert job.run("dispatch", job.assignment).code == 0
    path = farm_hosts.homes["eval1"] / ".fleet" / "host.json"
    path.write_text(json.dumps({"host_uid": "0" * 32, "machine_id": None}))
    said = recover(job)
    path.unlink()
    assert said.code == 16
    assert [one["error"] for one in said.json["hosts"] if not one["answered"]] == [
        "eval1: another machine answers under this name"
    ]
    assert said.json["tasks"] == {"accepted": 4}


@pytest.mark.parametrize("what", ["nobody", "another assignment"])
def test_recover_says_what_it_lacks(job: SmallJob, what: str) -> None:
    if what == "nobody":
        said = job.run("recover", "nobody")
        assert said.code == 1
        assert "neither a journal nor an assignment" in said.err
        return
    interrupted(job)
    job.assignment.write_text(json.dumps(json.loads(job.assignment.read_text()) | {"eval3": []}))
    said = recover(job)
    assert said.code == 1
    assert "is not what batch small was dispatched from" in said.err
