"""`fleet cancel`: end the process tree and the containers of tasks, and verify that nothing is left."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import AgentError, FleetError, InputError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.dispatch.state.views import BatchState, TaskView


@fleet_command("cancel", example="fleet cancel 1319603449576684\nfleet cancel --all --batch phase8 --yes")
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--batch", metavar="NAME", help="Default: the most recently changed batch.")
@click.option("--all", "everything", is_flag=True, help="Every task that has not ended.")
@click.option("--grace", type=float, default=30.0, show_default=True, metavar="SECONDS", help="Between TERM and KILL.")
@click.option("--followed", is_flag=True, help="Also evals that another controller started and this batch follows.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def cancel(
    ctx: Context, tasks: tuple[str, ...], batch: str | None, everything: bool, grace: float, followed: bool, yes: bool
) -> int:
    """Cancel TASKs: those that wait are not started, those that run are ended with all their processes and containers.

    Each host verifies and says what is left. Cancelling what has ended already changes nothing. Exit code: 4 something could
    not be ended or a host gave no answer; 16 another machine answers under
    a host's name; 64 an eval is another controller's.
    """
    from fleet.dashboard.batches import find_batch
    from fleet.dashboard.formats import counted
    from fleet.dispatch.answers.find import find_task
    from fleet.model.records import CancelOrdered
    from fleet.model.states import ON_HOST, TERMINAL

    if bool(tasks) == everything:
        raise InputError("name tasks, or give --all", hint="fleet cancel --help")
    found = find_batch(ctx.collected, batch)
    state = found.load()
    if everything:
        views = [view for view in state.tasks.values() if view.state not in TERMINAL]
    else:
        views = list({view.task.label: view for view in (find_task(state, task) for task in tasks)}.values())
    rows = [row for view in views if (row := _left_alone(state, view, followed)) is not None]
    over = {row["task"] for row in rows}
    views = [view for view in views if view.task.label not in over]
    if views and not yes:
        what = f"{counted(len(views), 'task')} of batch {found.name}"
        if not ctx.interactive:
            raise InputError(f"this would cancel {what}, and nobody is here to confirm it", hint="the same command with --yes")
        click.confirm(f"cancel {what}?", abort=True, err=True)
    # The orders are on disk before the first host is asked: a controller then starts none of them.
    found.journal.append(*(CancelOrdered(task=view.task.label, attempt=view.attempt) for view in views))
    ordered = {view.task.label: view.attempt for view in views}
    state = found.load()
    views = [state.tasks[label] for label in ordered]
    # While this was read and confirmed a controller went on: what it began meanwhile is meant too.
    begun = [view for view in views if view.attempt != ordered[view.task.label] and view.state in ON_HOST]
    found.journal.append(*(CancelOrdered(task=view.task.label, attempt=view.attempt) for view in begun))
    found.nudge()
    with ThreadPoolExecutor(max_workers=32) as pool:
        rows += pool.map(lambda view: _cancel(ctx, state, view, grace), views)
    # Freed by this command: nobody else may be there to hear of it from the host.
    freed = [row.pop("freed") for row in rows if "freed" in row]
    if freed:
        found.journal.append(*freed)
        found.nudge()
    body = {"batch": found.name, "cancelled": rows}
    ctx.emit_text("fleet.cancel/1", body, lambda: "\n".join(row["text"] for row in rows) or "nothing to cancel")
    if any(row["host"] and not row["exit"] for row in rows) and found.held_by() is None:
        ctx.talk(f"  → what was written is still on the hosts: fleet collect {found.name}")
    code = Exit.OK
    for row in rows:
        code |= Exit(row["exit"])
    return int(code)


def _left_alone(state: BatchState, view: TaskView, followed: bool) -> dict[str, Any] | None:
    """Return the row of a task that has ended, or whose eval is another controller's; None when there is something to do."""
    from fleet.model.states import TERMINAL, TaskState

    label = view.task.label
    row: dict[str, Any] = {"task": label, "host": None, "outcome": str(view.state), "exit": 0}
    if view.state in TERMINAL - {TaskState.HELD, TaskState.LOST}:
        return row | {"text": f"{label}: {view.state}, nothing to end"}
    attempt = state.attempts.get(view.attempt or "")
    if attempt is not None and attempt.followed and not followed:
        said = f"{label} on {attempt.host}: another controller started this eval, so it is theirs to cancel; with --followed"
        return row | {"outcome": "followed", "exit": int(Exit.OWNED), "text": f"{said} it is ended all the same"}
    return None


def _cancel(ctx: Context, state: BatchState, view: TaskView, grace_s: float) -> dict[str, Any]:
    """Cancel one task on its host and return its row; every failure is a row too."""
    from fleet.agent.status import observed_record, part, whole
    from fleet.dispatch.files.machines import machine_of
    from fleet.model.names import plain
    from fleet.model.states import ON_HOST, TaskState

    label = view.task.label
    row: dict[str, Any] = {"task": label, "host": None, "outcome": "not started", "exit": 0}
    attempt = state.attempts.get(view.attempt or "")
    if attempt is None or view.state not in (*ON_HOST, TaskState.HELD, TaskState.LOST):
        over = view.state if attempt is not None else "not started"
        return row | {"outcome": str(over), "text": f"{label}: {over}, nothing to end"}
    row["host"] = attempt.host
    try:
        with ctx.agent(ctx.inventory().get(attempt.host), machine_of(state, attempt.host)) as client:
            answer = client.cancel(attempt.attempt, attempt.epoch, grace_s)
    except AgentError as error:
        if error.code == "unknown-attempt":
            return row | {"outcome": "never arrived", "text": f"{label} on {attempt.host}: the host never got it"}
        return row | {"outcome": error.code, "exit": int(Exit.INCOMPLETE), "text": f"{label}: {error.message}"}
    except FleetError as error:
        said = f"{label}: {error.message}; {view.state}, as far as is known"
        then = f"{error.hint} then the same command again" if error.hint else "the same command again"
        return row | {"outcome": "no answer", "exit": int(error.bit), "text": f"{said}\n  → {then}"}
    names = answer.get("containers_removed")
    removed = len(names) if isinstance(names, list) else 0
    ended, processes, containers = (
        whole(answer.get(name)) for name in ("processes_ended", "processes_left", "containers_left")
    )
    outcome = plain(str(answer.get("outcome")), 40)
    text = (
        f"{label} on {attempt.host}: {outcome}; {_count(processes, 'process', 'processes')}, "
        f"{_count(containers, 'container', 'containers')} left"
    )
    if view.state is TaskState.HELD:
        row["freed"] = observed_record(attempt.attempt, part(answer, "status"))
    if ended or removed:
        swept = f"{_count(ended, 'process', 'processes')} and {_count(removed, 'container', 'containers')}"
        text += f" (the eval had left {swept}, which were ended)"
    return row | {
        "outcome": outcome,
        "processes_ended": ended,
        "containers_removed": removed,
        "processes_left": processes,
        "containers_left": containers,
        "text": text,
    }


def _count(number: int | None, one: str, many: str) -> str:
    """Return `1 process`, `3 processes`; the host may not have said a number."""
    shown = "?" if number is None else number
    return f"{shown} {one if shown == 1 else many}"
