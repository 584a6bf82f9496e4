"""The text of `fleet collect`: one table, then what is left to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fleet.cli.output import Style, table
from fleet.collect.outcome import Got, Result
from fleet.model.names import visible
from fleet.model.verdict import Outcome

_QUIET = frozenset({Got.ALREADY, Got.RUNNING, Got.NOT_STARTED})


def summary_of(results: Sequence[Result]) -> dict[str, int]:
    """Return how many rows came to what end, and the verdicts on what was brought."""
    counted = Counter(str(result.got) for result in results)
    brought = [result for result in results if result.got in (Got.COLLECTED, Got.ADOPTED)]
    verdicts = Counter(str(result.verdict) for result in brought)
    return {
        **{str(got).replace(" ", "_"): counted[str(got)] for got in Got},
        **{str(outcome): verdicts[str(outcome)] for outcome in Outcome},
        "bytes": sum(result.bytes or 0 for result in brought),
    }


def line_of(result: Result) -> str:
    """Return one row as a plain line, for a log or a progress bar."""
    parts = [result.host, result.task, str(result.got)]
    if result.verdict is not None:
        parts.append(str(result.verdict) + (f" ({', '.join(result.reasons)})" if result.reasons else ""))
    if result.error:
        parts.append(result.error)
    return visible("  ".join(part for part in parts if part))


def render(results: Sequence[Result], collected: Path, hosts: int, style: Style) -> str:
    """Return what was brought, what was not and why, and the sum."""
    lines = []
    shown = [result for result in results if result.got not in _QUIET]
    if shown:
        header = ("host", "batch", "task", "result", "verdict", "files", "size", "path or reason")
        lines.append(table(header, [_row(result, collected, style) for result in shown], style))
    for result in shown:
        if result.hint and result.error:
            lines.append(f"  → {visible(result.task or result.host)}: {visible(result.hint)}")
        lines += [f"  {style.yellow('⚠')} {visible(f.subject or '')}: {visible(f.message)}" for f in result.findings[:5]]
        if len(result.findings) > 5:
            manifest = visible(str(collected / result.path / "manifest.json"))
            lines.append(f"  {style.yellow('⚠')} and {len(result.findings) - 5} more, in {manifest}")
    counted = Counter(result.got for result in results)
    said = [f"{count} {got}" for got, count in counted.items()]
    sum_line = f"{hosts} host{'s' * (hosts != 1)}: {', '.join(said) or 'nothing to collect'}"
    lines.append(style.bold(sum_line))
    return "\n".join(lines)


def _row(result: Result, collected: Path, style: Style) -> tuple[str, ...]:
    good = result.got in (Got.COLLECTED, Got.ADOPTED)
    paint = {Outcome.ACCEPTED: style.green, Outcome.FLAGGED: style.yellow, Outcome.REJECTED: style.red}
    verdict = paint[result.verdict](str(result.verdict)) if result.verdict is not None else "-"
    return (
        visible(result.host),
        visible(result.batch) or "-",
        visible(result.task or result.attempt) or "-",
        style.green(str(result.got)) if good else style.red(str(result.got)),
        verdict,
        "-" if result.files is None else str(result.files),
        "-" if result.bytes is None else _size(result.bytes),
        visible(result.error or (str(collected / result.path) if result.path else ""), 200),
    )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
