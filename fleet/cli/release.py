"""`fleet release`: lift the quarantine of hosts; only a person does that."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import FleetError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.model.hosts import Host


@fleet_command("release", example="fleet release eval3\nfleet release 'eval[1-4]'")
@click.argument("patterns", nargs=-1, required=True, metavar="HOST...")
def release(ctx: Context, patterns: tuple[str, ...]) -> int:
    """Let HOSTs take tasks again that are in quarantine, once what is wrong with them is repaired.

    The host is told first; then it is noted in every batch that holds it back, and running controllers check it and go on.
    Releasing a host that is not in quarantine changes nothing. Exit code: 4 a host gave no answer and stays
    as it is, 16 another machine answers under its name.
    """
    from fleet.dispatch.files.machines import Machines

    hosts = ctx.inventory().select(patterns)
    known = Machines(ctx.collected)
    with ThreadPoolExecutor(max_workers=ctx.inventory().defaults.in_flight) as pool:
        rows = list(pool.map(lambda host: _release(ctx, host, known.of(host.name)), hosts))
    _note(ctx, rows)
    ctx.emit_text("fleet.release/1", {"hosts": rows}, lambda: "\n".join(_text(row) for row in rows))
    code = Exit.OK
    for row in rows:
        code |= Exit(row["exit"])
    return int(code)


def _release(ctx: Context, host: Host, host_uid: str) -> dict[str, Any]:
    """Tell one host and return its row; every failure is a row too."""
    from fleet.model.names import plain

    row: dict[str, Any] = {"host": host.name, "released": False, "reason": None, "batches": [], "error": None, "exit": 0}
    try:
        with ctx.agent(host, host_uid) as client:
            note = client.release()
    except FleetError as error:
        return row | {"error": plain(error.message, 500), "exit": int(error.bit)}
    return row | {"released": True, "reason": None if note is None else plain(str(note.get("reason") or ""), 500)}


def _note(ctx: Context, rows: list[dict[str, Any]]) -> None:
    """Journal the release in every batch that holds one of the hosts back, and have its controller read that."""
    from fleet.dispatch.files.batch import Batch, batches
    from fleet.model.records import HostReleased

    released = {row["host"]: row for row in rows if row["released"]}
    for name in batches(ctx.collected):
        batch = Batch(ctx.collected, name)
        state = batch.load()
        held = [host for host in released if host in state.hosts and state.hosts[host].quarantine is not None]
        if held:
            batch.journal.append(*(HostReleased(host=host) for host in held))
            for host in held:
                released[host]["batches"].append(name)
        # Also where the journal knows nothing: the host refused that batch's tasks on another batch's word.
        batch.nudge()


def _text(row: dict[str, Any]) -> str:
    if row["error"] is not None:
        return f"{row['host']}: not released: {row['error']}"
    if row["reason"] is None and not row["batches"]:
        return f"{row['host']}: was not in quarantine"
    batches = f" (batch {', '.join(row['batches'])})" if row["batches"] else ""
    return f"{row['host']}: released{batches}; it is checked before it gets a task\n  → fleet check {row['host']}"
