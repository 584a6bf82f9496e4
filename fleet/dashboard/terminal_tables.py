"""The tables of the dashboard: models, hosts, and what needs a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fleet.dashboard.figures import FailureGroup, Figures, HostNow, Slice, Summary
from fleet.dashboard.formats import UNKNOWN, amount, clock, counted, duration, local_time, money, percent
from fleet.dashboard.measures import moment
from fleet.dashboard.terminal_text import BAD, GOOD, HEADING, LIVE, QUIET, STATUS_STYLE, WARN, Glyphs, foreign, joined, number
from fleet.model.failures import FailureClass
from fleet.model.names import plain
from fleet.model.states import TaskState

MAX_HOSTS = 16
MAX_MODELS = 12
MAX_GROUPS = 8
WIDE = 95
_FIRST_TO_GO = ("p95", "tokens", "median", "cost", "cancelled", "open", "flagged")
"""Columns of the models, in the order in which a narrow terminal loses them; the funnel and the numbers have most of it too."""
_RANK = {
    "unreachable": 0,
    "changed": 0,
    "orphan": 0,
    "quarantined": 1,
    "blocked": 1,
    "occupied": 2,
    "busy": 3,
    "unchecked": 4,
    "idle": 5,
}
_OPEN = (
    TaskState.PENDING,
    TaskState.BLOCKED,
    TaskState.LAUNCHING,
    TaskState.RUNNING,
    TaskState.FINISHED,
    TaskState.COLLECTING,
    TaskState.COLLECTED,
)
_BAD = (TaskState.REJECTED, TaskState.FAILED, TaskState.LOST, TaskState.HELD)


def _grid() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=QUIET, show_edge=False)


def _titles(slices: Iterable[Slice]) -> tuple[str, ...]:
    """Return the titles of `_counts`; a batch where nothing was cancelled needs no column for it."""
    cancelled = any(one.figures.count(TaskState.CANCELLED) for one in slices)
    return ("tasks", "open", "accepted", "flagged", "failed", *(("cancelled",) if cancelled else ()))


def _counts(figures: Figures, titles: Sequence[str]) -> list[Text]:
    """Return the cells under `titles`: those after `tasks` hold every task exactly once."""
    cells = [
        number(figures.assigned),
        number(figures.count(*_OPEN), LIVE),
        number(figures.count(TaskState.ACCEPTED), GOOD),
        number(figures.count(TaskState.FLAGGED), WARN),
        number(figures.count(*_BAD), BAD),
        number(figures.count(TaskState.CANCELLED), QUIET),
    ]
    return cells[: len(titles)]


def models_table(slices: Sequence[Slice], width: int) -> RenderableType | None:
    """Return one line per model; where the terminal is narrow, whole columns go before any is cut."""
    if not slices:
        return None
    titles = _titles(slices)
    # The column of the cancelled takes the room of a measure that the section of the numbers tells too.
    dropped = ("p95" if width >= WIDE else "median") if "cancelled" in titles else ""
    measured = ("median", "p95", "cost", "tokens") if width >= WIDE else ("median", "cost")
    rows = [_model_row(one.figures, titles) for one in slices[:MAX_MODELS]]
    shown = [title for title in (*titles, "resolved", *measured) if title != dropped]
    names = min(max(cell_len(plain(one.name)) for one in slices[:MAX_MODELS]), 28 if width >= WIDE else 20)
    for title in _FIRST_TO_GO:
        needed = sum(2 + max(len(one), *(row[one].cell_len for row in rows)) for one in shown)
        if title in shown and max(names, len("MODELS")) + needed > width:
            shown.remove(title)
    table = _grid()
    table.add_column(Text("MODELS", style=HEADING), no_wrap=True, overflow="ellipsis", max_width=28 if width >= WIDE else 20)
    for title in shown:
        table.add_column(title, justify="right", no_wrap=True)
    for one, row in zip(slices, rows, strict=False):
        table.add_row(foreign(one.name), *(row[title] for title in shown))
    return _with_rest(table, len(slices) - MAX_MODELS, "model")


def _model_row(figures: Figures, titles: Sequence[str]) -> dict[str, Text]:
    return {
        **dict(zip(titles, _counts(figures, titles), strict=True)),
        "resolved": _resolved(figures),
        "median": _quiet(duration(figures.duration_s.median)),
        "p95": _quiet(duration(figures.duration_s.p95)),
        "cost": _quiet(money(figures.cost_usd.value)),
        "tokens": _quiet(amount(figures.tokens.value)),
    }


def _resolved(figures: Figures) -> Text:
    if figures.resolved_rate is None:
        return Text(UNKNOWN, style=QUIET)
    return Text.assemble((f"{figures.fate.resolved:,}", GOOD), (f" {percent(figures.resolved_rate):>5}", QUIET))


def hosts_table(summary: Summary, width: int, glyphs: Glyphs) -> RenderableType | None:
    """Return the hosts, troubled and busy ones first when not all of them fit."""
    if not summary.hosts:
        return None
    hosts = list(summary.hosts)
    if len(hosts) > MAX_HOSTS:
        hosts = sorted(hosts, key=lambda host: _RANK[host.status])[:MAX_HOSTS]
    figures = {one.name: one.figures for one in summary.by_host}
    table = _grid()
    table.add_column(Text("HOSTS", style=HEADING), no_wrap=True, overflow="ellipsis", max_width=24 if width >= WIDE else 16)
    table.add_column("", no_wrap=True)
    titles = _titles(summary.by_host)
    for title in titles if width >= WIDE else ("done",):
        table.add_column(title, justify="right", no_wrap=True)
    if width >= WIDE:
        table.add_column("median", justify="right", no_wrap=True)
    table.add_column("now", no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    for host in hosts:
        own = figures[host.name]
        name = joined([Text(_glyph(host, glyphs), style=STATUS_STYLE[host.status]), foreign(host.name)], " ")
        cells = (
            [*_counts(own, titles), _quiet(duration(own.duration_s.median))]
            if width >= WIDE
            else [Text(f"{host.done}/{host.assigned}")]
        )
        table.add_row(name, Text(host.status, style=STATUS_STYLE[host.status]), *cells, _doing(host, summary))
    pool = figures.get("")
    body: list[RenderableType] = [table]
    if pool is not None:
        body.append(Text(f"{counted(pool.assigned, 'task')} for the first free host", style=QUIET))
    counts = ", ".join(f"{count} {status}" for status, count in summary.host_counts.items() if count)
    if len(summary.hosts) > MAX_HOSTS:
        body.append(Text(f"+{len(summary.hosts) - MAX_HOSTS} more {glyphs.dot} of {len(summary.hosts)}: {counts}", style=QUIET))
    return Group(*body)


def _quiet(text: str) -> Text:
    return Text(text, style=QUIET if text == UNKNOWN else "")


def _glyph(host: HostNow, glyphs: Glyphs) -> str:
    return {
        "busy": glyphs.live,
        "blocked": glyphs.bad,
        "orphan": glyphs.bad,
        "changed": glyphs.bad,
        "quarantined": glyphs.bad,
        "unreachable": glyphs.bad,
        "occupied": glyphs.warn,
    }.get(host.status, glyphs.idle)


def _doing(host: HostNow, summary: Summary) -> Text:
    phase = Text(host.phase if host.phase != "running" else "")
    if host.stalled_since:
        since = local_time(host.stalled_since, moment(summary.as_of))
        phase = Text(f"STALLED since {since}", style=WARN)
    task = joined([Text(clock(host.elapsed_s)), phase, foreign(host.task)]) if host.task is not None else Text()
    if host.status == "unreachable":
        since = local_time(host.since, moment(summary.as_of))
        return joined([Text(f"since {since}"), foreign(host.reason), joined([Text("had"), task], " ") if task else Text()])
    if host.status == "busy":
        return task
    return foreign(host.reason)


def failures_view(summary: Summary, width: int, glyphs: Glyphs) -> Iterator[RenderableType]:
    """Yield what needs a person: failure groups with their fix, then the warnings of accepted work."""
    if summary.failures:
        yield Text("")
        yield Text("CANCELLED" if all(map(_was_cancelled, summary.failures)) else "NEEDS YOU", style=HEADING)
        for group in summary.failures[:MAX_GROUPS]:
            yield _group(group, width, glyphs)
        if len(summary.failures) > MAX_GROUPS:
            rest = sum(group.count for group in summary.failures[MAX_GROUPS:])
            more = counted(len(summary.failures) - MAX_GROUPS, "more cause")
            yield Text(f"+{more} with {counted(rest, 'task')}", style=QUIET)
    if summary.flags:
        flags = [joined([str(flag.count), foreign(flag.code, limit=40)], " ") for flag in summary.flags[:6]]
        yield Text("")
        yield joined([Text(f"{glyphs.warn} flagged", style=WARN), joined(flags, f" {glyphs.dot} ")])


def _was_cancelled(group: FailureGroup) -> bool:
    return group.failure == str(FailureClass.CANCELLED)


def _group(group: FailureGroup, width: int, glyphs: Glyphs) -> RenderableType:
    cancelled = _was_cancelled(group)
    head = joined(
        [
            Text(
                f"{glyphs.dot if cancelled else glyphs.bad} {counted(group.count, 'task')}", style=QUIET if cancelled else BAD
            ),
            joined(
                [foreign(part, "bold") for part in dict.fromkeys((group.failure, group.cause or "", group.code)) if part],
                f" {glyphs.dot} ",
            ),
            _some(group.hosts, len(group.hosts), 3),
        ]
    )
    lines: list[RenderableType] = [Text(group.line, no_wrap=True, overflow="ellipsis")]
    if group.message not in ("", group.line, group.code):
        lines.append(foreign(group.message, QUIET, width * 2))
    lines.append(_some(group.tasks, group.count, 2 if width < WIDE else 3))
    if group.advice and group.advice != group.fix:
        lines.append(Text.assemble(("first: ", QUIET), foreign(group.advice, limit=width * 2)))
    lines.append(Text.assemble((f"{glyphs.arrow} ", LIVE), foreign(group.fix, "bold", width * 2)))
    return Group(head, Padding(Group(*lines), (0, 0, 0, 2)))


def _some(names: Sequence[str], count: int, show: int) -> Text:
    shown = [foreign(name, QUIET, 60) for name in names[:show]]
    if count > len(shown):
        shown.append(Text(f"+{count - len(shown)}", style=QUIET))
    return joined(shown)


def _with_rest(table: Table, rest: int, noun: str) -> RenderableType:
    return table if rest <= 0 else Group(table, Text(f"+{rest} more {noun}s", style=QUIET))
