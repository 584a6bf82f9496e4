"""`fleet plan`: writes the assignment of what is still missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style, table
from fleet.errors import InputError

if TYPE_CHECKING:
    from fleet.plan.planner import Plan


@fleet_command(
    "plan",
    example=(
        "fleet plan --datasets datasets/ --models gpt,claude --out assignments/phase8.json\n"
        "fleet plan --datasets 'datasets/*.jsonl' --models gpt --runs 3 --hosts 'eval[1-4]' --shared"
    ),
    greedy=("--datasets", "--models", "--hosts"),
)
@click.option("--datasets", multiple=True, required=True, metavar="PATH...", help="Dataset files, directories or globs.")
@click.option("--models", multiple=True, required=True, metavar="NAME...", help="Models, also as a,b.")
@click.option(
    "--runs", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="N", help="Runs of each (pass@k)."
)
@click.option("--hosts", multiple=True, metavar="PATTERN...", help="Hosts to use; all of the inventory when not given.")
@click.option("--pipeline", metavar="NAME", help="Write this pipeline into every task.")
@click.option(
    "--only-missing/--all",
    default=True,
    help="Leave out what is accepted or flagged in the collected results (default), or plan everything.",
)
@click.option("--shared", is_flag=True, help="One queue for all hosts instead of a fixed share per host.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Where to write; else stdout.")
@click.option("--force", is_flag=True, help="Replace another assignment at --out.")
def plan(
    ctx: Context,
    datasets: tuple[str, ...],
    models: tuple[str, ...],
    runs: int,
    hosts: tuple[str, ...],
    pipeline: str | None,
    only_missing: bool,
    shared: bool,
    out: Path | None,
    force: bool,
) -> int:
    """Write an assignment: datasets x models x runs x hosts, minus what is already accepted.

    Tasks of one image stay on one host, and the hosts get about the same expected time, from earlier evals where there are
    any. The file is what `fleet dispatch` takes.
    """
    from fleet.plan.document import as_text, assignment_of, describe, write_assignment
    from fleet.plan.planner import History, make_plan
    from fleet.plan.sources import done_keys, durations, find_datasets, read_datasets, wants_of

    patterns = _split(hosts)
    chosen = ctx.inventory().select(patterns)
    if not chosen:
        raise InputError(f"{ctx.hosts_file}: no host to plan for", hint="fleet hosts")
    if shared and len(patterns) > 1:
        raise InputError("--shared takes one pattern for the queue", hint="make a group in hosts.yaml and use --hosts @GROUP")
    minutes = ctx.pipelines().get(pipeline or chosen[0].pipeline).expected_minutes
    wants = wants_of(read_datasets(find_datasets(datasets)), _models(models), runs)
    places = [patterns[0] if patterns else "*"] if shared else [host.name for host in chosen]
    made = make_plan(
        wants,
        done_keys(ctx.collected) if only_missing else set(),
        places,
        History(durations(ctx.collected), minutes),
    )
    assignment = assignment_of(made, out.resolve().parent if out is not None else None, pipeline)
    if out is not None and assignment:
        write_assignment(out, as_text(assignment), force=force)
    body = describe(made, assignment, out if assignment else None).model_dump(mode="json", exclude={"schema_"})
    text = render(made, out, len(chosen) if shared else 1, ctx.style(stderr=out is None))
    if out is None and assignment:
        ctx.talk(text)
        ctx.emit_text("fleet.plan/1", body, lambda: as_text(assignment))
    else:
        ctx.emit_text("fleet.plan/1", body, lambda: text)
    return 0


def _split(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in value.split(",") if part]


def _models(values: Sequence[str]) -> list[str]:
    from fleet.model.names import is_name, visible

    models = list(dict.fromkeys(_split(values)))
    for model in models:
        if not is_name(model):
            raise InputError(
                f"--models: {visible(model, 80)!r} may only hold A-Z a-z 0-9 . _ - and must start with a letter or digit"
            )
    return models


def render(made: Plan, out: Path | None, lanes: int, style: Style) -> str:
    """Return the shares as a table and the line that says how much is missing."""
    from fleet.dashboard.formats import counted

    if not made.missing:
        return f"nothing is missing: all {made.wanted} have an accepted result"
    rows = [
        [share.host, str(len(share.tasks)), str(share.images), f"{share.minutes / 60 / lanes:.1f} h"] for share in made.shares
    ]
    hours = made.minutes / 60 / lanes
    lines = [
        table(["host", "tasks", "images", "expected"], rows, style),
        "",
        style.bold(f"{made.missing} missing of {made.wanted}") + f", about {hours:.1f} h",
    ]
    idle = sum(not share.tasks for share in made.shares)
    if idle and any(len(share.tasks) > 1 for share in made.shares):
        lines.append(f"{counted(idle, 'host')} without a task: tasks of one image stay together → --shared lets all hosts help")
    if out is not None:
        lines.append(f"written to {out} → fleet dispatch {out}")
    return "\n".join(lines)
