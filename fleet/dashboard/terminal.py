"""The dashboard in a terminal: calm, 80 to 110 columns, most important things last, ending with the command to type."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fleet.dashboard.figures import Figures, Stage, Summary
from fleet.dashboard.formats import amount, counted, duration, local_time, money, percent, rate, roughly, size
from fleet.dashboard.measures import moment
from fleet.dashboard.terminal_tables import failures_view, hosts_table, models_table
from fleet.dashboard.terminal_text import (
    BAD,
    GOOD,
    HEADING,
    LIVE,
    QUIET,
    WARN,
    Glyphs,
    Page,
    bar,
    foreign,
    glyphs_for,
    joined,
    legend,
    number,
    segments_of,
    share_bar,
)
from fleet.model.names import plain

MAX_WIDTH = 110
_STAGE_STYLE = {"valid": GOOD, "resolved": f"bold {GOOD}"}
_PROGRESS_STYLE = {"running": LIVE, "done": GOOD, "stopped": WARN, "empty": QUIET}


def render(summary: Summary) -> RenderableType:
    """Return the summary for a rich console; it adapts to the width, to missing colour and to ASCII."""
    return Dashboard(summary)


class Dashboard:
    """A summary as rich renders it."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the parts, top to bottom."""
        width = min(options.max_width, MAX_WIDTH)
        glyphs = glyphs_for(console, options)
        yield Page(Padding(Group(*self._parts(width - 2, glyphs)), (1, 1, 0, 1)), width)
        command = plain(self.summary.next.command)
        line = Text.assemble((f" {glyphs.arrow} ", f"bold {LIVE}"), (command, "bold"), no_wrap=True)
        # A page of its own, which does not fold: a command is there to be copied. Print with `crop=False`.
        yield Page(line, line.cell_len)

    def _parts(self, width: int, glyphs: Glyphs) -> Iterator[RenderableType]:
        summary = self.summary
        yield self._head(glyphs, width)
        if summary.clock_set:
            yield Text(f"{glyphs.warn} the clock here was set meanwhile: times and pace are wrong, durations not", style=WARN)
        if summary.halted is not None:
            yield joined([Text(f"{glyphs.bad} halted", style=BAD), foreign(summary.halted, limit=width - 12)])
        segments = segments_of(summary.total.states)
        yield bar(segments, width, glyphs)
        yield legend(segments, glyphs)
        yield from _section("FUNNEL", _funnel(summary.total, width, glyphs))
        yield from _section("", models_table(summary.by_model, width))
        yield from _section("", hosts_table(summary, width, glyphs))
        yield from _section("NUMBERS", _numbers(summary.total, glyphs))
        yield from failures_view(summary, width, glyphs)
        yield Text("")
        yield Text(plain(summary.next.why), style=QUIET)

    def _head(self, glyphs: Glyphs, width: int) -> RenderableType:
        summary = self.summary
        facts = [Text(summary.progress, style=_PROGRESS_STYLE[summary.progress])]
        if summary.wall_s is not None:
            facts.append(Text(duration(summary.wall_s)))
        if summary.pace.evals_per_hour is not None:
            facts.append(Text(rate(summary.pace.evals_per_hour)))
        if summary.pace.eta_s is not None and summary.progress != "stopped":
            until = local_time(summary.pace.eta_at, moment(summary.as_of))
            facts.append(Text(f"{roughly(summary.pace.eta_s)} left, until {until}"))
        if summary.progress in ("running", "stopped") and summary.pace.last_finish_at is not None:
            since, now = moment(summary.pace.last_finish_at), moment(summary.as_of)
            if since is not None and now is not None and width >= 95:
                facts.append(Text(f"last result {duration((now - since).total_seconds())} ago", style=QUIET))
        right = joined(facts, f" {glyphs.dot} ")
        name = foreign(summary.batch, "bold", max(8, width - right.cell_len - 2))
        return Text.assemble(
            name, " " * max(2, width - name.cell_len - right.cell_len), right, no_wrap=True, overflow="ellipsis"
        )


def _section(title: str, body: RenderableType | None) -> Iterator[RenderableType]:
    if body is not None:
        yield Text("")
        if title:
            yield Text(title, style=HEADING)
        yield body


def _funnel(figures: Figures, width: int, glyphs: Glyphs) -> RenderableType:
    cells = 16 if width < 95 else 28
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=9)
    grid.add_column(justify="right", no_wrap=True, min_width=5)
    grid.add_column(no_wrap=True, min_width=cells)
    grid.add_column(no_wrap=True, overflow="ellipsis")
    before: Stage | None = None
    for stage in figures.funnel:
        dropped = (
            [Text(f"{glyphs.minus}{count:,} {_said(name)}", style=_drop_style(name)) for name, count in before.out.items()]
            if before
            else []
        )
        if stage.name == "resolved" and figures.resolved_rate is not None:
            dropped.append(Text(_rate(figures, interval=width >= 95), style=QUIET))
        style = _STAGE_STYLE.get(stage.name, LIVE)
        grid.add_row(
            stage.name,
            number(stage.count, "bold"),
            share_bar(stage.count, figures.assigned, cells, style, glyphs),
            joined(dropped),
        )
        before = stage
    return grid


def _said(name: str) -> str:
    return {"pending": "waiting", "not-known": "not known if resolved"}.get(name, name)


def _drop_style(name: str) -> str:
    if name in ("rejected", "failed", "lost", "held"):
        return BAD
    return WARN if name == "blocked" else QUIET


def _rate(figures: Figures, *, interval: bool) -> str:
    answered = figures.fate.resolved + figures.fate.unresolved
    if not interval:
        return f"= {percent(figures.resolved_rate)} of {answered}"
    low, high = percent(figures.resolved_low).removesuffix(" %"), percent(figures.resolved_high)
    return f"= {percent(figures.resolved_rate)} of {answered} (95 % CI {low} to {high})"


def _numbers(figures: Figures, glyphs: Glyphs) -> RenderableType:
    fate = figures.fate
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=QUIET, no_wrap=True)
    grid.add_column()  # wraps: a figure that is cut is none
    separator = f" {glyphs.dot} "
    model = _nonzero(
        separator, (fate.unresolved, "eval valid, not resolved"), (fate.model_rejected, "left nothing to evaluate")
    )
    infra = _nonzero(separator, (fate.infrastructure, "failed"), (fate.unclear, "rejected, cause unclear"))
    grid.add_row("model failed", model)
    grid.add_row("infra failed", infra)
    time, patch, tests = figures.duration_s, figures.patch_bytes, figures.tests
    if time.n:
        grid.add_row(
            "duration",
            _spread(
                ("median", duration(time.median)),
                ("p95", duration(time.p95)),
                (f"{duration(time.min)} to {duration(time.max)}", ""),
                n=counted(time.n, "eval"),
            ),
        )
    else:
        grid.add_row("duration", Text("no eval has ended yet", style=QUIET))
    if patch.n:
        grid.add_row(
            "patch",
            _spread(
                ("median", size(patch.median)), (f"{size(patch.min)} to {size(patch.max)}", ""), n=counted(patch.n, "result")
            ),
        )
    if tests.known:
        grid.add_row(
            "tests",
            _spread(
                (f"F2P {tests.f2p_success:,} of {tests.f2p_total:,}", ""),
                (f"P2P {tests.p2p_success:,} of {tests.p2p_total:,}", ""),
                n=f"{counted(tests.known, 'valid result')}",
            ),
        )
    for name, known, shown in (("cost", figures.cost_usd, money), ("tokens", figures.tokens, amount)):
        if known.known:
            grid.add_row(
                name, _spread((shown(known.value), ""), n=f"reported by {known.known:,} of {counted(known.of, 'result')}")
            )
        elif known.of:
            grid.add_row(name, Text(f"not known: no result of {known.of:,} reports it", style=QUIET))
    return grid


def _spread(*parts: tuple[str, str], n: str) -> Text:
    return joined([*(Text(" ".join(part for part in pair if part)) for pair in parts), Text(n, style=QUIET)], "   ")


def _nonzero(separator: str, *parts: tuple[int, str]) -> Text:
    shown = [f"{count:,} {what}" for count, what in parts if count]
    return joined(shown, separator) if shown else Text("no failure", style=QUIET)
