"""The benchmark's own tools: tables say what was reached, and its hosts' pipeline is one that fleet accepts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench import check, collect, distance, lite, peers, start, waiting
from tests.bench.collect import write_layout
from tests.bench.hosts import BenchHosts
from tests.bench.measure import Row, execute, in_turn, table

PARTS = (check, collect, distance, lite, peers, start, waiting)


def test_a_missed_goal_is_shown_as_missed_and_one_without_a_goal_as_neither() -> None:
    text = table("Check", [Row("a", 0.9, "×", 1.0), Row("b", 1.1, "×", 1.0), Row("c", 123.4, "ms")])
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("|")]
    assert [line[2:5] for line in lines[2:]] == [
        ["0.90 ×", "≤ 1.00 ×", "reached"],
        ["1.10 ×", "≤ 1.00 ×", "MISSED"],
        ["123 ms", "", ""],
    ]


def test_contestants_run_in_turn_after_a_warm_up() -> None:
    order: list[str] = []

    def run(name: str) -> object:
        def once() -> object:
            order.append(name)
            return execute([sys.executable, "-I", "-S", "-c", "pass"])

        return once

    found = in_turn(2, {"a": run("a"), "b": run("b")})  # type: ignore[dict-item]
    assert order == ["a", "b"] * 3
    assert all(series.wall_s > 0 and series.cpu_s > 0 for series in found.values())


def test_the_layout_is_92_files_and_3_9_mb(tmp_path: Path) -> None:
    write_layout(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 92
    assert 3.7e6 < sum(path.stat().st_size for path in files) < 4.1e6


def test_plain_ssh_and_fleet_do_the_work_on_the_same_hosts(tmp_path: Path) -> None:
    with BenchHosts(2, tmp_path / "farm") as hosts:
        assert execute(hosts.ssh_check(hosts.names)).code == 0
        answer = (hosts.answers / "eval2").read_text()
        assert answer.count("work/") == 5, answer
        ours = check.check(hosts, hosts.names)
        assert ours.code == 0
        assert '"ready": 2' in (hosts.answers / "check.json").read_text()


@pytest.mark.containers
@pytest.mark.timeout(900)
def test_a_warm_run_and_a_bare_container_run_the_same_tests_to_the_same_end(tmp_path: Path) -> None:
    rows = lite.overhead(tmp_path / "lite", 1)
    assert [row.limit for row in rows] == [1.15, None, None, None]
    assert "58 tests" in rows[0].what and "6 tests" in rows[2].what
    assert 0.1 < rows[0].value < 10, rows[0]  # one run of each on a busy machine: `make bench` takes the median of several
