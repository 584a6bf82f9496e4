"""A pair's figures as sentences: what may be concluded, and what could not have been seen."""

from __future__ import annotations

from fleet.compare.document import PairFigures


def in_words(pair: PairFigures, alpha: float) -> str:
    """Return the conclusion: which side resolves more, or that nothing is shown, and what difference would have been missed."""
    ahead, behind = (pair.a, pair.b) if pair.difference > 0 else (pair.b, pair.a)
    points = f"{abs(pair.difference) * 100:.1f} points"
    if pair.p_holm <= alpha:
        first = f"{ahead} resolves more than {behind}, by {points} of {_instances(pair.shared)} (p = {p_text(pair.p_holm)})."
    elif pair.difference == 0:
        first = f"No difference between {pair.a} and {pair.b} is shown on {_instances(pair.shared)}."
    else:
        first = (
            f"{ahead} is ahead of {behind} by {points} of {_instances(pair.shared)}, "
            f"which chance alone explains well enough (p = {p_text(pair.p_holm)})."
        )
    if pair.detectable is None:
        return first
    missed = f"a true difference below {pair.detectable * 100:.1f} points is missed more than one time in five"
    return f"{first} With so many instances, {missed}."


def p_text(p: float) -> str:
    """Return a p-value as people write it."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _instances(number: int) -> str:
    return "1 shared instance" if number == 1 else f"{number} shared instances"
