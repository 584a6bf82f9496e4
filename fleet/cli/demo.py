"""`fleet demo`: the whole job on SSH hosts inside this process, and whether it showed what it is meant to show."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import InputError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.demo.run import Demo
    from fleet.demo.shown import Played

SCHEMA = "fleet.demo/1"


@fleet_command("demo", example="fleet demo\nfleet demo --docker\nfleet demo --keep ./demo-results\nfleet demo --hosts 200")
@click.option(
    "--hosts",
    type=click.IntRange(1, 500),
    metavar="N",
    help="Rehearse scale instead of the story: N hosts, one task each.",
)
@click.option("--docker", is_flag=True, help="Run the evals in offline containers of this machine's Docker engine.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Put the results into DIR (new or empty) instead of a temporary directory.",
)
def demo(ctx: Context, hosts: int | None, keep: Path | None, docker: bool) -> int:
    """Run the whole job on embedded SSH hosts: no root, no Docker, no account.

    The story: six tasks on three hosts, and a fourth host that is not ready. Each eval is real (clone, patch, pytest, F2P/P2P);
    the model is not: its answers are recorded patches. The commands shown are the ones to type for hosts of your own.
    Without --docker the evals run in virtual environments, which do not isolate.

    Exit code: 0 when everything it is meant to show was shown, else 2.
    """
    from fleet.demo.run import Demo, place_for, play, require, require_docker

    if docker and hosts is not None:
        raise InputError("--hosts rehearses scale, and --docker plays the story", hint="fleet demo --docker")

    def invoke(words: Sequence[str]) -> int:
        return _invoke(ctx, words)

    require(hosts, keep)
    engine = require_docker(invoke, ctx.talk) if docker else None
    stage = Demo(place_for(keep), invoke, ctx.talk, engine)
    try:
        played = play(stage, hosts)
    except KeyboardInterrupt:
        ctx.talk("\ndemo interrupted: its hosts are switched off, and their evals end with them")
        raise
    ctx.emit(SCHEMA, _document(stage, played), lambda _: _tell(ctx, stage))
    return int(Exit.FAILED if stage.missing else Exit.OK)


def _invoke(ctx: Context, words: Sequence[str]) -> int:
    """Run one command as the shell would; with --json and --quiet its own output would be in the way."""
    from fleet.cli.main import run

    extra = ["--no-color"] if ctx.no_color else []
    if not ctx.json and not ctx.quiet:
        return run([*words, *extra])
    with contextlib.redirect_stdout(sys.stderr):
        return run([*words, *extra, *([] if "--quiet" in words else ["--quiet"])])


def _document(stage: Demo, played: Played) -> dict[str, Any]:
    from datetime import UTC, datetime

    from fleet.dashboard.summary import summarize

    return {
        "directory": str(stage.directory),
        "sandbox": "docker" if stage.engine else "venv",
        "seconds": round(stage.seconds, 2),
        "steps": [asdict(step) | {"seconds": round(step.seconds, 2)} for step in stage.steps],
        "shown": [asdict(point) for point in stage.points],
        "missing": [point.what for point in stage.missing],
        "rates": stage.rates or None,
        "summary": summarize(played.state, datetime.now(UTC)).model_dump(mode="json", by_alias=True),
    }


def _tell(ctx: Context, stage: Demo) -> None:
    """Say what was shown, what was not, and where to look next."""
    style = ctx.style(stderr=True)
    ctx.talk(style.bold("\nShown"))
    for point in stage.points:
        mark = style.green("✓") if point.ok else style.red("✗")
        ctx.talk(f"  {mark} {point.what}: {point.subject} ({point.found})")
    for name, rate in stage.rates.items():
        ctx.talk(f"  {name.replace('_per_s', '').replace('_', ' ')}: {rate:g}/s")
    ctx.talk(f"\n{stage.seconds:.0f} s. The results are in {stage.directory}; the hosts are gone. Look at them with:")
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("fleet") is None and activate.exists():
        ctx.talk(f"  source {shlex.quote(str(activate))}")
    ctx.talk(f"  cd {shlex.quote(str(stage.directory))}")
    for command in stage.commands:
        ctx.talk(f"  {command}")
