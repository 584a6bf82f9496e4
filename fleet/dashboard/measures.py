"""Figures from raw measures: what a host or a harness reported is only counted when it can be true."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from fleet.dashboard.figures import Known, Spread, Tests
from fleet.model.verdict import Facts

_LARGEST = 1e15
_Z95 = 1.959963984540054


def measured(value: float | int | None) -> float | int | None:
    """Return `value`, or None when it is absent, negative, not finite or absurdly large.

    One NaN cost from a harness would make the cost of the whole batch NaN.
    """
    if value is None or not 0 <= value <= _LARGEST or not math.isfinite(value):
        return None
    return value


def spread(values: Iterable[float | int | None]) -> Spread:
    """Return the distribution of the known `values`; p95 interpolates linearly between order statistics."""
    known = sorted(value for value in map(measured, values) if value is not None)
    if not known:
        return Spread()
    return Spread(
        n=len(known),
        total=math.fsum(known),
        min=known[0],
        median=statistics.median(known),
        p95=percentile_95(known),
        max=known[-1],
    )


def percentile_95(ordered: Sequence[float]) -> float:
    """Return the 95th percentile of ordered, non-empty data (definition 7 of Hyndman and Fan)."""
    if len(ordered) == 1:
        return ordered[0]
    return statistics.quantiles(ordered, n=20, method="inclusive")[-1]


def known_sum(values: Sequence[float | int | None]) -> Known:
    """Return the sum of the known `values` and how many of them are known."""
    known = [value for value in map(measured, values) if value is not None]
    if not known:
        return Known(of=len(values))
    total = sum(known) if all(isinstance(value, int) for value in known) else round(math.fsum(known), 6)
    return Known(value=total, known=len(known), of=len(values))


def tests_of(results: Sequence[Facts]) -> Tests:
    """Return the F2P and P2P totals of the results that have both counts of both lists."""
    known = [row for row in map(_test_counts, results) if row is not None]
    if not known:
        return Tests(of=len(results))
    f2p_success, f2p_total, p2p_success, p2p_total = (sum(column) for column in zip(*known, strict=True))
    return Tests(
        f2p_success=f2p_success,
        f2p_total=f2p_total,
        p2p_success=p2p_success,
        p2p_total=p2p_total,
        known=len(known),
        of=len(results),
    )


def _test_counts(facts: Facts) -> tuple[int, int, int, int] | None:
    row = (facts.f2p_success, facts.f2p_total, facts.p2p_success, facts.p2p_total)
    counts = [int(value) for value in map(measured, row) if value is not None]
    return (counts[0], counts[1], counts[2], counts[3]) if len(counts) == len(row) else None


def wilson(successes: int, n: int) -> tuple[float, float] | None:
    """Return the Wilson 95 % interval of a share, or None without cases."""
    if n == 0:
        return None
    share, z2 = successes / n, _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def moment(text: str | None) -> datetime | None:
    """Return an ISO-8601 time in UTC, or None for anything else; a host may send any text as a time."""
    if not text or len(text) > 40:
        return None
    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def iso(when: datetime | None) -> str:
    """Return a time as the journal writes it, to the second; empty for None."""
    return "" if when is None else when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
