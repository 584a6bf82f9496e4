"""`fleet recover`: a lost or damaged journal is rebuilt from the hosts and the collected files."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command

if TYPE_CHECKING:
    from fleet.cli.output import Style
    from fleet.dispatch.recovery.recover import Recovery

MAX_NAMED = 8


@fleet_command(
    "recover", example="fleet recover phase8 --dry-run\nfleet recover phase8\nfleet recover phase8 --file phase8.json"
)
@click.argument("batch")
@click.option("--file", type=click.Path(path_type=Path), metavar="ASSIGNMENT",
              help="The assignment, where its copy here is gone or cannot find its datasets.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Ask the hosts, show what the new journal would say, and write nothing.")
def recover(ctx: Context, batch: str, file: Path | None, dry_run: bool) -> int:
    """Rebuild the journal of BATCH from its hosts, its collected results, and whatever the old journal still says.

    Nothing is started. The old journal is kept beside the new one. A task that may be on a host which gave no answer is held,
    and the same command again, once the host answers, lets it go. Exit code: 4 a host gave no answer, 16 another machine
    answers under a host's name, 64 a controller is running.
    """
    from fleet.dispatch.answers.resume import resume_command
    from fleet.dispatch.files.batch import Batch
    from fleet.dispatch.recovery.recover import Recoverer

    # Other commands send it to whoever holds the batch; here there is nothing to read again.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    place = Batch(ctx.collected, batch)
    done = Recoverer(place, ctx.inventory(), ctx.pipelines(), ctx.connector(), file).run(rehearse=dry_run)
    body = _body(place.name, done, written=not dry_run, resume=resume_command(done.rebuilt.state))
    ctx.emit_text("fleet.recover/1", body, lambda: _text(body, ctx.style()))
    return int(done.code)


def _body(batch: str, done: Recovery, *, written: bool, resume: str) -> dict[str, Any]:
    attempts = done.rebuilt.state.attempts.values()
    return {
        "batch": batch,
        "written": written,
        "complete": not done.code,
        "damaged": done.damaged or None,
        "records_kept": done.kept,
        "lines_unreadable": done.unreadable,
        "results": done.results,
        "attempts": len(attempts),
        "tasks": dict(sorted(done.counts.items())),
        "hosts": [
            {
                "host": one.host,
                "answered": one.silent is None,
                "attempts": len(one.claims),
                "error": one.silent.error if one.silent else None,
                "hint": one.hint or None,
            }
            for one in done.answers
        ],
        "held": [{"task": label, "reason": reason} for label, reason in done.rebuilt.held.items()],
        "notes": list(done.notes),
        "next": f"fleet recover {batch}" if done.code else resume,
    }


def _text(body: dict[str, Any], style: Style) -> str:
    from fleet.dashboard.formats import counted
    from fleet.model.names import visible

    answered = [one for one in body["hosts"] if one["answered"]]
    what = "rebuilt" if body["written"] else "would be rebuilt"
    lines = [
        f"batch {body['batch']}: the journal {what} from {len(answered)} of {counted(len(body['hosts']), 'host')}, "
        f"{counted(body['results'], 'result')} here and {counted(body['records_kept'], 'record')} of the old one"
        + (f" ({counted(body['lines_unreadable'], 'line')} unreadable)" if body["lines_unreadable"] else ""),
        "  " + ", ".join(f"{number} {state}" for state, number in body["tasks"].items()),
    ]
    if body["damaged"]:
        lines.append(f"  the old one {'is' if body['written'] else 'would be'} kept as {body['damaged']}")
    lines += [f"{style.yellow('⚠')} {visible(note, 300)}" for note in body["notes"]]
    for one in body["hosts"]:
        if not one["answered"]:
            lines.append(f"{style.red('✗')} {visible(one['error'], 300)}")
            lines += [f"    → {one['hint']}"] if one["hint"] else []
    if body["held"]:
        named = ", ".join(one["task"] for one in body["held"][:MAX_NAMED])
        more = f" and {len(body['held']) - MAX_NAMED} more" if len(body["held"]) > MAX_NAMED else ""
        lines.append(f"held: {named}{more}: {body['held'][0]['reason']}")
        lines.append("    → the same command again when it answers; fleet retry TASK to have one run all the same")
    return "\n".join([*lines, f"→ {body['next']}"])
