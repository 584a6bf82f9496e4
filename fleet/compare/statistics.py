"""The statistics, in terms of statsmodels and scipy: what is asked of them, and nothing of how they do it.

Everything random is seeded, so the same results give the same intervals every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

SEED = 20_240_623
RESAMPLES = 9_999
POWER = 0.8


class Interval(NamedTuple):
    """An interval of confidence."""

    low: float
    high: float


def wilson(successes: int, n: int, alpha: float) -> Interval | None:
    """Return Wilson's interval of a share at 1 - `alpha`, or None without cases."""
    if n == 0:
        return None
    low, high = proportion_confint(successes, n, alpha=alpha, method="wilson")
    return Interval(float(low), float(high))


def pass_at_k(resolved: int, runs: int, k: int) -> float:
    """Return the chance that one of `k` runs drawn from these resolves: unbiased, after Chen et al. 2021; `runs` >= `k`."""
    return 1.0 - math.comb(runs - resolved, k) / math.comb(runs, k)


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided exact p-value of a paired table from its two discordant cells."""
    if only_a + only_b == 0:
        return 1.0
    return float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def paired_permutation(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of a mean paired difference under exchange of the sides within each pair.

    For one run per instance this is the exact McNemar test again; it also holds for shares of several runs.
    """
    values = numpy.asarray(differences, dtype=float)
    values = values[values != 0.0]
    if len(values) < 2:  # One pair exchanged is as far off as it was.
        return 1.0
    test = stats.permutation_test(
        (values,),
        lambda drawn, axis: numpy.mean(drawn, axis=axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=numpy.random.default_rng(SEED),
    )
    return float(test.pvalue)


def bootstrap(values: Sequence[float], alpha: float) -> Interval | None:
    """Return the percentile bootstrap interval of a mean over instances, or None without values."""
    if not values:
        return None
    if len(set(values)) == 1:
        return Interval(values[0], values[0])
    found = stats.bootstrap(
        (numpy.asarray(values, dtype=float),),
        numpy.mean,
        n_resamples=RESAMPLES,
        confidence_level=1 - alpha,
        method="percentile",
        vectorized=True,
        batch=500,
        rng=numpy.random.default_rng(SEED),
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given."""
    if not p_values:
        return []
    return [float(value) for value in multipletests(list(p_values), method="holm")[1]]


def detectable(differences: Sequence[float], alpha: float) -> float | None:
    """Return the smallest true mean difference that this many pairs with this much disagreement show four times in five.

    None where the pairs never disagree, or are fewer than two: nothing is known of the spread then.
    """
    spread = math.sqrt(math.fsum(value * value for value in differences) / len(differences)) if differences else 0.0
    if len(differences) < 2 or spread == 0.0:
        return None
    size = len(differences)
    critical = float(stats.t.isf(alpha / 2, size - 1))

    def power(effect: float) -> float:
        # statsmodels' TTestPower adds the tail where the difference is seen the wrong way round, which is NaN for some sizes.
        return float(stats.nct.sf(critical, size - 1, effect * math.sqrt(size)))

    # No true difference is above 1.
    largest = min(1.0 / spread, (4.0 * critical + 10.0) / math.sqrt(size))
    if not power(largest) > POWER:
        return 1.0
    return min(1.0, float(optimize.brentq(lambda effect: power(effect) - POWER, 0.0, largest)) * spread)
