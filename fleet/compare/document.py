"""`fleet.compare/1`: what a comparison found, in numbers and in sentences."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.model.base import Strict

SCHEMA = "fleet.compare/1"


class Bounds(Strict):
    """An interval at the document's confidence."""

    low: float
    high: float


class PassAtK(Strict):
    """pass@k over the instances that have at least k valid runs."""

    k: int
    value: float
    instances: int


class SideFigures(Strict):
    """One side alone."""

    name: str
    instances: int
    """Those with at least one valid run; the rate is the mean over them."""
    runs: int
    resolved: int
    """Valid runs that resolved their instance."""
    rate: float | None
    interval: Bounds | None
    method: Literal["wilson", "bootstrap over instances"]
    """How the interval was made: Wilson's holds for one run per instance, the bootstrap also for several."""
    pass_at: tuple[PassAtK, ...] = ()
    excluded: dict[str, int]
    """Runs left out because they say nothing about the model, by reason."""


class PairFigures(Strict):
    """Two sides on the instances that both have valid runs of."""

    a: str
    b: str
    shared: int
    both: int
    """Instances resolved by both; with several runs, those where the sides' shares are equal and not zero."""
    a_better: tuple[str, ...]
    b_better: tuple[str, ...]
    neither: int
    difference: float
    """Rate of `a` less rate of `b`, on the shared instances."""
    interval: Bounds
    test: Literal["exact McNemar", "paired permutation"]
    p: float
    p_holm: float
    """Adjusted for the number of pairs in this document."""
    detectable: float | None
    """The smallest true difference that would be seen four times in five."""
    words: str


class Comparison(Strict):
    """`fleet compare`."""

    schema_: Literal["fleet.compare/1"] = Field(default="fleet.compare/1", alias="schema")
    alpha: float
    sides: tuple[SideFigures, ...]
    pairs: tuple[PairFigures, ...]
