"""What people see of care: status words, lanes and lines of change, hints with their batch, and what commands refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.cli.main import run
from fleet.cli.options import Context
from fleet.dashboard.lanes import changes, lanes_of
from fleet.dashboard.summary import summarize
from fleet.dispatch.answers.resume import typed
from fleet.dispatch.resolve import resolve_assignment
from fleet.model.records import AttemptMoving, AttemptStalled, ControllerLeft, HostQuarantined, HostReleased, QuarantineTold
from fleet.model.states import AttemptState, Link
from fleet.model.verdict import Cause, Outcome
from tests.support.batches import Batch, reject, task
from tests.support.datasets import task as entry
from tests.support.datasets import write_dataset

BROKEN = reject("environment-broken", "docker: command not found")
SINCE = "2026-11-20T12:00:05.000Z"


def quarantined() -> Batch:
    a, b = task("a"), task("b")
    batch = Batch([a, b]).ready().run(a, "eval1", Outcome.REJECTED, BROKEN, cause=Cause.ENVIRONMENT)
    return batch.add(HostQuarantined(host="eval1", reason="1 tasks in a row ended badly here (a: x)", attempts=()))


def test_a_quarantine_and_its_end_are_one_line_each_with_the_next_command() -> None:
    batch = quarantined()
    before = Batch(batch.tasks).ready().state
    (line,) = [line for line in changes(before, batch.state) if line.startswith("eval1 ")]
    assert line == "eval1 quarantined: 1 tasks in a row ended badly here (a: x)  → fleet release eval1"
    held = batch.add(QuarantineTold(host="eval1")).state
    assert list(changes(held, batch.add(HostReleased(host="eval1")).state)) == [
        "eval1 released from quarantine; it is checked before it gets a task"
    ]


def test_a_host_in_quarantine_is_counted_listed_and_explained_by_the_summary() -> None:
    batch = quarantined()
    summary = summarize(batch.leave().state, batch.now)
    (host,) = summary.hosts
    assert (host.status, host.fix) == ("quarantined", "fleet why eval1 --batch phase8")
    assert "ended badly here" in host.reason
    assert summary.host_counts["quarantined"] == 1
    (group,) = [one for one in summary.failures if one.failure == "host-quarantined"]
    assert (group.count, group.fix) == (1, "fleet why eval1 --batch phase8")
    (lane,) = lanes_of(batch.state, {}, batch.now)
    assert (lane.status, lane.phase) == ("quarantined", "quarantined")


def test_a_host_in_quarantine_that_cannot_be_reached_is_explained_by_its_quarantine() -> None:
    batch = quarantined().link("eval1", Link.UNREACHABLE)
    (host,) = summarize(batch.state, batch.now).hosts
    assert host.status == "unreachable"


def test_a_stalled_eval_is_shown_in_the_live_lanes_the_summary_and_as_lines_of_change() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    attempt = batch.launch(one)
    running = batch.state
    stalled = batch.at(900).add(AttemptStalled(attempt=attempt, since=SINCE, idle_s=895.0)).state
    (lane,) = lanes_of(stalled, {}, batch.now)
    assert (lane.phase, lane.status, lane.stalled) == ("STALLED", "busy", True)
    (host,) = summarize(stalled, batch.now).hosts
    assert host.stalled_since == "2026-11-20T12:00:05Z"
    (line,) = changes(running, stalled)
    assert line == f"a/gpt/run1 STALLED on eval1: nothing of it moved since {SINCE}  → fleet why a/gpt/run1 --batch phase8"
    assert list(changes(stalled, batch.add(AttemptMoving(attempt=attempt)).state)) == ["a/gpt/run1 moves again on eval1"]


@pytest.mark.parametrize(
    ("template", "command"),
    [
        ("fleet retry TASK", "fleet retry HOST/TASK/run1 --batch phase8"),
        ("fleet logs TASK -f", "fleet logs HOST/TASK/run1 -f --batch phase8"),
        ("fleet check HOST", "fleet check eval1"),
        ("fleet collect", "fleet collect phase8"),
        ("fleet collect --again", "fleet collect phase8 --again"),
        ("fleet why TASK --batch other", "fleet why HOST/TASK/run1 --batch other"),
        ("on eval1: systemctl start docker", "on eval1: systemctl start docker"),
    ],
)
def test_a_next_command_says_which_batch_it_is_about_and_fills_each_word_once(template: str, command: str) -> None:
    assert typed(template, Batch([]).state, task="HOST/TASK/run1", host="eval1") == command


@pytest.fixture
def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "collected"


def test_a_retry_says_when_the_running_controller_leaves_the_task_out(
    collected: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = task("a"), task("b")
    batch = Batch([a, b]).ready()
    for one in (a, b):
        batch.run(one, "eval1", Outcome.REJECTED, BROKEN, cause=Cause.ENVIRONMENT)
    batch.records[0] = batch.records[0].model_copy(update={"only": (a.label,)})
    batch.write(collected)
    monkeypatch.setattr("fleet.dispatch.files.batch.Batch.nudge", lambda _: True)
    assert run(["retry", "a", "b", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["left_out"], document["controller_running"]) == ([b.label], True)
    assert document["next"].startswith("fleet dispatch")
    batch.write(collected / "again")
    assert run(["retry", "a", "b", "--collected", str(collected / "again")]) == 0
    said = capsys.readouterr().out
    assert "the running controller starts 1 of them: it runs with --only or --hosts, which leave out b/gpt/run1" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--retry", "held=1"], "'held' is not a class that can be retried by itself"),
        (["--retry", "environment"], "environment: '' is not a number from 0 to 100"),
        (["--retry", "environment=101"], "environment: '101' is not a number"),
        (["--halt", "now"], "is not a rule"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_before_anything_is_touched(
    collected: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    Path("hosts.yaml").write_text("hosts:\n  eval1: {address: 127.0.0.1}\n")
    write_dataset(Path("d.json"), "a-1")
    Path("a.json").write_text(json.dumps({"eval1": [entry("a-1", "gpt", "d.json")]}))
    assert run(["dispatch", "a.json", *words]) == 1
    assert said in capsys.readouterr().err
    assert not collected.exists()


def test_a_policy_in_the_assignment_is_read_with_its_defaults_and_refused_when_it_cannot_be(
    collected: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hosts.yaml").write_text("hosts:\n  eval1: {address: 127.0.0.1}\n")
    write_dataset(Path("d.json"), "a-1")
    document = {"$defaults": {"retry": {"lost": 1}}, "eval1": [entry("a-1", "gpt", "d.json")]}
    Path("a.json").write_text(json.dumps(document))
    assert run(["dispatch", "a.json", "--dry-run"]) == 0
    document["$defaults"] = {"retry": {"cancelled": 1}}
    Path("a.json").write_text(json.dumps(document))
    assert run(["dispatch", "a.json", "--dry-run"]) == 1
    assert "'cancelled' is not a class that can be retried by itself" in capsys.readouterr().err


def test_a_released_host_is_noted_in_every_batch_that_holds_it_back_only_when_it_answered(
    collected: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("hosts.yaml").write_text("hosts:\n  eval1: {address: 127.0.0.1, port: 1}\n")
    folder = quarantined().add(ControllerLeft(why="incomplete")).write(collected)
    before = (folder / "journal.jsonl").read_bytes()
    code = run(["release", "eval1", "--json"])
    (row,) = json.loads(capsys.readouterr().out)["hosts"]
    assert code & (4 | 16)
    assert (row["released"], row["batches"]) == (False, [])
    assert (folder / "journal.jsonl").read_bytes() == before


def test_the_plan_counts_what_a_policy_will_start_anew(
    collected: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("hosts.yaml").write_text("hosts:\n  eval1: {address: 127.0.0.1}\n")
    write_dataset(Path("d.json"), "a-1")
    Path("phase8.json").write_text(json.dumps({"eval1": [entry("a-1", "gpt", "d.json")]}))
    inventory, pipelines = Context({}).inventory(), Context({}).pipelines()
    (one,) = resolve_assignment(Path("phase8.json"), inventory, pipelines).tasks
    batch = Batch([one]).ready()
    attempt = batch.launch(one)
    batch.observe(attempt, AttemptState.LOST, reason="killed").leave().write(collected)
    for words, fate in (([], "over"), (["--retry-lost", "1"], "to_run")):
        assert run(["dispatch", "phase8.json", "--dry-run", "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out)["places"]["eval1"][0]["fate"] == fate
