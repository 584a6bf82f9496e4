"""What is compared: for each side, what became of every run of every instance."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fleet.model.verdict import Cause, Outcome
from fleet.quality.causes import may_grade


@dataclass(frozen=True)
class Run:
    """One run of an instance; `resolved` is None when it says nothing about the model, for the reason in `why`."""

    resolved: bool | None
    why: str = ""


@dataclass(frozen=True)
class Side:
    """The runs of one model from one source, by instance."""

    name: str
    runs: Mapping[str, tuple[Run, ...]]

    def valid(self, instance: str) -> tuple[bool, ...]:
        """Return what the instance's runs came to, without those that were left out."""
        return tuple(run.resolved for run in self.runs.get(instance, ()) if run.resolved is not None)

    def excluded(self) -> dict[str, int]:
        """Return how many runs were left out, by reason, the most frequent first."""
        counted = Counter(run.why for runs in self.runs.values() for run in runs if run.resolved is None)
        return dict(counted.most_common())


def run_of(outcome: Outcome, resolved: bool | None, cause: Cause | None, failure: str = "") -> Run:
    """Return what a judged result says about its model.

    A rejected result counts as not resolved only where the model is to blame, e.g. for a missing patch; an environment, a
    provider or a harness that failed says nothing about the model.
    """
    if outcome is Outcome.REJECTED:
        return Run(False) if may_grade(outcome, cause) else Run(None, str(cause or failure or "rejected"))
    return Run(resolved, "" if resolved is not None else "no evaluation")


def sides_by_model(found: Iterable[tuple[str, str, Run]], source: str, only: str | None = None) -> list[Side]:
    """Return one side per model of (model, instance, run), called `source:model`; with `only`, of that model alone."""
    models: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for model, instance, run in found:
        if only is None or model == only:
            models[model][instance].append(run)
    return [
        Side(f"{source}:{model}" if model else source, {instance: tuple(runs) for instance, runs in by_instance.items()})
        for model, by_instance in models.items()
    ]
