"""The one command that comes next, from what a summary already knows."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.dashboard.figures import FailureGroup, Flag, Progress, Step
from fleet.dispatch.answers.resume import resume_command, typed
from fleet.dispatch.state.replay import BatchState
from fleet.model.failures import FailureClass
from fleet.model.names import plain


def next_step(
    batch: BatchState, progress: Progress, failures: Sequence[FailureGroup], flags: Sequence[Flag], *, only_blocked: bool
) -> Step:
    """Return the next command: repair what blocks tasks first, then watch, then look at what went wrong."""
    name = plain(batch.batch, 200)
    cancelled = next((group for group in failures if group.failure == str(FailureClass.CANCELLED)), None)
    wanted = [group for group in failures if group is not cancelled]
    blocked = next((group for group in wanted if group.states.get("blocked")), None)
    if progress == "empty":
        return Step(command="fleet dispatch --help", why="the journal holds no task")
    if progress == "running":
        if blocked is not None:
            return Step(command=blocked.fix, why=f"{_tasks(blocked.count)} cannot start: {blocked.line}")
        return Step(command=f"fleet dashboard {name} --live", why="watch it")
    if progress == "stopped":
        if blocked is not None and only_blocked:
            why = f"{_tasks(blocked.count)} never started: {blocked.line}; repair it and run the assignment again"
            return Step(command=blocked.fix, why=why)
        return Step(
            command=resume_command(batch),
            why="no controller is at work: the same assignment file again resumes, and starts nothing twice",
        )
    if wanted:
        return Step(command=wanted[0].fix, why=f"{_tasks(wanted[0].count)}: {wanted[0].line}")
    if flags:
        return Step(
            command=typed("fleet why TASK", batch, task=flags[0].task), why=f"{_tasks(flags[0].count)} flagged: {flags[0].code}"
        )
    if cancelled is not None:
        rest = len(batch.tasks) - cancelled.count
        others = f"{_tasks(rest)} ended with a result, " if rest else ""
        return Step(command=cancelled.fix, why=f"{others}{_tasks(cancelled.count)} cancelled: a new attempt, if it is wanted")
    return Step(command=f"fleet validate collected/{name}", why="every task has its result; judge them again offline")


def _tasks(count: int) -> str:
    return "1 task" if count == 1 else f"{count} tasks"
