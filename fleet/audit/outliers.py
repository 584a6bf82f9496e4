"""Results far outside of what their own batch shows: duration, cost and length of the history, model by model. Pure."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from fleet.audit.document import BatchFinding
from fleet.audit.judged import Judged

MIN_RESULTS = 8
"""Fewer results of a model show no usual size of anything."""
FAR = 5.0
"""Distance from the median in scaled median absolute deviations of the logarithms, from where a value is an outlier."""
FACTOR = 4.0
"""And at least so many times the median, or so small a part of it: in a batch of equals, small differences are far."""

MEASURES: dict[str, tuple[Callable[[Judged], float | None], str]] = {
    "duration": (lambda one: one.provenance.elapsed_s if one.provenance else None, "s"),
    "cost": (lambda one: one.verdict.facts.cost_usd, "USD"),
    "history": (lambda one: one.verdict.facts.history_entries, "entries"),
}


def outliers(results: Sequence[Judged]) -> Iterator[BatchFinding]:
    """Yield one finding per result and measure that stands out among the results of its model."""
    models: dict[str, list[Judged]] = defaultdict(list)
    for one in results:
        models[one.verdict.model or ""].append(one)
    for group in models.values():
        for name, (measure, unit) in MEASURES.items():
            known = [(one, value) for one in group if (value := measure(one)) is not None and value > 0]
            if len(known) >= MIN_RESULTS:
                yield from _far(name, unit, known)


def _far(name: str, unit: str, known: Sequence[tuple[Judged, float]]) -> Iterator[BatchFinding]:
    logs = [math.log(value) for _, value in known]
    middle = statistics.median(logs)
    deviation = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    for (one, value), log in zip(known, logs, strict=True):
        distance = abs(log - middle)
        if distance >= math.log(FACTOR) and distance > FAR * deviation:
            usual = math.exp(middle)
            words = f"The {name} of {one.instance} is {value:.4g} {unit}; half of the batch has under {usual:.4g}."
            yield BatchFinding(code="outlier", message=words, paths=(one.verdict.path,))
