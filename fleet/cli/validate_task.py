"""`fleet validate-task`: can tasks be graded at all? Their tests are run before and after the gold patch."""

from __future__ import annotations

from pathlib import Path

import click

from fleet.cli.lite import DEADLINE_S, gradable_text, run_lite
from fleet.cli.options import Context, fleet_command
from fleet.errors import InputError


@fleet_command(
    "validate-task",
    example="fleet validate-task datasets/flask-5014.json\nfleet validate-task datasets/*.json --times 3 --json",
)
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("--times", default=1, show_default=True, type=click.IntRange(1, 20), metavar="N", help="Runs that must agree.")
@click.option("--task-id", metavar="ID", help="This task alone, of a file that holds many.")
@click.option("--sandbox", type=click.Choice(["docker", "venv"]), default="docker", help="venv does not isolate.")
@click.option("--directory", type=click.Path(file_okay=False), metavar="DIR", help="Where runs are kept; else sandbox.")
@click.option(
    "--deadline", default=DEADLINE_S, show_default=True, type=click.FloatRange(1), metavar="SECONDS", help="End it then."
)
def validate_task(
    ctx: Context,
    datasets: tuple[str, ...],
    times: int,
    task_id: str | None,
    sandbox: str,
    directory: str | None,
    deadline: float,
) -> int:
    """Tell whether tasks can be graded: F2P must fail before the gold patch and pass after it, P2P pass both times.

    Exit code: 0 every task is gradable, 2 one is not, and why; several runs that disagree (--times) make it flaky.
    """
    missing = [name for name in datasets if not Path(name).is_file()]
    if missing:
        raise InputError(f"{missing[0]} is not a file", hint="a dataset file, see docs/formats.md")
    words = [*datasets, f"--times={times}", f"--sandbox={sandbox}"]
    words += [f"--task-id={task_id}"] if task_id else []
    words += [f"--directory={directory}"] if directory else []
    document, code = run_lite(ctx, "validate", words, deadline, command="validate-task")
    body = {key: value for key, value in document.items() if key != "schema"}
    ctx.emit_text("fleet.lite-validate/1", body, lambda: gradable_text(document))
    return code
