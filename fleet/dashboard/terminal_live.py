"""One frame of the live display, and the rich machinery that redraws it in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fleet.dashboard.formats import clock, duration, rate, roughly
from fleet.dashboard.funnel import states_of
from fleet.dashboard.hosts import pace_of
from fleet.dashboard.lanes import Lane, LaneLive, fit, lanes_of, rest_line
from fleet.dashboard.measures import moment
from fleet.dashboard.terminal_text import (
    BAD,
    QUIET,
    STATUS_STYLE,
    WARN,
    Glyphs,
    Page,
    bar,
    foreign,
    glyphs_for,
    joined,
    legend,
    segments_of,
)
from fleet.dispatch.state.replay import BatchState
from fleet.model.states import TERMINAL

MAX_WIDTH = 160
_HEAD_LINES = 4


class _Terminal(Console):
    """A console whose end is nobody's end: rich would send stdout to /dev/null and exit the process."""

    def on_broken_pipe(self) -> None:
        """Say nothing more."""
        self.quiet = True


def open_live(file: TextIO | None, *, no_color: bool) -> Live:
    """Return a Live, not started, on `file` or stderr; it only redraws when told to and leaves nothing behind when it stops.

    It does not redirect stdout: stdout is data, and may be a pipe.
    """
    console = _Terminal(file=file, stderr=file is None, no_color=no_color or None, highlight=False)
    return Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, vertical_overflow="crop")


class LiveView:
    """One frame: head, overall bar, and as many lanes as fit."""

    def __init__(self, batch: BatchState, live: Mapping[str, LaneLive], now: datetime) -> None:
        self.batch = batch
        self.live = live
        self.now = now

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield at most as many lines as the terminal has room for."""
        width = min(options.max_width, MAX_WIDTH) - 1
        room = max(1, (options.height or options.max_height) - _HEAD_LINES - 1)
        yield Page(Group(*self._parts(width, room, glyphs_for(console, options))), width)

    def _parts(self, width: int, room: int, glyphs: Glyphs) -> Iterator[RenderableType]:
        yield self._head(width, glyphs)
        segments = segments_of(states_of(self.batch, self.batch.tasks.values()))
        yield bar(segments, width, glyphs)
        line = legend(segments, glyphs)
        line.truncate(width, overflow="ellipsis")
        yield line
        shown, hidden = fit(lanes_of(self.batch, self.live, self.now), room)
        if shown:
            yield Text("")
            yield _lanes_table(shown, self._widths(width), glyphs)
        if hidden:
            yield Text(rest_line(hidden), style=QUIET, no_wrap=True, overflow="ellipsis")

    def _widths(self, width: int) -> tuple[int, int, int]:
        """Return the widths of host, task and the whole: taken from all names, so that no column moves between frames."""
        host = max((len(name) for name in self.batch.hosts), default=0) + 2
        task = max((len(label) for label in self.batch.tasks), default=0)
        return min(host, width // 5), min(task, width // 3), width

    def _head(self, width: int, glyphs: Glyphs) -> Text:
        batch = self.batch
        ended = sum(view.state in TERMINAL for view in batch.tasks.values())
        facts = [f"{ended:,}/{len(batch.tasks):,}"]
        opened, pace = moment(batch.opened_at), pace_of(batch, self.now)
        if opened is not None:
            facts.append(duration(max(0.0, (self.now - opened).total_seconds())))
        if pace.evals_per_hour is not None and width >= 70:
            facts.append(rate(pace.evals_per_hour))
        if pace.eta_s is not None and batch.controller is not None:
            facts.append(f"{roughly(pace.eta_s)} left")
        if batch.halted is not None:
            facts.append("halted")
        right = Text(f" {glyphs.dot} ".join(facts), style=BAD if batch.halted is not None else "")
        name = foreign(batch.batch, "bold", max(8, width - right.cell_len - 2))
        gap = " " * max(2, width - name.cell_len - right.cell_len)
        return Text.assemble(name, gap, right, no_wrap=True, overflow="ellipsis")


def _lanes_table(lanes: list[Lane], widths: tuple[int, int, int], glyphs: Glyphs) -> Table:
    host_width, task_width, width = widths
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.width = width
    grid.add_column(no_wrap=True, overflow="ellipsis", width=host_width)
    grid.add_column(no_wrap=True, overflow="ellipsis", width=11)
    grid.add_column(no_wrap=True, justify="right", width=8)
    grid.add_column(no_wrap=True, overflow="ellipsis", width=max(task_width, 11))
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for lane in lanes:
        style = WARN if lane.stalled else STATUS_STYLE[lane.status]
        host = joined([Text(_glyph(lane, glyphs), style=style), foreign(lane.host)], " ")
        waiting = Text(f"{lane.queue} waiting" if lane.queue else "", style=QUIET)
        elapsed = Text(clock(lane.elapsed_s) if lane.elapsed_s is not None else "")
        note = foreign(lane.note, QUIET if lane.status == "busy" else style)
        grid.add_row(host, Text(lane.phase, style=style), elapsed, foreign(lane.task) if lane.task else waiting, note)
    return grid


def _glyph(lane: Lane, glyphs: Glyphs) -> str:
    if lane.stalled:
        return glyphs.warn
    by_status = {
        "blocked": glyphs.bad,
        "orphan": glyphs.bad,
        "changed": glyphs.bad,
        "quarantined": glyphs.bad,
        "unreachable": glyphs.bad,
        "occupied": glyphs.warn,
        "busy": glyphs.live,
    }
    return by_status.get(lane.status, glyphs.idle)
