"""Building blocks of the terminal views: safe text, glyphs for every kind of terminal, and bars.

Everything foreign goes through `foreign()`: no terminal escape, no bidi mark and no rich markup survives it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.text import Text

from fleet.model.names import plain
from fleet.model.states import TaskState

GOOD, WARN, BAD, LIVE, WAIT, QUIET = "green", "yellow", "red", "cyan", "magenta", "dim"
HEADING = "bold not dim"
STATUS_STYLE: Mapping[str, str] = {
    "busy": LIVE,
    "idle": QUIET,
    "blocked": BAD,
    "orphan": BAD,
    "changed": BAD,
    "quarantined": BAD,
    "occupied": WARN,
    "unreachable": BAD,
    "unchecked": QUIET,
}
"""The colour of a host's status."""


@dataclass(frozen=True)
class Glyphs:
    """The characters of a view; three sets, so that the bars can be told apart without colour and in ASCII."""

    ok: str = "✓"
    warn: str = "⚠"
    bad: str = "✗"
    live: str = "●"
    idle: str = "○"
    arrow: str = "→"
    dot: str = "·"
    dash: str = "–"
    minus: str = "−"
    more: str = "…"
    line: str = "━"
    rest: str = "─"
    segments: str = "━━━━━━─"
    """accepted, flagged, failed, running, blocked, waiting, cancelled"""


COLOR = Glyphs()
PLAIN = Glyphs(line="█", rest="·", segments="█▓▒▚╳·╱")
ASCII = Glyphs(
    ok="ok", warn="!", bad="x", live="*", idle="o", arrow="->", dot="-", dash="-", minus="-", more="...", line="#", rest=".",
    segments="#=x>!./",
)  # fmt: skip


def glyphs_for(console: Console, options: ConsoleOptions) -> Glyphs:
    """Return the characters that this console can show."""
    if options.ascii_only:
        return ASCII
    return PLAIN if console.color_system is None or console.no_color else COLOR


class Page:
    """A renderable cut to a width, whatever the terminal's, without trailing blanks and in characters that it can show."""

    def __init__(self, renderable: RenderableType, width: int) -> None:
        self.renderable = renderable
        self.width = width

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the lines."""
        for line in console.render_lines(self.renderable, options.update(width=self.width), pad=False):
            text = Text(no_wrap=True, overflow="ignore")
            for part in line:
                if not part.control:
                    text.append(_ascii(part.text) if options.ascii_only else part.text, style=part.style)
            text.rstrip()
            yield text


def _ascii(text: str) -> str:
    """Replace character by character: the width of the line stays."""
    return text.translate({ord("–"): "-", ord("…"): "~"}).encode("ascii", "replace").decode("ascii")


def foreign(text: str, style: str = "", limit: int | None = None) -> Text:
    """Return text that a host, a log or a model wrote as one harmless line."""
    return Text(plain(text, limit), style=style, no_wrap=True, overflow="ellipsis")


def number(value: int | None, style: str = "") -> Text:
    """Return a count; zero is quiet, unknown is a dash."""
    if value is None:
        return Text("–", style=QUIET)
    return Text(f"{value:,}", style=style if value else QUIET)


def joined(parts: Sequence[Text | str], separator: str = "  ") -> Text:
    """Return the non-empty parts side by side."""
    return Text(separator).join(part if isinstance(part, Text) else Text(part) for part in parts if part)


@dataclass(frozen=True)
class Segment:
    """One part of the overall bar and its entry in the legend."""

    name: str
    count: int
    style: str
    index: int


def segments_of(states: dict[TaskState, int]) -> tuple[Segment, ...]:
    """Return the parts of the overall bar; every state is in exactly one of them."""

    def count(*wanted: TaskState) -> int:
        return sum(states[state] for state in wanted)

    rejected, failed = count(TaskState.REJECTED), count(TaskState.FAILED, TaskState.LOST, TaskState.HELD)
    bad = "rejected/failed" if rejected and failed else "rejected" if rejected else "failed"
    fetching = count(TaskState.FINISHED, TaskState.COLLECTING, TaskState.COLLECTED)
    return (
        Segment("accepted", count(TaskState.ACCEPTED), GOOD, 0),
        Segment("flagged", count(TaskState.FLAGGED), WARN, 1),
        Segment(bad, rejected + failed, BAD, 2),
        Segment("running", count(TaskState.LAUNCHING, TaskState.RUNNING) + fetching, LIVE, 3),
        Segment("blocked", count(TaskState.BLOCKED), WAIT, 4),
        Segment("waiting", count(TaskState.PENDING), QUIET, 5),
        Segment("cancelled", count(TaskState.CANCELLED), QUIET, 6),
    )


def bar(segments: Sequence[Segment], width: int, glyphs: Glyphs) -> Text:
    """Return the overall bar, exactly `width` cells; no segment with tasks is invisible."""
    text = Text(no_wrap=True)
    for segment, cells in zip(segments, _cells([one.count for one in segments], width), strict=True):
        text.append(glyphs.segments[segment.index] * cells, style=segment.style)
    return text


def _cells(counts: Sequence[int], width: int) -> list[int]:
    """Share out `width` cells in proportion: at least one for what is not zero, the rest by largest remainder."""
    total = sum(counts)
    if total == 0 or width < sum(1 for count in counts if count):
        return [width, *([0] * (len(counts) - 1))] if total == 0 else [0] * len(counts)
    exact = [width * count / total for count in counts]
    cells = [max(1, int(value)) if count else 0 for value, count in zip(exact, counts, strict=True)]
    while sum(cells) != width:
        step = 1 if sum(cells) < width else -1
        candidates = [i for i, count in enumerate(counts) if count and (step > 0 or cells[i] > 1)]
        cells[max(candidates, key=lambda i: (exact[i] - cells[i]) * step)] += step
    return cells


def legend(segments: Sequence[Segment], glyphs: Glyphs) -> Text:
    """Return the counts of the parts that hold tasks; without colour each is preceded by its part's character."""
    colored = glyphs is COLOR
    return joined(
        [
            Text(("" if colored else glyphs.segments[one.index] + " ") + f"{one.count:,} {one.name}", style=one.style)
            for one in segments
            if one.count
        ],
        f" {glyphs.dot} " if colored else "  ",
    )


def share_bar(count: int, of: int, width: int, style: str, glyphs: Glyphs) -> Text:
    """Return a bar of `count` out of `of`."""
    cells = 0 if of == 0 else max(1 if count else 0, round(width * count / of))
    return Text.assemble((glyphs.line * cells, style), (" " * (width - cells), ""), no_wrap=True)
