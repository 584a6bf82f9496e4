"""`fleet why`: one causal sentence and the next command to type."""

from __future__ import annotations

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.orphans import shown
from fleet.errors import InputError


def _in_hosts_file(ctx: Context, name: str) -> bool:
    """Tell whether hosts.yaml has the host; without a readable file nothing is known of it."""
    try:
        return any(host.name == name for host in ctx.inventory().hosts)
    except InputError:
        return False


@fleet_command("why", example="fleet why eval3\nfleet why 1319603449576684")
@click.argument("subject", metavar="HOST|TASK")
@click.option("--batch", metavar="NAME", help="Default: the most recently changed batch.")
def why(ctx: Context, subject: str, batch: str | None) -> int:
    """Explain why a HOST or a TASK is where it is, from the batch's journal."""
    from fleet.dashboard.batches import find_batch
    from fleet.dispatch.answers.find import find_task
    from fleet.dispatch.answers.why import why_host, why_task
    from fleet.model.names import visible

    state = shown(ctx, find_batch(ctx.collected, batch).load())
    host = state.hosts.get(subject)
    if host is None and subject not in state.tasks and _in_hosts_file(ctx, subject):
        raise InputError(f"batch {state.batch} has no task for {subject}", hint=f"fleet check {subject}")
    answer = why_task(state, find_task(state, subject, hosts=state.hosts)) if host is None else why_host(state, host)
    body = {"subject": answer.subject, "sentence": answer.sentence, "next": answer.next}
    ctx.emit_text("fleet.why/1", body, lambda: visible(f"{answer.subject} {answer.sentence}") + f"\n  → {visible(answer.next)}")
    return 0
