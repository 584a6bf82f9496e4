"""An assignment holds what is missing, keeps an image on one host, and gives the hosts about the same time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.cli.main import run
from fleet.model.assignment import read_assignment
from fleet.model.verdict import Outcome, Verdict
from fleet.plan.planner import History, Key, Plan, Want, make_plan
from fleet.plan.sources import done_keys, durations
from fleet.quality import write_verdict

HOSTS = "defaults: {user: ubuntu}\nhosts:\n  eval1: {address: 192.0.2.1}\n  eval2: {address: 192.0.2.2}\n"


def want(instance: str, image: str, model: str = "gpt", run_number: int = 1) -> Want:
    return Want(Key(instance, model, run_number), Path(f"/data/{instance}.json"), image)


def spread(plan: Plan) -> dict[str, list[str]]:
    return {share.host: [task.key.instance_id for task in share.tasks] for share in plan.shares}


def test_tasks_of_one_image_stay_on_one_host() -> None:
    wants = [want(str(n), f"image{n % 3}") for n in range(12)]
    plan = make_plan(wants, (), ["eval1", "eval2"], History())
    homes: dict[str, set[str]] = {}
    for share in plan.shares:
        for task in share.tasks:
            homes.setdefault(task.image, set()).add(share.host)
    assert all(len(hosts) == 1 for hosts in homes.values())
    assert sum(len(share.tasks) for share in plan.shares) == 12


def test_the_longest_groups_are_placed_first_so_that_the_hosts_end_together() -> None:
    history = History({(str(n), "gpt"): minutes for n, minutes in enumerate([50, 40, 30, 20, 10])})
    plan = make_plan([want(str(n), f"i{n}") for n in range(5)], (), ["a", "b"], history)
    assert sorted(share.minutes for share in plan.shares) == [70, 80]


def test_the_same_input_gives_the_same_plan_whatever_its_order() -> None:
    wants = [want(str(n), f"i{n % 7}") for n in range(40)]
    assert make_plan(wants, (), ["a", "b", "c"], History()) == make_plan(wants[::-1], (), ["a", "b", "c"], History())


def test_what_is_done_is_left_out_and_counted() -> None:
    wants = [want(str(n), f"i{n}") for n in range(500)]
    plan = make_plan(wants, {item.key for item in wants[:421]}, ["a"], History())
    assert (plan.wanted, plan.missing, len(plan.shares[0].tasks)) == (500, 79, 79)


def test_an_unknown_duration_is_taken_from_the_instance_then_the_model_then_the_pipeline() -> None:
    history = History({("7", "gpt"): 30.0, ("8", "claude"): 50.0}, default=20.0)
    assert [history.minutes(Key(i, m, 1)) for i, m in (("7", "gpt"), ("7", "new"), ("9", "claude"), ("9", "new"))] == [
        30,
        30,
        50,
        20,
    ]


# --- the command


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hosts.yaml").write_text(HOSTS)
    scripts = tmp_path / "remote_scripts" / "openhands"
    scripts.mkdir(parents=True)
    (scripts / "pipeline.yaml").write_text(
        "schema: fleet.pipeline/1\nname: openhands\nworkdir: ~/x\ncommand: [run]\noutputs: {root: ~/x}\nexpected_minutes: 15\n"
    )
    (tmp_path / "datasets").mkdir()
    for number in range(4):
        record = {"instance_id": f"100{number}", "repo": "owner/repo", "base_commit": f"c{number}", "FAIL_TO_PASS": ["t"]}
        (tmp_path / "datasets" / f"{number}.jsonl").write_text(json.dumps(record))
    return tmp_path


def result(place: Path, instance: str, model: str, verdict: str, *, run_number: int = 1, minutes: float = 10) -> Path:
    directory = place / "collected" / "b" / instance / model / f"run{run_number}" / "attempt1"
    directory.mkdir(parents=True)
    write_verdict(directory, Verdict(path=".", instance_id=instance, verdict=Outcome(verdict)))
    (directory / "fleet.json").write_text(json.dumps({"elapsed_s": minutes * 60}))
    return directory


def test_the_file_is_an_assignment_with_paths_relative_to_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--datasets", "datasets", "--models", "gpt,claude", "--out", "phase8.json"]) == 0
    assert "8 missing of 8" in capsys.readouterr().out
    raw = (place / "phase8.json").read_bytes()
    entries = read_assignment(raw, "phase8.json", "0" * 64).entries
    assert {host for host, _ in entries} == {"eval1", "eval2"}
    assert {entry.dataset_file for _, entry in entries} == {f"datasets/{n}.jsonl" for n in range(4)}
    assert entries[0][1].task_name.startswith("owner__repo-100")
    assert (place / "phase8.json").stat().st_size == len(raw)


def test_a_dataset_that_is_not_below_the_file_has_an_absolute_path(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--datasets", "datasets/0.jsonl", "--models", "gpt", "--out", "a/b/plan.json"]) == 0
    document = json.loads((place / "a/b/plan.json").read_text())
    (entry,) = document["eval1"]
    assert entry["dataset_file"] == str(place / "datasets/0.jsonl")


def test_accepted_and_flagged_results_are_not_planned_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(place, "1000", "gpt", "accepted")
    result(place, "1001", "gpt", "flagged")
    result(place, "1002", "gpt", "rejected")
    (result(place, "1003", "gpt", "accepted")).rename(place / "collected/b/1003/gpt/run1/attempt1.partial")
    assert run(["plan", "--datasets", "datasets", "--models", "gpt", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["wanted"], document["missing"]) == ("fleet.plan/1", 4, 2)
    planned = {task["instance_id"] for tasks in document["assignment"].values() for task in tasks}
    assert planned == {"1002", "1003"}
    assert run(["plan", "--datasets", "datasets", "--models", "gpt", "--json", "--all"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 4


def test_when_nothing_is_missing_no_file_is_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(place, "1000", "gpt", "accepted")
    assert run(["plan", "--datasets", "datasets/0.jsonl", "--models", "gpt", "--out", "p.json"]) == 0
    assert "nothing is missing" in capsys.readouterr().out
    assert not (place / "p.json").exists()


def test_runs_make_more_tasks_and_only_the_missing_ones_remain(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result(place, "1000", "gpt", "accepted", run_number=2)
    assert run(["plan", "--datasets", "datasets/0.jsonl", "--models", "gpt", "--runs", "3", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [task.get("run", 1) for task in document["assignment"]["eval1"]] == [1, 3]


def test_a_shared_queue_has_one_key(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--datasets", "datasets", "--models", "gpt", "--shared", "--json"]
    assert run(words) == 0
    assert list(json.loads(capsys.readouterr().out)["assignment"]) == ["*"]
    assert run([*words, "--hosts", "eval*"]) == 0
    assert list(json.loads(capsys.readouterr().out)["assignment"]) == ["eval*"]


def test_hosts_that_are_left_idle_are_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--datasets", "datasets/0.jsonl", "--models", "gpt,claude", "--out", "phase8.json"]
    assert run(words) == 0
    assert "1 host without a task: tasks of one image stay together → --shared" in capsys.readouterr().out
    assert run([*words, "--shared", "--force"]) == 0
    assert "without a task" not in capsys.readouterr().out


def test_without_out_the_assignment_is_stdout_and_the_talk_is_stderr(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "--datasets", "datasets/*.jsonl", "--models", "gpt", "claude", "--hosts", "eval2"]) == 0
    captured = capsys.readouterr()
    assert list(json.loads(captured.out)) == ["eval2"]
    assert "8 missing of 8" in captured.err


def test_words_that_a_shell_expanded_all_belong_to_the_option(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"datasets/{number}.jsonl" for number in range(3)]
    assert run(["plan", "--datasets", *files, "--models", "gpt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wanted"] == 3


def test_durations_of_earlier_evals_are_averaged(place: Path) -> None:
    result(place, "1000", "gpt", "accepted", minutes=10)
    result(place, "1000", "gpt", "rejected", run_number=2, minutes=30)
    assert durations(place / "collected") == {("1000", "gpt"): 20.0}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", "null", '{"results": 7}', '{"results": []}', '{"results": [{"verdict": "accepted", "instance_id": "7"}]}'],
)
def test_an_unreadable_verdict_does_not_hide_a_missing_task(place: Path, content: str) -> None:
    directory = result(place, "1000", "gpt", "accepted")
    (directory / "verdict.json").write_text(content)
    assert done_keys(place / "collected") == set()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--datasets", "nowhere", "--models", "gpt"], "no dataset file there"),
        (["--datasets", "datasets", "--models", "a b"], "may only hold"),
        (["--datasets", "datasets", "--models", "gpt", "--hosts", "eval9"], "eval9"),
        (["--datasets", "datasets", "--models", "gpt", "--pipeline", "opnhands"], "did you mean 'openhands'"),
        (["--datasets", "datasets", "--models", "gpt", "--shared", "--hosts", "eval1,eval2"], "one pattern"),
        (["--datasets", "datasets", "--models", "gpt", "--runs", "0"], "not in the range"),
    ],
)
def test_a_wrong_wish_is_refused(place: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", *words]) == 1
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_two_datasets_of_one_instance_with_other_content_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads((place / "datasets/0.jsonl").read_text()) | {"base_commit": "other"}
    (place / "datasets/9.jsonl").write_text(json.dumps(record))
    assert run(["plan", "--datasets", "datasets", "--models", "gpt"]) == 1
    assert "with other content" in capsys.readouterr().err


def test_another_assignment_is_not_replaced_by_accident(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[Any] = ["plan", "--datasets", "datasets", "--models", "gpt", "--out", "p.json"]
    (place / "p.json").write_text("{}")
    assert run(words) == 1
    assert (place / "p.json").read_text() == "{}"
    assert run([*words, "--force"]) == 0
    assert run(words) == 0


def test_dispatch_takes_the_file_as_it_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "--datasets", "datasets", "--models", "gpt,claude", "--runs", "2", "--out", "assignments/phase8.json"]
    assert run(words) == 0
    capsys.readouterr()
    assert run(["dispatch", "assignments/phase8.json", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
