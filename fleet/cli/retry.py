"""`fleet retry`: allow a new attempt of tasks that ended; the old one stays beside it."""

from __future__ import annotations

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import InputError


@fleet_command("retry", example="fleet retry 1319603449576684\nfleet retry --class lost-reboot --batch phase8")
@click.argument("tasks", nargs=-1, metavar="[TASK]...")
@click.option("--batch", metavar="NAME", help="Default: the most recently changed batch.")
@click.option("--class", "classes", multiple=True, metavar="CLASS", help="Every task that ended with this failure class.")
def retry(ctx: Context, tasks: tuple[str, ...], batch: str | None, classes: tuple[str, ...]) -> int:
    """Order a new attempt of TASKs that failed, were lost, rejected or cancelled.

    The order is written to the journal. A running controller starts the attempt by itself; else dispatch the file again.
    """
    from fleet.dashboard.batches import find_batch
    from fleet.dashboard.formats import counted
    from fleet.dispatch.answers.find import find_task
    from fleet.dispatch.answers.resume import resume_command, typed
    from fleet.model.base import nearest
    from fleet.model.failures import FailureClass
    from fleet.model.records import RetryOrdered
    from fleet.model.states import RETRYABLE

    if not tasks and not classes:
        raise InputError("name tasks, or give --class", hint="fleet retry --help")
    known = [str(member) for member in FailureClass]
    for name in classes:
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                f"no failure class {name!r}" + (f", did you mean {near!r}?" if near else ""), hint=", ".join(known)
            )
    found = find_batch(ctx.collected, batch)
    state = found.load()
    views = [find_task(state, task) for task in tasks]
    for view in views:
        if view.state not in RETRYABLE:
            raise InputError(f"{view.task.label} is {view.state}; only what ended without a result is tried again",
                             hint=typed("fleet why TASK", state, task=view.task.label))  # fmt: skip
    views += [
        view
        for view in state.tasks.values()
        if view.failure is not None and view.failure in classes and view.state in RETRYABLE and view not in views
    ]
    if views:
        found.journal.append(*(RetryOrdered(task=view.task.label, after=view.attempt) for view in views))
    running = found.nudge()
    labels = [view.task.label for view in views]
    left_out = [label for label in labels if running and state.scope is not None and label not in state.scope]
    command = resume_command(state)
    body = {
        "batch": found.name,
        "ordered": labels,
        "controller_running": running,
        "left_out": left_out,
        "next": None if running and not left_out else command,
    }
    if not labels:
        text = "no task to try again"
    elif not running:
        text = f"{counted(len(labels), 'new attempt')} ordered; → {command}"
    elif left_out:
        begun = len(labels) - len(left_out)
        text = f"{counted(len(labels), 'new attempt')} ordered; the running controller starts {begun or 'none'} of them: "
        text += f"it runs with --only or --hosts, which leave out {', '.join(left_out[:5])}; once it has ended: {command}"
    else:
        text = f"{counted(len(labels), 'new attempt')} ordered; the running controller starts them"
    ctx.emit_text("fleet.retry/1", body, lambda: text)
    return 0
