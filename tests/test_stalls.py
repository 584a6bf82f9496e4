"""An eval stands still when log, CPU and containers do, by the controller's clock, and a gap in its sight proves nothing."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.dispatch.rules.stalls import MAX_GAP_S, Signs, StallRule, Watch, signs_of


def watched(*looks: tuple[float, Signs]) -> tuple[Watch, list[bool]]:
    watch = Watch("a1")
    return watch, [watch.look(signs, now) for now, signs in looks]


def still(seconds: float, every: float = 10.0, signs: Signs | None = None) -> list[tuple[float, Signs]]:
    return [(every * n, signs or Signs(10, 1.0, 0, 0.0)) for n in range(int(seconds / every) + 1)]


def test_nothing_that_moves_is_idle_for_all_of_that_time() -> None:
    watch, moved = watched(*still(900))
    assert not any(moved)
    assert watch.idle_s(900.0) == 900.0


@pytest.mark.parametrize(
    "signs",
    [Signs(11, 1.0, 0, 0.0), Signs(10, 2.1, 0, 0.0), Signs(10, 1.0, 1, 0.0), Signs(10, 1.0, 0, 1.5), Signs(10, 1.5, 0, 0.6)],
    ids=["log", "cpu", "containers", "cpu of containers", "both together"],
)
def test_each_sign_of_life_counts(signs: Signs) -> None:
    watch, moved = watched(*still(600), (610.0, signs))
    assert moved[-1]
    assert watch.idle_s(610.0) == 0.0


def test_a_process_that_only_wakes_up_now_and_then_does_not_move() -> None:
    looks = [(10.0 * n, Signs(10, 0.1 * n, 0, 0.05 * n)) for n in range(91)]
    watch, moved = watched(*looks)
    assert not any(moved)
    assert watch.idle_s(900.0) == 900.0


def test_a_slow_worker_moves() -> None:
    watch, moved = watched(*[(10.0 * n, Signs(10, 0.3 * n, 0, 0.0)) for n in range(91)])
    assert sum(moved) > 10
    assert watch.idle_s(900.0) < 60.0


def test_children_that_end_and_take_their_cpu_time_along_are_movement() -> None:
    _, moved = watched((0.0, Signs(10, 90.0)), (10.0, Signs(10, 3.0)))
    assert moved == [False, True]


def test_a_gap_starts_the_time_anew_and_never_counts_as_idle() -> None:
    watch, moved = watched((0.0, Signs(10, 1.0)), (10.0, Signs(10, 1.0)), (11.0 + MAX_GAP_S, Signs(10, 1.0)))
    assert not any(moved)
    assert watch.idle_s(11.0 + MAX_GAP_S) == 0.0
    watch.look(Signs(10, 1.0), 31.0 + MAX_GAP_S)
    assert watch.idle_s(31.0 + MAX_GAP_S) == 20.0


def test_what_the_host_does_not_tell_is_unknown_and_not_zero() -> None:
    assert signs_of({"log_size": 5}) == Signs(log=5)
    assert signs_of({"log_size": 5}).unknown(StallRule()) == ("cpu_s",)
    assert signs_of({"log_size": 5}).unknown(StallRule(containers=True)) == ("cpu_s", "containers", "containers_cpu_s")
    told = {"log_bytes": 7, "cpu_s": 1.5, "containers": 2, "containers_cpu_s": None}
    assert signs_of({"progress": told}) == Signs(7, 1.5, 2, None)


@pytest.mark.parametrize(
    "progress", [None, [], "x", {"log_bytes": "9", "cpu_s": True, "containers": 1.5, "containers_cpu_s": -1}]
)
def test_nonsense_from_a_host_is_unknown(progress: Any) -> None:
    assert signs_of({"progress": progress}).cpu_s is None
    assert signs_of({"progress": progress}).containers is None
    assert signs_of({"progress": {"cpu_s": float("nan")}}).cpu_s is None
