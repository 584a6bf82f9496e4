"""`fleet collect --adopt`: results that fleet did not start, found by content, never by age."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from fleet.collect.candidates import layout_of
from fleet.dispatch.files.journal import Journal
from fleet.errors import StorageError
from fleet.model.records import AnyRecord, AttemptObserved, ControllerLeft
from fleet.model.states import TaskState
from tests.support.collect_bench import Bench, writes
from tests.support.results import INSTANCE, build_result

FIRST = "evaluation/evaluation_outputs/outputs/data-test/CodeActAgent/gpt_maxiter_200_N_v0.53.0"
SECOND = f"evaluation/evaluation_outputs/Trajectory_results/MSWE/{INSTANCE}/claude/Run3"


def by_hand(bench: Bench, where: str, host: str = "eval1", **knobs: object) -> Path:
    """Put the result of an eval that somebody ran by hand on a host."""
    return build_result(bench.hosts[host].home / "work" / where, **knobs)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "model", "number"),
    [
        (f"/h/OpenHands/{FIRST}", "gpt", 1),
        ("/o/outputs/d-train/CodeActAgent/llm.gpt-4.1_maxiter_50_N_v1-no-hint-run_1", "gpt-4.1", 1),
        (f"/h/{SECOND}", "claude", 3),
        ("/x/Trajectory_results/B/I/deepseek_v3/run_12", "deepseek_v3", 12),
        ("/x/some/where", None, 1),
        ("/x/Run3", None, 1),
    ],
)
def test_model_and_run_are_read_from_both_layouts(path: str, model: str | None, number: int) -> None:
    assert layout_of(path) == (model, number)


def test_both_layouts_are_adopted_and_judged(bench: Bench) -> None:
    by_hand(bench, FIRST)
    by_hand(bench, SECOND, model="claude")
    code, document = bench.fleet("--adopt", "evaluation/evaluation_outputs", "--instance", INSTANCE)
    assert code == 0
    assert [(row["task"], row["got"], row["verdict"], row["path"]) for row in document["results"]] == [
        (f"{INSTANCE}/claude/run3", "adopted", "accepted", f"adopted/{INSTANCE}/claude/run3/attempt1"),
        (f"{INSTANCE}/gpt/run1", "adopted", "accepted", f"adopted/{INSTANCE}/gpt/run1/attempt1"),
    ]
    facts = json.loads((bench.collected / document["results"][0]["path"] / "fleet.json").read_text())
    assert (facts["origin"], facts["host"], facts["source"].endswith("claude/Run3")) == ("adopted", "eval1", True)
    assert bench.journal("adopted").tasks[f"{INSTANCE}/gpt/run1"].state is TaskState.ACCEPTED
    assert (bench.hosts["eval1"].home / "work" / FIRST / "output.jsonl").is_file(), "the host stays as it is"


def test_an_instance_is_found_by_content_not_by_age_or_name(bench: Bench) -> None:
    right = by_hand(bench, "outputs/d/A/gpt_maxiter_9/x")
    newest = by_hand(bench, f"outputs/{INSTANCE}/gpt_maxiter_9", instance_id="other")
    os.utime(right / "output.jsonl", (1, 1))
    os.utime(newest / "output.jsonl")
    code, document = bench.fleet("--adopt", "outputs", "--instance", INSTANCE)
    (row,) = document["results"]
    assert (code, row["task"]) == (0, f"{INSTANCE}/gpt/run1")
    assert json.loads((bench.collected / row["path"] / "fleet.json").read_text())["source"] == str(right)


def test_of_several_directories_none_is_taken_until_one_is_picked(bench: Bench) -> None:
    by_hand(bench, "outputs/a/gpt_maxiter_9")
    wanted = by_hand(bench, "outputs/b/gpt_maxiter_9", resolved=False)
    by_hand(bench, "outputs/b/gpt_maxiter_9", "eval2")
    code, document = bench.fleet("--adopt", "outputs")
    assert code == 4
    assert [row["got"] for row in document["results"]] == ["ambiguous"] * 3
    assert not bench.collected.exists()
    hints = [row["hint"] for row in document["results"]]
    assert f"--pick eval1:{wanted}" in hints
    code, document = bench.fleet("--adopt", "outputs", "--pick", f"eval1:{wanted}")
    assert (code, [row["got"] for row in document["results"]]) == (0, ["adopted"])
    code, document = bench.fleet("--adopt", "outputs", "--pick", "eval1:/elsewhere")
    assert (code, "no such candidate" in document["error"]["message"]) == (1, True)


def test_a_directory_that_does_not_tell_its_model_waits_for_one(bench: Bench) -> None:
    by_hand(bench, "loose")
    code, document = bench.fleet("--adopt", "loose")
    assert (code, document["results"][0]["hint"]) == (4, "--model NAME")
    code, document = bench.fleet("--adopt", "loose", "--model", "gpt")
    assert (code, document["results"][0]["task"]) == (0, f"{INSTANCE}/gpt/run1")


def test_a_later_collect_does_not_ask_the_host_for_what_was_adopted(bench: Bench) -> None:
    by_hand(bench, FIRST)
    assert bench.fleet("--adopt", "evaluation")[0] == 0
    code, document = bench.fleet("adopted")
    assert (code, document["results"]) == (0, [])


def test_a_model_that_was_mistyped_first_does_not_cost_the_right_one_its_result(bench: Bench) -> None:
    by_hand(bench, "loose")
    for model in ("gtp", "gpt"):
        code, document = bench.fleet("--adopt", "loose", "--model", model)
        assert (code, document["results"][0]["got"]) == (0, "adopted"), document
    states = {label: view.state for label, view in bench.journal("adopted").tasks.items()}
    assert states == {f"{INSTANCE}/{model}/run1": TaskState.ACCEPTED for model in ("gtp", "gpt")}


def test_a_model_that_the_path_tells_is_not_renamed_by_the_option(bench: Bench) -> None:
    by_hand(bench, SECOND, model="claude")
    by_hand(bench, "loose")
    code, document = bench.fleet("--adopt", ".", "--instance", INSTANCE, "--model", "gpt")
    assert (code, [row["task"] for row in document["results"]]) == (0, [f"{INSTANCE}/claude/run3", f"{INSTANCE}/gpt/run1"])


def test_adopting_again_changes_nothing_and_changed_files_are_the_next_attempt(bench: Bench) -> None:
    directory = by_hand(bench, FIRST)
    bench.fleet("--adopt", "evaluation")
    code, document = bench.fleet("--adopt", "evaluation")
    assert (code, [row["got"] for row in document["results"]]) == (0, ["already here"])
    build_result(directory, resolved=False)
    code, document = bench.fleet("--adopt", "evaluation")
    assert [row["path"] for row in document["results"]] == [f"adopted/{INSTANCE}/gpt/run1/attempt2"]
    first = bench.collected / "adopted" / INSTANCE / "gpt/run1/attempt1/eval_outputs/report.json"
    assert '"resolved": true' in first.read_text()


def test_a_waiting_task_of_a_batch_takes_the_adopted_result(bench: Bench) -> None:
    bench.opened(bench.task(host="eval2"))
    by_hand(bench, FIRST)
    code, document = bench.fleet("phase8", "eval1", "--adopt", "evaluation")
    assert (code, [row["verdict"] for row in document["results"]]) == (0, ["accepted"])
    view = bench.journal().tasks[f"{INSTANCE}/gpt/run1"]
    assert (view.state, view.host) == (TaskState.ACCEPTED, "eval1")


def test_an_adoption_that_dies_at_its_journal_starts_nothing_and_is_made_up_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(bench, FIRST)
    bench.opened(bench.task())
    append = Journal.append

    def die(journal: Journal, *records: AnyRecord) -> list[AnyRecord]:
        if any(isinstance(record, AttemptObserved) for record in records):
            raise StorageError("killed here")
        return append(journal, *records)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", die)
        bench.fleet("phase8", "--adopt", "evaluation")
    # Announced and nothing more, it would be an attempt that a controller launches.
    assert bench.journal().attempts == {}
    bench.fleet("phase8", "--adopt", "evaluation")
    assert bench.journal().tasks[f"{INSTANCE}/gpt/run1"].state is TaskState.ACCEPTED


def test_an_adoption_does_not_begin_a_lost_journal_anew(bench: Bench) -> None:
    by_hand(bench, FIRST)
    bench.opened(bench.task(), bench.task("other-1"))
    journal = bench.collected / "phase8" / "journal.jsonl"
    Journal(journal).append(ControllerLeft(why="detached"))
    journal.unlink()
    code, said = bench.fleet("--batch", "phase8", "eval1", "--adopt", "evaluation")
    assert (code, "journal.jsonl is gone" in json.dumps(said)) == (32, True), said
    assert not journal.exists(), "a dispatch would take it for the whole story and start everything again"


def test_an_accepted_result_keeps_its_task(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": f"{INSTANCE}/gpt/run1"})
    bench.hosts["eval1"].run(writes(tmp_path), "a1")
    bench.fleet("phase8")
    by_hand(bench, FIRST, resolved=False)
    _, document = bench.fleet("phase8", "--adopt", "evaluation")
    assert [row["path"] for row in document["results"]] == [f"phase8/{INSTANCE}/gpt/run1/attempt2"]
    assert bench.journal().tasks[f"{INSTANCE}/gpt/run1"].attempt == "a1"


def test_what_fleet_collected_itself_is_not_adopted_again(bench: Bench, tmp_path: Path) -> None:
    prepared = build_result(tmp_path / "prepared")
    outputs = {"root": "{workdir}/outputs", "marker": "output.jsonl"}
    bench.hosts["eval1"].run(f"mkdir -p outputs/gpt_maxiter_9; cp -r {prepared}/. outputs/gpt_maxiter_9", outputs=outputs)
    assert [row["got"] for row in bench.fleet()[1]["results"]] == ["collected"]
    code, document = bench.fleet("--batch", "phase8", "eval1", "--adopt", "outputs")
    assert (code, [row["got"] for row in document["results"]]) == (0, ["already here"])


def test_nothing_is_adopted_while_an_eval_runs_on_the_host(bench: Bench) -> None:
    by_hand(bench, FIRST)
    foreign = subprocess.Popen(["/bin/sh", "-c", "sleep 60; : run_infer_of_this_test"])
    try:
        code, document = bench.fleet("eval1", "--adopt", "evaluation")
        assert code == 4
        assert [row["got"] for row in document["results"]] == ["busy"]
        assert "did not start" in document["results"][0]["error"]
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()
    assert bench.fleet("eval1", "--adopt", "evaluation")[0] == 0


def test_a_directory_that_holds_nothing_is_said_with_the_hosts_that_were_asked(bench: Bench) -> None:
    code, document = bench.fleet("--adopt", "nothere", "--instance", INSTANCE)
    assert (code, document["error"]["code"]) == (1, "input")
    assert document["error"]["message"] == f"no result of {INSTANCE} below nothere on eval1, eval2"
    assert not bench.collected.exists()


def test_what_fleet_started_in_another_batch_is_pointed_out_not_adopted(bench: Bench, tmp_path: Path) -> None:
    prepared = build_result(tmp_path / "prepared")
    outputs = {"root": "{workdir}/outputs", "marker": "output.jsonl"}
    host = bench.hosts["eval1"]
    host.run(f"mkdir -p outputs/gpt_maxiter_9; cp -r {prepared}/. outputs/gpt_maxiter_9", outputs=outputs)
    for directory in ("outputs", "~"):
        code, document = bench.fleet("--batch", "mine", "eval1", "--adopt", directory)
        assert (code, {row["got"] for row in document["results"]}) == (4, {"failed"})
        assert "fleet itself started this eval" in document["results"][0]["error"]
        assert document["results"][0]["hint"] == "fleet collect eval1"
    assert not bench.collected.exists()
    assert [row["got"] for row in bench.fleet("eval1")[1]["results"]] == ["collected"]
    code, document = bench.fleet("--batch", "mine", "eval1", "--adopt", "outputs")
    assert (code, [(row["got"], row["path"]) for row in document["results"]]) == (
        0,
        [("already here", f"phase8/{INSTANCE}/gpt/run1/attempt1")],
    )
    with (host.home / "work/outputs/gpt_maxiter_9/output.jsonl").open("a") as by_hand_since:
        by_hand_since.write("\n")
    code, document = bench.fleet("--batch", "mine", "eval1", "--adopt", "outputs")
    assert [(row["got"], row["path"]) for row in document["results"]] == [("adopted", f"mine/{INSTANCE}/gpt/run1/attempt1")]
