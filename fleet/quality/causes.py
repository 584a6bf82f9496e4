"""What a cause means for a result: whether a new attempt can help, whether it may be graded, and what to do."""

from __future__ import annotations

from typing import NamedTuple

from fleet.model.verdict import Cause, Outcome


class Consequence(NamedTuple):
    """One row of the table; `do` is a sentence, with the command in backticks."""

    retry: bool
    grade: bool
    do: str


CONSEQUENCES: dict[Cause, Consequence] = {
    Cause.MODEL: Consequence(False, True, "Keep it: it counts as not resolved. A new attempt is another sample, not a repair."),
    Cause.ENVIRONMENT: Consequence(True, False, "Repair what the reason names, then `fleet retry --class environment`."),
    Cause.PROVIDER: Consequence(True, False, "Wait, or repair the key, then `fleet retry --class provider`."),
    Cause.HARNESS: Consequence(True, False, "Read the log, then `fleet retry TASK`."),
    Cause.TRANSFER: Consequence(False, False, "The eval itself is fine: `fleet collect --again`."),
    Cause.OPERATOR: Consequence(
        True, False, "Repair what was set up wrongly, usually with `fleet sync`, then `fleet retry TASK`."
    ),
}
"""Cause of a rejected result → what follows from it."""


def may_grade(outcome: Outcome, cause: Cause | None) -> bool:
    """Tell whether a result says something about its model: it counts, or was rejected through the model's own fault."""
    return outcome is not Outcome.REJECTED or (cause is not None and CONSEQUENCES[cause].grade)


def should_retry(outcome: Outcome, cause: Cause | None) -> bool:
    """Tell whether a new attempt can give a result where this one did not."""
    return outcome is Outcome.REJECTED and (cause is None or CONSEQUENCES[cause].retry)
