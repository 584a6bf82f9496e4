"""`fleet status`: hosts and tasks now. `link` and `state` are two columns, because losing SSH is not losing the job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.orphans import shown
from fleet.errors import AgentError, InputError, TransportError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.cli.output import Style
    from fleet.dispatch.state.views import BatchState
    from fleet.model.hosts import Host


@fleet_command("status", example="fleet status\nfleet status phase8 --offline --json")
@click.argument("batch", required=False)
@click.option("--offline", is_flag=True, help="Only what the journal says; ask no host.")
@click.option("--hosts", "patterns", multiple=True, metavar="PATTERN", help="Ask these hosts only.")
@click.option(
    "--all-hosts", is_flag=True, help="What the hosts say of all batches, also of other controllers'; no journal needed."
)
def status(ctx: Context, batch: str | None, offline: bool, patterns: tuple[str, ...], all_hosts: bool) -> int:
    """Show every host and task of BATCH as they are now: the hosts are asked, the journal tells the rest.

    Without BATCH: the most recently changed one. With --all-hosts: what every host has taken and nobody has collected yet,
    whoever started it. Exit code: 4 when a host gave no answer, 16 when its key cannot be
    trusted or another machine answers under its name.
    """
    if all_hosts:
        from fleet.cli.status_hosts import hosts_status

        if offline:
            raise InputError(
                "--all-hosts asks the hosts, and --offline forbids it",
                hint="fleet status --all-hosts, or fleet status --offline",
            )
        return hosts_status(ctx, batch, patterns)
    from fleet.dashboard.batches import find_batch
    from fleet.dispatch.answers.resume import resume_command
    from fleet.dispatch.files.machines import machine_of

    found = find_batch(ctx.collected, batch)
    state = shown(ctx, found.load())
    holder = found.held_by()
    answers: dict[str, dict[str, Any]] = {}
    if not offline:
        chosen = [host for host in ctx.inventory().select(patterns) if host.name in state.hosts]
        with ThreadPoolExecutor(max_workers=ctx.inventory().defaults.in_flight) as pool:
            answers = dict(pool.map(lambda host: (host.name, ask_host(ctx, host, machine_of(state, host.name))), chosen))
    hosts = [_host_row(state, name, answers.get(name)) for name in state.hosts]
    tasks = [_task_row(state, label) for label in state.tasks]
    body = {
        "batch": found.name,
        "controller": holder.get("who") if holder else None,
        "assignment": state.assignment_file,
        "hosts": hosts,
        "tasks": tasks,
    }
    ctx.emit_text("fleet.status/1", body, lambda: _text(body, resume_command(state), ctx.style()))
    code = Exit.INCOMPLETE if any(host.orphan for host in state.hosts.values()) else Exit.OK
    for answer in answers.values():
        code |= Exit(answer.get("exit", 0))
    return int(code)


def ask_host(ctx: Context, host: Host, host_uid: str) -> dict[str, Any]:
    """Return the host's own account, or why there is none; one round trip."""
    from fleet.model.names import plain

    try:
        with ctx.agent(host, host_uid) as client:
            return {"link": "ok", "answer": client.status()}
    except TransportError as error:
        return {"link": error.link, "error": plain(error.message, 200), "exit": int(error.bit)}
    except AgentError as error:
        return {"link": "ok", "error": plain(error.message, 200), "exit": int(error.bit)}


def _host_row(state: BatchState, name: str, asked: dict[str, Any] | None) -> dict[str, Any]:
    from fleet.agent.status import amount, listed, part
    from fleet.model.names import plain

    view = state.hosts[name]
    attempt = state.attempts.get(view.attempt or "")
    row: dict[str, Any] = {
        "host": name,
        "link": str(view.link),
        "link_since": view.link_since or None,
        "stalled_since": (attempt.stalled_since or None) if attempt else None,
        "state": ("stalled" if attempt.stalled_since else "running") if attempt and not view.orphan else view.shown,
        "task": attempt.task if attempt else None,
        "elapsed_s": None,
        "last_line": None,
        "disk_used_percent": None,
        "reason": view.why_unfit or None,
        "asked": asked is not None,
    }
    if asked is None:
        return row
    row["link"] = asked["link"]
    row["reason"] = asked.get("error") or row["reason"]
    answer = part(asked, "answer")
    row["disk_used_percent"] = amount(part(answer, "disk").get("used_percent"))
    lock = part(answer, "lock")
    holding = lock.get("attempt")
    note = answer.get("quarantine")
    if isinstance(note, dict) and attempt is None:
        row.update(state="quarantined", reason=row["reason"] or plain(f"quarantined: {note.get('reason')}", 300))
    if answer and not holding and row["state"] in ("running", "stalled"):
        row.update(state="ended, not collected", stalled_since=None)
    for one in listed(answer):
        if one.get("attempt") == holding:
            stalled = attempt is not None and attempt.attempt == holding and row["stalled_since"] is not None
            row.update(
                state="stalled" if stalled else "running",
                task=plain(str(lock.get("task")), 120),
                elapsed_s=amount(one.get("elapsed_s")),
            )
            row["last_line"] = plain(str(one.get("last_line") or ""), 200)
    return row


def _task_row(state: BatchState, label: str) -> dict[str, Any]:
    view = state.tasks[label]
    return {
        "task": label,
        "state": str(view.state),
        "host": view.host or (view.task.hosts[0] if len(view.task.hosts) == 1 else view.task.place),
        "attempt": view.attempt,
        "attempts": len(view.attempts),
        "failure": None if view.failure is None else str(view.failure),
        "reason": view.reason or None,
        "verdict": None if view.verdict is None else str(view.verdict),
        "resolved": None if view.facts is None else view.facts.resolved,
    }


def _text(body: dict[str, Any], resume: str, style: Style) -> str:
    from fleet.cli.output import table
    from fleet.model.names import visible

    def elapsed(value: float | None) -> str:
        return "" if value is None else f"{int(value) // 60}:{int(value) % 60:02d}"

    hosts = [
        [
            row["host"],
            row["link"],
            f"STALLED since {row['stalled_since']}" if row["stalled_since"] else row["state"],
            row["task"] or "",
            elapsed(row["elapsed_s"]),
            visible(row["last_line"] or row["reason"] or "", 60),
        ]
        for row in body["hosts"]
    ]
    tasks = [[row["task"], row["host"], row["state"], visible(row["reason"] or "", 70)] for row in body["tasks"]]
    controller = body["controller"] or f"none ({resume} attaches)"
    parts = [f"batch {body['batch']}, controller: {controller}", ""]
    parts.append(
        table(["host", "link", "state", "task", "elapsed", "last line or reason"], hosts, style, cut="last line or reason")
    )
    parts += ["", table(["task", "host", "state", "reason"], tasks, style, cut="reason")]
    return "\n".join(parts)
