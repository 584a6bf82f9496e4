"""`fleet dashboard`: the numbers of a batch, from its journal alone; no host is asked."""

from __future__ import annotations

import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.orphans import shown
from fleet.dashboard.batches import Follower, find_batch, read_batch
from fleet.dashboard.export import write_summary
from fleet.dashboard.figures import SCHEMA, Summary
from fleet.dashboard.live import LiveDisplay, PlainDisplay
from fleet.dashboard.summary import summarize
from fleet.dispatch.files.batch import Batch, batches
from fleet.dispatch.state.replay import BatchState
from fleet.errors import StorageError

if TYPE_CHECKING:
    from rich.console import Console

    from fleet.model.records import ResultJudged

LOOK_EVERY_S = 1.0


@fleet_command("dashboard", example="fleet dashboard phase8\nfleet dashboard phase8 --live")
@click.argument("batch", required=False)
@click.option("--live", is_flag=True, help="Follow the batch until it is done; Ctrl-C ends the view, not the batch.")
@click.option("--write/--no-write", default=True, help="Also write summary.json and results.csv beside the journal (default).")
def dashboard(ctx: Context, batch: str | None, live: bool, write: bool) -> int:
    """Show what became of the tasks of BATCH, what failed and why, and what to type next.

    Without BATCH: the most recently changed one. Reads the journal only, so it works offline and beside a running controller.
    """
    chosen = find_batch(ctx.collected, batch)
    if batch is None:
        _say_which(ctx, chosen)
    try:
        state, judged = _follow(ctx, chosen) if live else read_batch(chosen)
    except KeyboardInterrupt:
        if not live:
            raise
        state, judged = read_batch(chosen)
    summary = summarize(shown(ctx, state), datetime.now(UTC), judged)
    if write:
        _write(ctx, chosen, summary)
    if not (live and ctx.json):
        ctx.emit(SCHEMA, _body(summary), lambda console: _show(console, summary))
    return 0


def _say_which(ctx: Context, chosen: Batch) -> None:
    others = [name for name in batches(ctx.collected) if name != chosen.name]
    if others:
        named = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        ctx.talk(f"{chosen.name} is the most recently changed batch; there is also {named}")


def _write(ctx: Context, chosen: Batch, summary: Summary) -> None:
    try:
        write_summary(chosen.directory, summary)
    except StorageError as error:
        # The numbers are still worth seeing, e.g. on a read-only mount.
        ctx.talk(f"not written: {error.message}")


def _body(summary: Summary) -> dict[str, Any]:
    body = summary.model_dump(mode="json", by_alias=True)
    del body["schema"]
    return body


def _show(console: Console, summary: Summary) -> None:
    from fleet.dashboard.terminal import render

    console.print(render(summary), crop=False)


def _follow(ctx: Context, chosen: Batch) -> tuple[BatchState, dict[str, ResultJudged]]:
    """Show every change of the batch until all its tasks have ended."""
    follower = Follower(chosen)
    if not read_batch(chosen)[0].complete and chosen.held_by() is None:
        ctx.talk(f"no controller is at work on {chosen.name}; this waits for changes, Ctrl-C ends it")
    with _display(ctx) as display:
        while True:
            if follower.look():
                if ctx.json:
                    summary = summarize(shown(ctx, follower.state), datetime.now(UTC), follower.judged)
                    ctx.emit_line({"schema": SCHEMA, **_body(summary)}, summary.progress)
                if display is not None:
                    display.update(shown(ctx, follower.state))
            if follower.state.complete and follower.state.tasks:
                return follower.state, follower.judged
            time.sleep(LOOK_EVERY_S)


def _display(ctx: Context) -> LiveDisplay | PlainDisplay | nullcontext[None]:
    if ctx.json or ctx.quiet:
        return nullcontext()
    return LiveDisplay(no_color=ctx.no_color) if ctx.interactive else PlainDisplay()
