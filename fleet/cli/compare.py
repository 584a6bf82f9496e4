"""`fleet compare`: models or batches against each other, on the instances that they share."""

from __future__ import annotations

import itertools
from dataclasses import replace

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style, table
from fleet.compare.comparison import compare as figures_of
from fleet.compare.document import SCHEMA, Bounds, Comparison, PairFigures, SideFigures
from fleet.compare.sides import Side
from fleet.compare.sources import read_sides
from fleet.compare.words import p_text
from fleet.errors import InputError


@fleet_command(
    "compare",
    example="fleet compare phase8\nfleet compare phase8:gpt phase9:gpt --k 1,3\nfleet compare a.json b.json --json",
)
@click.argument("sides", nargs=-1, required=True, metavar="SIDE...")
@click.option(
    "--k", "ks", default="1", show_default=True, metavar="K[,K]", help="Also show pass@K of runs repeated per instance."
)
@click.option(
    "--alpha", default=0.05, show_default=True, type=click.FloatRange(0.0001, 0.5), help="1 - confidence of intervals."
)
def compare(ctx: Context, sides: tuple[str, ...], ks: str, alpha: float) -> int:
    """Compare models or batches: resolved rates with intervals, and every pair on the instances that both were valid on.

    SIDE is a batch, a directory of results, or the report of a SWE-bench run; :MODEL behind it takes that model alone, without
    it every model is a side. Runs that failed for a reason that is not the model's are left out and counted.
    """
    found = _read(ctx, sides)
    if len(found) < 2:
        raise InputError(f"{found[0].name} is one side, and two are needed", hint="fleet compare BATCH:MODEL BATCH:MODEL")
    comparison = figures_of(found, alpha, _ks(ks))
    if not comparison.pairs:
        raise InputError("no two sides have an instance in common with a valid run on either", hint="fleet validate collected")
    body = comparison.model_dump(mode="json", by_alias=True)
    del body["schema"]
    ctx.emit_text(SCHEMA, body, lambda: _page(comparison, ctx.style()))
    return 0


def _read(ctx: Context, named: tuple[str, ...]) -> list[Side]:
    """Return the sides, each once; names that come from one source only are told apart by the model alone."""
    found: list[Side] = []
    for one in dict.fromkeys(named):
        for side in read_sides(one, ctx.collected):
            same = next((other for other in found if other.name == side.name), None)
            if same is None:
                found.append(side)
            elif same.runs != side.runs:
                # Two files or directories of one name are two sides.
                model = side.name.partition(":")[2]
                found.append(replace(side, name=one if not model or one.endswith(f":{model}") else f"{one}:{model}"))
    sources = {side.name.partition(":")[0] for side in found}
    if len(sources) > 1 or any(":" not in side.name for side in found):
        return found
    return [replace(side, name=side.name.partition(":")[2]) for side in found]


def _ks(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= 10_000 for part in parts):
        raise InputError(f"--k {text!r} is not a list of whole numbers", hint="e.g. --k 1,5")
    return tuple(sorted({int(part) for part in parts}))


def _page(comparison: Comparison, style: Style) -> str:
    confidence = f"{(1 - comparison.alpha) * 100:g} %"
    ks = sorted({one.k for side in comparison.sides for one in side.pass_at})
    head = ("side", "instances", "resolved", confidence + " interval", *(f"pass@{k}" for k in ks), "left out")
    alone = table(head, [_row(side, ks) for side in comparison.sides], style)
    pairs_head = ("a", "b", "shared", "both", "a only", "b only", "neither", "difference", "p", "Holm p")
    pairs = table(pairs_head, [_pair_row(pair) for pair in comparison.pairs], style)
    told = {(pair.a, pair.b) for pair in comparison.pairs}
    apart = [
        f"{a.name} and {b.name} have no instance in common with a valid run on either, so they are not compared."
        for a, b in itertools.combinations(comparison.sides, 2)
        if (a.name, b.name) not in told
    ]
    return "\n\n".join([alone, pairs, "\n".join([*(pair.words for pair in comparison.pairs), *apart])])


def _row(side: SideFigures, ks: list[int]) -> tuple[str, ...]:
    pass_at = {one.k: f"{one.value * 100:.1f} % of {one.instances}" for one in side.pass_at}
    rate = "?" if side.rate is None else f"{side.rate * 100:.1f} % ({side.resolved}/{side.runs})"
    left_out = ", ".join(f"{number} {why}" for why, number in side.excluded.items()) or "0"
    return (
        side.name,
        str(side.instances),
        rate,
        _range(side.interval) if side.interval else "?",
        *(pass_at.get(k, "?") for k in ks),
        left_out,
    )


def _pair_row(pair: PairFigures) -> tuple[str, ...]:
    counts = (pair.shared, pair.both, len(pair.a_better), len(pair.b_better), pair.neither)
    difference = f"{pair.difference * 100:+.1f} ({_range(pair.interval)})"
    return (pair.a, pair.b, *map(str, counts), difference, p_text(pair.p), p_text(pair.p_holm))


def _range(bounds: Bounds) -> str:
    return f"{bounds.low * 100:.1f} to {bounds.high * 100:.1f}"
