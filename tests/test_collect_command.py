"""`fleet collect` as it is typed: real sshd hosts, real agents, journals that a controller left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fleet.cli.main import run
from fleet.model.states import AttemptState, TaskState
from tests.support.catalogue import fault
from tests.support.collect_bench import Bench, writes
from tests.support.results import F2P, INSTANCE
from tests.support.sshd_farm import SshdFarm


def test_what_a_dead_controller_left_is_collected_judged_journaled_and_acknowledged(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    code, document = bench.fleet("phase8")
    assert code == 0
    (row,) = document["results"]
    assert (row["got"], row["verdict"], row["host"], row["task"]) == ("collected", "accepted", "eval1", f"{INSTANCE}/gpt/run1")
    assert (bench.collected / row["path"] / "verdict.json").is_file()
    state = bench.journal()
    attempt = state.attempts["a1"]
    assert (attempt.state, attempt.epoch, attempt.rc, attempt.acked) == (AttemptState.FINISHED, 1, 0, True)
    assert state.tasks[f"{INSTANCE}/gpt/run1"].state is TaskState.ACCEPTED
    facts = json.loads((bench.collected / row["path"] / "fleet.json").read_text())
    assert facts["dataset"]["fail_to_pass"] == list(F2P)
    assert (bench.hosts["eval1"].fleet / "attempts" / "a1" / "acked").is_file()


def test_the_same_command_again_finds_nothing_to_do(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    bench.fleet("phase8")
    journal = (bench.collected / "phase8" / "journal.jsonl").read_bytes()
    code, document = bench.fleet("phase8")
    assert (code, document["results"]) == (0, [])
    assert (bench.collected / "phase8" / "journal.jsonl").read_bytes() == journal


@fault("O4")
def test_results_removed_here_come_back_only_when_asked_for(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    bench.fleet("phase8")
    shutil.rmtree(bench.collected / "phase8" / INSTANCE)
    code, document = bench.fleet("phase8")
    assert (code, [row["got"] for row in document["results"]]) == (4, ["removed here"])
    assert "--again" in document["results"][0]["hint"]
    code, document = bench.fleet("phase8", "--again")
    assert (code, [row["got"] for row in document["results"]]) == (0, ["collected"])
    assert (bench.collected / "phase8" / INSTANCE / "gpt/run1/attempt1/output.jsonl").is_file()


def test_a_rejected_result_is_kept_and_is_exit_2(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval1"].run("echo no patch")
    code, document = bench.fleet("phase8")
    (row,) = document["results"]
    assert (code, row["verdict"]) == (2, "rejected")
    assert "output-missing" in row["reasons"]
    assert (bench.collected / row["path"] / "fleet.log").read_text() == "no patch\n"
    assert bench.journal().tasks[f"{INSTANCE}/gpt/run1"].state is TaskState.REJECTED


def test_what_another_controller_started_is_collected_under_its_batch(bench: Bench, tmp_path: Path) -> None:
    bench.hosts["eval1"].run(writes(tmp_path), "foreign1", batch="theirs")
    bench.hosts["eval2"].run(writes(tmp_path), "foreign2", batch="../evil")
    code, document = bench.fleet()
    assert code == 0
    assert sorted(row["path"] for row in document["results"]) == [
        f"theirs/{INSTANCE}/gpt/run1/attempt1",
        f"unknown/{INSTANCE}/gpt/run1/attempt1",
    ]
    assert not (bench.collected / "theirs" / "journal.jsonl").exists(), "their controller may still open this batch here"


def test_a_waiting_task_takes_the_result_that_another_controller_got(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task())
    bench.hosts["eval1"].run(writes(tmp_path), "foreign1")
    assert bench.fleet("phase8")[0] == 0
    view = bench.journal().tasks[f"{INSTANCE}/gpt/run1"]
    assert (view.state, view.attempt) == (TaskState.ACCEPTED, "foreign1")


def test_a_host_cannot_answer_for_a_task_that_was_not_given_to_it(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(host="eval1"), bench.task("other", host="eval2"))
    bench.hosts["eval2"].run(writes(tmp_path), "forged")
    _code, document = bench.fleet("phase8")
    assert [row["got"] for row in document["results"]] == ["collected"], "kept for a look"
    assert bench.journal().tasks[f"{INSTANCE}/gpt/run1"].state is TaskState.PENDING


@fault("T10")
def test_a_host_cannot_answer_for_another_hosts_attempt(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), bench.task("other", host="eval2"), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval2"].run(writes(tmp_path), "a1")
    code, document = bench.fleet("phase8", "eval2")
    assert code == 16
    assert "was given to eval1" in document["results"][0]["error"]
    assert not (bench.collected / "phase8" / INSTANCE).exists()


def test_a_second_attempt_of_another_controller_gets_the_next_number(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    bench.fleet("phase8")
    bench.hosts["eval2"].run(writes(tmp_path), "b1")
    _code, document = bench.fleet("phase8", "eval*")
    assert [row["path"] for row in document["results"]] == [f"phase8/{INSTANCE}/gpt/run1/attempt2"]
    assert bench.journal().tasks[f"{INSTANCE}/gpt/run1"].attempt == "a1"


def test_hosts_instances_and_batches_narrow_what_is_brought(bench: Bench, tmp_path: Path) -> None:
    one, two = bench.hosts["eval1"], bench.hosts["eval2"]
    one.run(writes(tmp_path), "a1", batch="b1")
    one.run(writes(tmp_path, "x", instance_id="x"), "a2", instance="x", batch="b2")
    two.run(writes(tmp_path), "a3", model="claude", batch="b1")
    assert [row["attempt"] for row in bench.fleet("eval1", "--instance", "x")[1]["results"]] == ["a2"]
    assert [row["attempt"] for row in bench.fleet("--batch", "b1", "eval2")[1]["results"]] == ["a3"]
    assert [row["attempt"] for row in bench.fleet()[1]["results"]] == ["a1"]


def test_a_host_that_does_not_answer_costs_only_its_own_results(bench: Bench, tmp_path: Path, sshd_farm: SshdFarm) -> None:
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    sshd_farm.stop_host("eval2")
    try:
        code, document = bench.fleet()
    finally:
        sshd_farm.start_host("eval2")
    assert code == 4
    assert [(row["host"], row["got"]) for row in document["results"]] == [("eval1", "collected"), ("eval2", "no answer")]


def test_a_tampered_result_is_exit_16_and_the_others_come(bench: Bench, tmp_path: Path) -> None:
    bad = bench.hosts["eval1"]
    bad.run(writes(tmp_path), "a1")
    bad.run(writes(tmp_path), "a2", model="claude")
    (bad.out("a1") / "output.jsonl").write_bytes((bad.out("a1") / "output.jsonl").read_bytes().swapcase())
    code, document = bench.fleet()
    rows = {row["attempt"]: row for row in document["results"]}
    assert code == 16
    assert (rows["a1"]["got"], rows["a2"]["got"]) == ("failed", "collected")
    assert "another sha256" in rows["a1"]["error"]
    assert not (bad.fleet / "attempts" / "a1" / "acked").exists(), "the host keeps what was not verified"


def test_a_table_says_what_came_and_what_to_do(bench: Bench, tmp_path: Path) -> None:
    bench.hosts["eval1"].run(writes(tmp_path) + '; ln -s /etc/passwd "$FLEET_OUTPUT_DIR/link"', "a1")
    assert run(["collect"]) == 0
    out, err = bench.capsys.readouterr()
    assert f"phase8/{INSTANCE}/gpt/run1/attempt1" in out
    assert "link: left on the host" in out
    assert "2 hosts: 1 collected" in out
    assert "collected" in err, "one line per result while it runs"


def test_an_unknown_word_names_neither_batch_nor_host(bench: Bench) -> None:
    code, document = bench.fleet("phase9")
    assert code == 1
    assert "phase9" in document["error"]["message"]


def test_a_full_disk_ends_the_command_with_32(bench: Bench, tmp_path: Path) -> None:
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    (bench.collected).mkdir()
    (bench.collected / "phase8").write_text("a file is in the way")
    code, document = bench.fleet()
    assert code == 32
    assert str(bench.collected / "phase8") in document["error"]["message"]
