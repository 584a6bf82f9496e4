"""summary.json and results.csv: whole or not at all, private, exact, and no spreadsheet runs what a host wrote."""

from __future__ import annotations

import csv
import json
import os
import stat
from pathlib import Path

import pytest

from fleet.dashboard import export
from fleet.dashboard.export import COLUMNS, cell, rebuild, write_atomically, write_summary
from fleet.dashboard.figures import Summary
from fleet.dashboard.summary import summarize
from fleet.errors import StorageError
from fleet.model.failures import FailureClass
from fleet.model.verdict import Cause, Facts, Outcome
from tests.support.batches import Batch, reject, seed_case, task


def read_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_results_csv_has_a_row_per_attempt_and_one_for_each_task_without(tmp_path: Path) -> None:
    batch = seed_case()
    write_summary(tmp_path, summarize(batch.state, batch.now))
    rows = read_csv(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 12
    by_task = {row["task"]: row for row in rows}
    rejected = by_task["1319603/gpt/run1"]
    assert rejected["state"] == rejected["verdict"] == "rejected"
    assert (rejected["cause"], rejected["codes"], rejected["failure"]) == ("environment", "no-tests-executed", "environment")
    assert (rejected["elapsed_s"], rejected["tests_passed"], rejected["cost_usd"], rejected["resolved"]) == (
        "655.0",
        "0",
        "",
        "false",
    )
    assert rejected["path"] == "1319603/gpt/run1#1"
    blocked = by_task["1319604/gpt/run1"]
    assert (blocked["state"], blocked["attempt"], blocked["number"]) == ("blocked", "", "")


def test_refused_and_repeated_attempts_are_rows_of_their_own(tmp_path: Path) -> None:
    one = task("a", "gpt", "eval1", "eval2")
    batch = Batch([one], ("eval1", "eval2")).ready()
    batch.refuse(batch.launch(one, "eval1", start=False), FailureClass.HOST_BUSY, "busy")
    batch.run(one, "eval2", Outcome.REJECTED, reject("eval-missing"), cause=Cause.HARNESS, number=2)
    batch.retry(one).run(one, "eval2", number=3)
    folder = batch.write(tmp_path)
    rebuild(folder)
    rows = read_csv(folder)
    assert [(row["number"], row["current"], row["state"], row["codes"]) for row in rows] == [
        ("1", "false", "refused", ""),
        ("2", "false", "rejected", "eval-missing"),
        ("3", "true", "accepted", ""),
    ]


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "\r=1", "＝1"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(formula: str) -> None:
    assert cell(formula).startswith("'")


def test_numbers_flags_and_harmless_text_stay_as_they_are() -> None:
    assert [cell(value) for value in (None, 0, 0.1, True, False, "a-b", ("x", "y"))] == [
        "",
        "0",
        "0.1",
        "true",
        "false",
        "a-b",
        "x;y",
    ]


def test_hostile_text_survives_the_round_trip_as_harmless_text(tmp_path: Path) -> None:
    one = task("a")
    error = '=HYPERLINK("http://x","y"), "quoted"\r\nnext \x1b[31mred \u202e\ud800'
    batch = Batch([one]).ready()
    batch.run(one, "eval1", Outcome.REJECTED, reject("agent-error", error), cause=Cause.MODEL, facts=Facts(error=error))
    write_summary(tmp_path, summarize(batch.state, batch.now))
    (row,) = read_csv(tmp_path)
    assert row["error"].startswith('\'=HYPERLINK("http://x","y")')
    raw = (tmp_path / "results.csv").read_text(encoding="utf-8")
    assert raw.count("\n") == 2
    assert not any(character in raw for character in "\x1b\u202e\r")


def test_the_files_are_private_and_replace_the_old_ones(tmp_path: Path) -> None:
    batch = seed_case()
    (tmp_path / "summary.json").write_text("old")
    write_summary(tmp_path, summarize(batch.state, batch.now))
    for name in ("summary.json", "results.csv"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "summary.json"]
    assert json.loads((tmp_path / "summary.json").read_bytes())["total"]["assigned"] == 12


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "summary.json"
    target.write_text("old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        write_atomically(target, b"new")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_symlink_in_the_place_of_a_file_is_replaced_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "summary.json").symlink_to(victim)
    write_atomically(tmp_path / "summary.json", b"new")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "summary.json").is_symlink()


def test_everything_is_rebuilt_from_the_journal_alone(tmp_path: Path) -> None:
    batch = seed_case(finished=True)
    folder = batch.write(tmp_path)
    first = rebuild(folder, batch.now)
    for name in ("summary.json", "results.csv"):
        (folder / name).unlink()
    assert rebuild(folder, batch.now) == first
    assert Summary.model_validate_json((folder / "summary.json").read_bytes()) == first
    assert export.results_csv(first.results) == (folder / "results.csv").read_bytes()
