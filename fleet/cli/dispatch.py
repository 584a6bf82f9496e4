"""`fleet dispatch`: the main job. Plan shown first, then check → stage → launch → wait → collect → validate on all hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import InputError, StorageError
from fleet.model.exitcodes import INTERRUPTED

if TYPE_CHECKING:
    from fleet.dispatch.job import Ended, Job, Runner
    from fleet.dispatch.state.views import BatchState

DETACH_WAIT_S = 20.0
LOG = "dispatch.log"
ONLY = ("failed", "lost", "rejected", "cancelled", "held")


@fleet_command(
    "dispatch",
    example="fleet dispatch assignments/phase8.json --dry-run\nfleet dispatch assignments/phase8.json\n"
    "fleet dispatch assignments/phase8.json --only rejected,lost",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--batch", metavar="NAME", help="Name of the batch; default: the file's name without its ending.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--detach", is_flag=True, help="Run the controller in the background and return.")
@click.option("--hosts", "patterns", multiple=True, metavar="PATTERN", help="Only these hosts take new tasks.")
@click.option("--only", metavar="STATE,…", help=f"A new attempt for tasks that ended so: {', '.join(ONLY)}.")
@click.option(
    "--halt", "halt_text", metavar="RULE", help="soon,fail=N or soon,fail=N%: start no more then; now,…: end what runs."
)
@click.option("--quarantine", type=click.IntRange(0, 1000), default=3, show_default=True, metavar="N",
              help="Hold a host back after N different tasks in a row ended badly there; 0 = never.")  # fmt: skip
@click.option("--retry", "retries", multiple=True, metavar="CLASS=N",
              help="Up to N new attempts by itself for tasks that end with this failure class.")  # fmt: skip
@click.option("--retry-lost", type=click.IntRange(0, 100), metavar="N", help="The same for tasks that are lost.")
@click.option("--check-images", is_flag=True,
              help="First ask S3 for every image archive; fleet images says what is asked.")  # fmt: skip
@click.option("--no-collect", is_flag=True, help="Leave the outputs on the hosts; fleet collect brings them.")
@click.option("--patience", type=float, default=300.0, show_default=True, metavar="SECONDS",
              help="How long to keep calling hosts with evals when nothing else is left to do.")  # fmt: skip
def dispatch(
    ctx: Context,
    file: Path,
    batch: str | None,
    dry_run: bool,
    detach: bool,
    patterns: tuple[str, ...],
    only: str | None,
    halt_text: str | None,
    quarantine: int,
    retries: tuple[str, ...],
    retry_lost: int | None,
    check_images: bool,
    no_collect: bool,
    patience: float,
) -> int:
    """Run every task of the assignment FILE, one eval per host, all hosts in parallel, each through its own queue.

    The same command again resumes: running evals are followed, finished ones collected, nothing is started twice. The first
    Ctrl-C detaches and leaves the evals running; the second quits at once.

    Exit code: 2 a host was not ready or a result was rejected, 4 something is incomplete or unknown, 8 halted by --halt, 16 a
    host key or a transfer cannot be trusted, 64 another controller or eval holds it; they add up.
    """
    from fleet.cli.check import require_rsync
    from fleet.dispatch.job import known_state

    policy = _policy(retries, retry_lost)
    job = _job(ctx, file, batch, patterns, only, halt_text, quarantine=quarantine, policy=policy, collect=not no_collect)
    state = known_state(job)
    if job.batch.journal.torn:
        ctx.talk(f"warning: {job.batch.journal.path}: its last line is torn and ignored; a controller died while it wrote")
    if check_images:
        from dataclasses import replace

        from fleet.cli.images import require_images

        pairs = [(task, job.resolved.archives.get(task.label, "")) for task in job.tasks()]
        job = replace(job, archives=require_images(ctx, file, pairs, state.archives))
    plan = _plan(job, state)
    if dry_run:
        ctx.emit_text("fleet.dispatch-plan/1", plan, lambda: _plan_text(plan))
        return 0
    if job.collect:
        require_rsync(ctx)
    ctx.talk(_plan_text(plan))
    if detach:
        return _detach(ctx, job)
    ended = _run(ctx, job, patience)
    return _report(ctx, job, ended)


def _job(
    ctx: Context,
    file: Path,
    batch: str | None,
    patterns: tuple[str, ...],
    only: str | None,
    halt_text: str | None,
    **limits: Any,
) -> Job:
    from fleet.dispatch.files.batch import Batch
    from fleet.dispatch.job import Job
    from fleet.dispatch.resolve import resolve_assignment
    from fleet.dispatch.rules.halt import halt_rule
    from fleet.model.states import TaskState

    states = [part.strip() for part in (only or "").split(",") if part.strip()]
    for name in states:
        if name not in ONLY:
            raise InputError(f"--only {name!r} is not a state", hint=f"one or more of {','.join(ONLY)}")
    inventory = ctx.inventory()
    chosen = tuple(host.name for host in inventory.select(patterns)) if patterns else ()
    job = Job(
        batch=Batch(ctx.collected, batch or file.stem),
        assignment_file=file,
        resolved=resolve_assignment(file, inventory, ctx.pipelines()),
        hosts=chosen,
        retry=frozenset(TaskState(name) for name in states),
        halt=halt_rule(halt_text) if halt_text else None,
        **limits,
    )
    if not job.tasks():
        raise InputError(f"{file}: no task may run on {', '.join(patterns)}", hint="fleet hosts")
    return job


def _policy(retries: tuple[str, ...], retry_lost: int | None) -> dict[str, int]:
    """Return failure class → new attempts without an order, from the command line."""
    from fleet.model.failures import SHORT_LOST, policy_problem

    policy = {} if retry_lost is None else {SHORT_LOST: retry_lost}
    for text in retries:
        word, _, count = text.partition("=")
        problem = policy_problem(word, int(count) if count.isdecimal() and len(count) < 9 else count)
        if problem:
            raise InputError(f"--retry {text[:80]!r}: {problem}", hint="e.g. --retry environment=1 --retry provider=2")
        policy[word] = int(count)
    return policy


def _plan(job: Job, state: BatchState) -> dict[str, Any]:
    """Return what will be done, as data: per place its queue, and what is already over."""
    from dataclasses import replace

    from fleet.dispatch.job import chosen_again
    from fleet.dispatch.rules.retries import will_retry
    from fleet.model.states import ON_HOST, TERMINAL

    queues: dict[str, list[dict[str, Any]]] = {}
    counts = {"to_run": 0, "to_follow": 0, "over": 0}
    for task in job.tasks():
        view = state.tasks.get(task.label)
        known = None if view is None else view.state
        allowed = view is not None and not job.retry and will_retry(state, replace(view, task=task))
        again = allowed or (view is not None and chosen_again(job, view))
        if known in ON_HOST:
            fate = "to_follow"
        elif known in TERMINAL and not again:
            fate = "over"
        else:
            fate = "over" if job.retry and not again else "to_run"
        counts[fate] += 1
        row = {"task": task.label, "fate": fate, "state": None if known is None else str(known), "hosts": list(task.hosts)}
        queues.setdefault(task.place, []).append(row)
    return {"batch": job.batch.name, "tasks": len(job.tasks()), **counts, "places": queues}


def _plan_text(plan: dict[str, Any]) -> str:
    lines = [
        f"batch {plan['batch']}: {plan['tasks']} tasks; {plan['to_run']} to run, "
        f"{plan['to_follow']} to follow, {plan['over']} over"
    ]
    for place, rows in plan["places"].items():
        waiting = [row["task"] for row in rows if row["fate"] != "over"]
        shown = "  ".join(waiting[:3]) + (f"  +{len(waiting) - 3} more" if len(waiting) > 3 else "")
        hosts = rows[0]["hosts"]
        name = place if hosts == [place] else f"{place} ({len(hosts)} hosts)"
        lines.append(f"  {name:<16} {shown or 'nothing left to do'}")
    return "\n".join(lines)


def _run(ctx: Context, job: Job, patience_s: float) -> Ended:
    from fleet.dashboard.live import LiveDisplay, PlainDisplay
    from fleet.dispatch.job import opened

    display = LiveDisplay(no_color=ctx.no_color) if ctx.interactive else PlainDisplay()
    silent = ctx.quiet or ctx.json
    observer = None if silent else display
    with (
        _signals() as attach,
        opened(job, ctx.inventory(), ctx.pipelines(), ctx.connector(), observer, patience_s) as runner,
        display if observer is not None else nullcontext(),
    ):
        attach(runner)
        return runner.run()


@contextmanager
def _signals() -> Iterator[Callable[[Runner], None]]:
    """First Ctrl-C detaches, the second quits; SIGTERM and SIGHUP detach; SIGUSR1 has the journal read again.

    In force before the batch is taken and until it is let go: `fleet cancel` sends SIGUSR1 to whoever holds it, and a process
    that does not handle that one is ended by it. Yields what is to be told the runner; a Ctrl-C before that stops at once.
    """
    asked = False
    runner: Runner | None = None

    def attach(found: Runner) -> None:
        nonlocal runner
        runner = found
        # An order may have been written after the journal was read for the first time.
        found.nudge()

    def leave(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")
            os._exit(INTERRUPTED)
        asked = True
        if runner is None:
            raise KeyboardInterrupt
        runner.detach()

    def read_again(_number: int, _frame: FrameType | None) -> None:
        if runner is not None:
            runner.nudge()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, leave) for number in numbers}
    before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, read_again)
    try:
        yield attach
    finally:
        # Who was told to leave is on the way out: a second signal still means "at once", whatever is being written.
        for number, handler in before.items() if not asked else ():
            signal.signal(number, handler)


def _report(ctx: Context, job: Job, ended: Ended) -> int:
    """Write summary.json and results.csv, show the summary, and say what to type next."""
    from fleet.dashboard.export import rebuild
    from fleet.dashboard.terminal import render

    code = INTERRUPTED if ended.detached else int(ended.code)
    try:
        summary = rebuild(job.batch.directory)
    except (OSError, StorageError) as error:
        raise StorageError(f"{job.batch.directory}: {error}", hint="free the disk, then: fleet dashboard") from None
    body = {
        "batch": job.batch.name,
        "exit_code": code,
        "detached": ended.detached,
        "summary": summary.model_dump(mode="json", by_alias=True),
    }
    if ended.detached:
        from fleet.dashboard.formats import counted
        from fleet.dispatch.answers.resume import resume_command
        from fleet.dispatch.rules.scheduler import may_be_running

        going = may_be_running(ended.state)
        where = f"{counted(len({one.host for one in going}), 'host')}: {counted(len(going), 'eval')}"
        ctx.talk(f"detached; still running on {where}" if going else "detached; no eval is on a host")
        ctx.talk(f"  → to attach again: {resume_command(ended.state)}")
        ctx.talk(f"  → to end them: fleet cancel --all --batch {job.batch.name}")
        if ctx.json:
            ctx.emit_text("fleet.dispatch/1", body, str)
        return code
    ctx.emit("fleet.dispatch/1", body, lambda console: console.print(render(summary)))
    return code


def _detach(ctx: Context, job: Job) -> int:
    """Run this command again as a background process, and return once it holds the batch."""
    job.batch.prepare()
    log = job.batch.directory / LOG
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(log, flags, 0o600), "ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + DETACH_WAIT_S
    while time.monotonic() < deadline:
        holder = job.batch.held_by()
        if holder is not None and holder.get("pid") == process.pid:
            break
        if process.poll() is not None:
            break
        time.sleep(0.05)
    code = process.poll()
    if code is not None and code != 0:
        tail = log.read_bytes()[-2000:].decode("utf-8", "replace").strip()
        click.echo(tail, err=True)
        return code
    body = {"batch": job.batch.name, "pid": process.pid, "log": str(log)}
    ctx.emit_text("fleet.dispatch-detached/1", body, lambda: _detached_text(job.batch.name, process.pid, log))
    return 0


def _detached_text(batch: str, pid: int, log: Path) -> str:
    return f"controller runs as pid {pid}, log {log}\n  → fleet dashboard {batch} --live\n  → fleet status {batch}"
