"""`fleet collect`: brings back everything that has ended on the hosts and is not here yet, and judges it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import AgentError, FleetError, InputError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.collect.candidates import Candidate, Choice
    from fleet.collect.outcome import Result
    from fleet.dispatch.files.collected import Books
    from fleet.model.hosts import Host
    from fleet.transport import Transport

ADOPTED = "adopted"
"""The batch of adopted results when none is named."""


@fleet_command(
    "collect",
    example="fleet collect phase8\nfleet collect phase8 eval3 --again\n"
    "fleet collect phase8 --adopt evaluation/evaluation_outputs --instance 1319603449576684",
)
@click.argument("words", nargs=-1, metavar="[BATCH] [HOST]...")
@click.option(
    "--batch", "named", metavar="NAME", help="The batch, when its name could be a host's; with --adopt also a new one."
)
@click.option("--instance", "instances", multiple=True, metavar="ID", help="Only this instance; may be given again.")
@click.option("--again", is_flag=True, help="Also bring what was collected before and has been removed here since.")
@click.option("--adopt", metavar="DIR", help="Take in output directories below DIR on the hosts that fleet did not start.")
@click.option(
    "--pick", "picks", multiple=True, metavar="HOST:DIR", help="With --adopt: of several directories for a task, this."
)
@click.option("--model", metavar="NAME", help="With --adopt: the model, where the path does not tell it.")
def collect(
    ctx: Context,
    words: tuple[str, ...],
    named: str | None,
    instances: tuple[str, ...],
    again: bool,
    adopt: str | None,
    picks: tuple[str, ...],
    model: str | None,
) -> int:
    """Bring back everything finished and not yet here, and validate it.

    Each result is pulled into a staging directory, compared with the manifest that the host sealed (size and sha256 of every
    file), judged, and only then acknowledged; nothing here is ever overwritten. It may run beside a dispatch, and brings what
    other controllers started too. The first word is a batch when collected/WORD/journal.jsonl exists, else a host pattern.
    """
    from fleet.cli.check import require_rsync
    from fleet.dispatch.files.collected import Books, batch_and_patterns
    from fleet.model.names import is_name

    if adopt is None and (picks or model):
        raise InputError("--pick and --model go with --adopt DIR")
    for word in (*instances, *([model] if model else [])):
        if not is_name(word):
            raise InputError(f"{word!r} may only hold A-Z a-z 0-9 . _ - and must start with a letter or digit")
    batch, patterns = batch_and_patterns(ctx.collected, words, named)
    books = Books(ctx.collected, batch)
    hosts = _hosts(ctx, books, batch, patterns)
    require_rsync(ctx)
    progress = _Progress(ctx, len(hosts))
    try:
        if adopt is None:
            results = _sweep(ctx, hosts, books, batch, frozenset(instances), again=again, progress=progress)
        else:
            results = _adopt(ctx, hosts, books, batch or ADOPTED, adopt, instances, picks, model, progress)
    finally:
        progress.close()
        books.nudge()
    code = Exit.OK
    for result in results:
        code |= result.exit
    from fleet.cli.collect_text import render, summary_of

    body = {"results": [result.document for result in results], "summary": summary_of(results)}
    ctx.emit_text("fleet.collect/1", body, lambda: render(results, ctx.collected, len(hosts), ctx.style()))
    return int(code)


def _hosts(ctx: Context, books: Books, batch: str | None, patterns: Sequence[str]) -> tuple[Host, ...]:
    from fleet.model.names import is_name

    inventory = ctx.inventory()
    if patterns or batch is None:
        try:
            return inventory.select(patterns)
        except InputError as error:
            if batch is not None or len(patterns) != 1 or not is_name(patterns[0]):
                raise
            # A single word may have been meant as a batch.
            said = f"no batch {patterns[0]} below {ctx.collected}/, and no such host either: {error.message}"
            raise InputError(said, hint="fleet collect, or fleet dashboard BATCH") from None
    names = books.hosts(batch)
    chosen = tuple(host for host in inventory.hosts if host.name in names)
    missing = [name for name in names if name not in {host.name for host in chosen}]
    if missing:
        ctx.talk(f"no longer in {inventory.path}: {', '.join(missing)}; put them back to collect what they have")
    return chosen or (inventory.select(()) if not names else ())


def _sweep(
    ctx: Context,
    hosts: Sequence[Host],
    books: Books,
    batch: str | None,
    instances: frozenset[str],
    *,
    again: bool,
    progress: _Progress,
) -> list[Result]:
    from fleet.collect.sweep import Sweep

    sweep = Sweep(books, ctx.pipelines().get, batch, instances, again)

    def work(host: Host, client: AgentClient, transport: Transport) -> list[Result]:
        return sweep.run(host, client, transport, progress.row)

    return _on_hosts(ctx, hosts, books, work, progress)


def _adopt(
    ctx: Context,
    hosts: Sequence[Host],
    books: Books,
    batch: str,
    directory: str,
    instances: Sequence[str],
    picks: Sequence[str],
    model: str | None,
    progress: _Progress,
) -> list[Result]:
    from fleet.collect.adopt import Adoption, own_result
    from fleet.collect.candidates import choose, find_candidates
    from fleet.collect.outcome import Got, failed

    tasks = books.tasks(batch)
    wanted = tuple(instances) or tuple(dict.fromkeys(task.key.instance_id for task in tasks.values()))
    found: list[Candidate] = []

    def look(host: Host, client: AgentClient, _: Transport) -> list[Result]:
        pipeline = ctx.pipelines().get(host.pipeline)
        try:
            found.extend(find_candidates(client, host, pipeline, directory, instances=wanted, model=model))
        except AgentError as error:
            return [failed(Got.BUSY if error.code == "busy" else Got.FAILED, error, host=host.name)]
        return []

    results = _on_hosts(ctx, hosts, books, look, progress)
    if not found and not results:
        asked = ", ".join(host.name for host in hosts)
        of = f" of {', '.join(wanted[:3])}{' …' * (len(wanted) > 3)}" if wanted else ""
        raise InputError(
            f"no result{of} below {directory} on {asked}",
            hint="DIR is on the hosts: absolute, ~/…, or below the pipeline's workdir; results are found by instance id",
        )
    results += [own_result(one, ctx.collected) for one in found if one.own is not None]
    foreign = [one for one in found if one.own is None]
    choice = choose(sorted(foreign, key=lambda one: (one.label, one.name)), picks)
    results += _left(choice)

    def take(host: Host, client: AgentClient, transport: Transport) -> list[Result]:
        pipeline = ctx.pipelines().get(host.pipeline)
        adoption = Adoption(
            batch=batch,
            batch_dir=books.directory(batch),
            pipeline=pipeline,
            tasks=tasks,
            floor=lambda label: books.floor(batch, label),
            note=lambda task, ref, records: books.begin(batch, task, ref, pipeline.name, records),
        )
        rows = []
        for candidate in choice.taken:
            if candidate.host == host.name:
                rows.append(adoption.take(client, transport, candidate))
                progress.row(rows[-1])
        return rows

    names = {candidate.host for candidate in choice.taken}
    return results + _on_hosts(ctx, [host for host in hosts if host.name in names], books, take, progress)


def _left(choice: Choice) -> list[Result]:
    from fleet.collect.outcome import Got, Result

    rows = []
    for group in choice.ambiguous:
        for one in group:
            hint = f"--pick {one.name}"
            said = f"{one.root}: {one.files} files, {one.bytes} bytes, written {one.written_at}; one of {len(group)}"
            rows.append(Result(Got.AMBIGUOUS, one.host, task=one.label, error=said, hint=hint))
    asked = "of which model?"
    return rows + [
        Result(Got.AMBIGUOUS, one.host, task=one.label, error=f"{one.root}: {asked}", hint="--model NAME")
        for one in choice.unnamed
    ]


def _on_hosts(
    ctx: Context,
    hosts: Sequence[Host],
    books: Books,
    work: Callable[[Host, AgentClient, Transport], list[Result]],
    progress: _Progress,
) -> list[Result]:
    """Return the rows of all hosts, in parallel; a host that does not answer is a row."""
    from fleet.checks.parallel import on_each_host
    from fleet.collect.outcome import Got, failed
    from fleet.errors import StorageError

    def one(host: Host) -> list[Result]:
        try:
            with ctx.agent(host, books.machine(host.name)) as client:
                return work(host, client, client.transport)
        except (StorageError, InputError):
            raise
        except FleetError as error:
            row = failed(Got.NO_HOST, error, host=host.name)
            progress.row(row)
            return [row]

    # Every host carries an rsync while it works, so fewer at once than for a check.
    limit = min(ctx.inventory().defaults.in_flight, 16)
    rows = on_each_host(hosts, one, limit, lambda host, _: progress.host(host.name))
    return [row for group in rows for row in group]


class _Progress:
    """Says on stderr what comes in: a bar on a terminal, a line per result otherwise."""

    def __init__(self, ctx: Context, hosts: int) -> None:
        self._ctx = ctx
        self._bar: Any = None
        if ctx.interactive and hosts:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (TextColumn("hosts"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=ctx.console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=hosts)
            self._bar.start()

    def row(self, result: Result) -> None:
        """Say what became of one attempt."""
        from fleet.cli.collect_text import line_of

        if self._bar is not None:
            self._bar.update(self._task, description=line_of(result))
        else:
            self._ctx.talk(line_of(result))

    def host(self, name: str) -> None:
        """Note that a host is done."""
        if self._bar is not None:
            self._bar.advance(self._task)
            self._bar.update(self._task, description=name)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
