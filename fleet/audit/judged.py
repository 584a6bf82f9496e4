"""A result as an audit sees it: its verdict, and what fleet.json says of how it came about."""

from __future__ import annotations

from typing import NamedTuple

from fleet.model.verdict import Verdict
from fleet.quality import Provenance


class Judged(NamedTuple):
    """One result with its verdict and what fleet.json says of it."""

    verdict: Verdict
    provenance: Provenance | None = None

    @property
    def run(self) -> tuple[str | None, str | None, int | None]:
        """Whose result it is: instance, model, run; without a number every directory is a run of its own."""
        return self.verdict.instance_id, self.verdict.model, self.provenance.run if self.provenance else None

    @property
    def instance(self) -> str:
        """The instance's name for a sentence."""
        return self.verdict.instance_id or "?"
