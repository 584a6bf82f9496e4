"""`fleet logs`: the eval's log by offset, without the escape sequences that a log could carry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.options import Context, fleet_command

if TYPE_CHECKING:
    from fleet.agent import AgentClient

FOLLOW_WAIT_S = 60.0
PIECE_BYTES = 262_144
TAIL_BYTES = 65_536


@fleet_command("logs", example="fleet logs 1319603449576684 -f")
@click.argument("task")
@click.option("--batch", metavar="NAME", help="Default: the most recently changed batch.")
@click.option("--host", metavar="NAME", help="What this host has of TASK, whoever started it; no journal needed.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the eval has ended.")
@click.option("--all", "everything", is_flag=True, help="From the beginning, not only the last 64 KB.")
def logs(ctx: Context, task: str, batch: str | None, host: str | None, follow: bool, everything: bool) -> int:
    """Show the log of TASK's latest attempt, from its host, or from the collected copy when the host is out of reach.

    TASK is INSTANCE[/MODEL[/runN]]. Terminal sequences are removed, keys are redacted; the collected file has the raw bytes.
    """
    from fleet.dashboard.batches import find_batch
    from fleet.dispatch.answers.find import find_task
    from fleet.dispatch.answers.resume import typed
    from fleet.dispatch.files.machines import machine_of
    from fleet.errors import InputError, TransportError

    if host is not None:
        for piece in _pieces(ctx, host, "", _latest_there(ctx, host, task, batch), follow, everything):
            _show(ctx, piece)
        return 0
    found = find_batch(ctx.collected, batch)
    state = found.load()
    view = find_task(state, task)
    if view.attempt is None:
        raise InputError(f"{view.task.label} has not been started", hint=typed("fleet why TASK", state, task=view.task.label))
    attempt = state.attempts[view.attempt]
    try:
        for piece in _pieces(ctx, attempt.host, machine_of(state, attempt.host), attempt.attempt, follow, everything):
            _show(ctx, piece)
    except TransportError as error:
        copy = None if attempt.path is None else found.directory / attempt.path / "fleet.log"
        if copy is None or not copy.is_file():
            raise
        ctx.talk(f"{error.message}; this is the collected copy")
        _show(ctx, _tail(copy, everything))
    return 0


def _latest_there(ctx: Context, host_name: str, task: str, batch: str | None) -> str:
    """Return the latest attempt of a task that a host has and nobody has collected, by the host's own account."""
    from fleet.collect.judged import key_of
    from fleet.errors import InputError
    from fleet.model.names import is_name, visible

    # What this machine has, whichever it is.
    with ctx.agent(ctx.inventory().get(host_name), "") as client:
        listed = client.status().get("attempts")
    found = []
    for one in listed if isinstance(listed, list) else []:
        key = key_of(one.get("key")) if isinstance(one, dict) else None
        if key is None or not is_name(one.get("attempt")) or batch not in (None, one.get("batch")):
            continue
        if task in (one["attempt"], key.label) or key.label.startswith(task + "/"):
            found.append(str(one["attempt"]))
    if not found:
        raise InputError(
            f"{host_name} has no attempt of {visible(task, 120)} that is still to be collected",
            hint=f"fleet status --all-hosts --hosts {host_name}",
        )
    return found[-1]


def _pieces(ctx: Context, host_name: str, host_uid: str, attempt: str, follow: bool, everything: bool) -> Iterator[bytes]:
    """Yield whole lines of the log as they come."""
    with ctx.agent(ctx.inventory().get(host_name), host_uid) as client:
        yield from _lines(client, host_name, attempt, follow, everything)


def _lines(client: AgentClient, host_name: str, attempt: str, follow: bool, everything: bool) -> Iterator[bytes]:
    from fleet.errors import AgentError

    piece = client.logs(attempt, 0, 1)
    offset = 0 if everything else max(0, piece.size - TAIL_BYTES)
    rest = b""
    while True:
        piece = client.logs(attempt, offset, PIECE_BYTES, FOLLOW_WAIT_S if follow else 0.0)
        lines, newline, rest = (rest + piece.data).rpartition(b"\n")
        if newline:
            yield lines
        if piece.next <= offset < piece.size and not follow:
            raise AgentError(f"{host_name} has more of the log, and does not give it", code="protocol", host=host_name)
        offset = piece.next
        if offset >= piece.size and (not follow or piece.state not in ("running", "starting", "accepted")):
            break
    if rest:
        yield rest


def _tail(path: Path, everything: bool) -> bytes:
    data = path.read_bytes()
    return data if everything else data[-TAIL_BYTES:]


def _show(ctx: Context, lines: bytes) -> None:
    from fleet.model.names import plain

    for line in lines.split(b"\n"):
        text = plain(line.decode("utf-8", "replace"))
        ctx.emit_line({"schema": "fleet.log-line/1", "line": text}, text)
