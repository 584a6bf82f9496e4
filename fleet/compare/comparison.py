"""Sides in, figures out: each side alone, and every pair on the instances that both can speak about. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from fleet.compare.document import Bounds, Comparison, PairFigures, PassAtK, SideFigures
from fleet.compare.sides import Side
from fleet.compare.statistics import (
    Interval,
    bootstrap,
    detectable,
    exact_mcnemar,
    holm,
    paired_permutation,
    pass_at_k,
    wilson,
)
from fleet.compare.words import in_words


class _Pair(NamedTuple):
    """Two sides' shares of resolved runs on the instances that they share."""

    a: Side
    b: Side
    instances: tuple[str, ...]
    shares: tuple[tuple[float, float], ...]
    single: bool
    """Every instance has one valid run on either side."""

    @property
    def differences(self) -> list[float]:
        return [one - other for one, other in self.shares]


def compare(sides: Sequence[Side], alpha: float = 0.05, ks: Sequence[int] = (1,)) -> Comparison:
    """Return the figures of every side and of every pair of sides, p-values adjusted by Holm's method for all pairs."""
    pairs = [_pair(a, b) for a, b in itertools.combinations(sides, 2)]
    pairs = [pair for pair in pairs if pair.instances]
    p_values = [_p_value(pair) for pair in pairs]
    return Comparison(
        alpha=alpha,
        sides=tuple(_side(side, alpha, ks) for side in sides),
        pairs=tuple(
            _figures(pair, p, adjusted, alpha) for pair, p, adjusted in zip(pairs, p_values, holm(p_values), strict=True)
        ),
    )


def _side(side: Side, alpha: float, ks: Sequence[int]) -> SideFigures:
    valid = [runs for instance in side.runs if (runs := side.valid(instance))]
    shares = [sum(runs) / len(runs) for runs in valid]
    single = all(len(runs) == 1 for runs in valid)
    resolved = sum(map(sum, valid))
    interval = wilson(resolved, len(valid), alpha) if single else bootstrap(shares, alpha)
    return SideFigures(
        name=side.name,
        instances=len(valid),
        runs=sum(map(len, valid)),
        resolved=resolved,
        rate=math.fsum(shares) / len(shares) if shares else None,
        interval=_bounds(interval) if interval is not None else None,
        method="wilson" if single else "bootstrap over instances",
        pass_at=tuple(found for k in ks if (found := _pass_at(valid, k))),
        excluded=side.excluded(),
    )


def _pass_at(valid: Sequence[tuple[bool, ...]], k: int) -> PassAtK | None:
    chances = [pass_at_k(sum(runs), len(runs), k) for runs in valid if len(runs) >= k]
    return PassAtK(k=k, value=math.fsum(chances) / len(chances), instances=len(chances)) if chances else None


def _pair(a: Side, b: Side) -> _Pair:
    shared = tuple(instance for instance in a.runs if a.valid(instance) and b.valid(instance))
    runs = [(a.valid(instance), b.valid(instance)) for instance in shared]
    shares = tuple((sum(one) / len(one), sum(other) / len(other)) for one, other in runs)
    return _Pair(a, b, shared, shares, all(len(one) == len(other) == 1 for one, other in runs))


def _p_value(pair: _Pair) -> float:
    if not pair.single:
        return paired_permutation(pair.differences)
    return exact_mcnemar(sum(one > other for one, other in pair.shares), sum(one < other for one, other in pair.shares))


def _figures(pair: _Pair, p: float, adjusted: float, alpha: float) -> PairFigures:
    differences = pair.differences
    interval = bootstrap(differences, alpha)
    assert interval is not None
    figures = PairFigures(
        a=pair.a.name,
        b=pair.b.name,
        shared=len(pair.instances),
        both=sum(one == other != 0 for one, other in pair.shares),
        a_better=tuple(name for name, (one, other) in zip(pair.instances, pair.shares, strict=True) if one > other),
        b_better=tuple(name for name, (one, other) in zip(pair.instances, pair.shares, strict=True) if one < other),
        neither=sum(one == other == 0 for one, other in pair.shares),
        difference=math.fsum(differences) / len(differences),
        interval=_bounds(interval),
        test="exact McNemar" if pair.single else "paired permutation",
        p=p,
        p_holm=adjusted,
        detectable=detectable(differences, alpha),
        words="",
    )
    return figures.model_copy(update={"words": in_words(figures, alpha)})


def _bounds(interval: Interval) -> Bounds:
    return Bounds(low=interval.low, high=interval.high)
