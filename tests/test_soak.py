"""A small fleet under random faults comes to rest with every task accounted for; `make soak` is the large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.account import account
from tests.soak.run import Plan, soak
from tests.soak.watch import Sample, Watch


def test_a_small_fleet_under_faults_ends_with_every_task_accounted_for(tmp_path: Path) -> None:
    done = soak(Plan(hosts=4, evals=2, minutes=0.3, seconds=1.0, seed=11, every_s=0.5, lives=1), tmp_path)
    assert done.wrong == []
    # What was killed, and had no time left for its new attempt, has ended all the same.
    assert sum(done.account.states.values()) == 8
    assert done.account.states["accepted"] >= 4
    assert done.faults.counts["controller killed"] == 1
    assert sum(done.faults.counts.values()) >= 4
    assert len(done.watch.by_pid) >= 2


def test_the_account_of_a_soak_sees_a_second_start_and_a_lost_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, task = tmp_path / "h1", "soak-1/m/run1"
    home.mkdir()
    (home / "starts").write_text(f"a1 {task}\na2 {task}\na2 {task}\n")
    (home / "overlaps").write_text("a2\n")
    journal = [{"type": "judged", "attempt": "a1", "verdict": "accepted"}]

    class Fleet:
        tasks, disk = 2, tmp_path
        farm = type("Farm", (), {"names": ["h1"], "homes": {"h1": home}})
        operator = type("Operator", (), {"journal": lambda *_: journal, "states": lambda *_: {task: "running"}})()

    wrong = "\n".join(account(Fleet()).wrong)  # type: ignore[arg-type]
    for expected in (
        "1 of 2 tasks",
        "1 running",
        "a2 was started 2 times",
        f"{task} was started 3 times",
        "beside",
        "not here",
    ):
        assert expected in wrong


def test_growth_is_seen_in_the_longest_life_after_its_first_seconds() -> None:
    watch = Watch()
    watch.by_pid[1] = [Sample(float(at), 100.0 if at < 20 else 200.0 + at, 5, 7) for at in range(0, 200, 2)]
    watch.by_pid[2] = [Sample(float(at), 500.0, 9, 9) for at in range(0, 20, 2)]
    assert watch.slope("rss_mb") == pytest.approx(60.0)
    assert watch.slope("threads") == 0.0
    assert watch.highest("threads") == 9
