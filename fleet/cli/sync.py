"""`fleet sync`: shows what differs, then writes it, with a backup; or puts the backup back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style
from fleet.errors import InputError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.model.hosts import Host
    from fleet.sync.document import ChangedFile, HostSync


@fleet_command(
    "sync",
    example="fleet sync --dry-run\nfleet sync eval3 eval7 --reference ~/OpenHands\nfleet sync eval3 --rollback",
)
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option("--pipeline", metavar="NAME", help="Sync this pipeline instead of each host's own.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Checkout with the right critical files; overrides the pipeline's.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what differs.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before writing.")
@click.option("--rollback", is_flag=True, help="Put back what the last sync replaced in the work directory.")
@click.option("--backup", metavar="ID", help="With --rollback: this backup instead of the last.")
@click.option(
    "--new-machine", is_flag=True, help="The machine was replaced on purpose: write, whatever a batch knows of the old one."
)
def sync(
    ctx: Context,
    hosts: tuple[str, ...],
    pipeline: str | None,
    reference: Path | None,
    dry_run: bool,
    yes: bool,
    rollback: bool,
    backup: str | None,
    new_machine: bool,
) -> int:
    """Put the critical files and the pipeline's own scripts on the hosts.

    Shows which files differ, keeps a backup on each host, writes atomically, and verifies the digests afterwards. A host on
    which an eval runs is refused (exit bit 64), the others go on. On a terminal it asks first; --yes does not.
    """
    if rollback and (dry_run or reference):
        raise InputError("--rollback goes with neither --dry-run nor --reference")
    if backup and not rollback:
        raise InputError("--backup needs --rollback")
    from fleet.dispatch.files.machines import Machines
    from fleet.sync.document import document_of, exit_of

    chosen = ctx.inventory().select(hosts)
    if pipeline is not None:
        chosen = tuple(host.model_copy(update={"pipeline": pipeline}) for host in chosen)
    machine = _any_machine if new_machine else Machines(ctx.collected).of
    if rollback:
        results = _rollback(ctx, chosen, machine, backup, yes)
    else:
        results = _sync(ctx, chosen, machine, reference, dry_run=dry_run, yes=yes)
    if results is None:
        ctx.talk("nothing was written")
        return int(Exit.OK)
    body = document_of(results).model_dump(mode="json", by_alias=True, exclude={"schema_"})
    ctx.emit_text("fleet.sync/1", body, lambda: render(results, ctx.style()))
    return int(exit_of(results))


def _any_machine(host: str) -> str:
    del host
    return ""


def _sync(
    ctx: Context, hosts: Sequence[Host], machine: Callable[[str], str], reference: Path | None, *, dry_run: bool, yes: bool
) -> list[HostSync] | None:
    from fleet.inventory.pipelines import agent_source
    from fleet.sync import bundle_of, sync_hosts
    from fleet.sync.document import Outcome

    pipelines = ctx.pipelines()
    names = dict.fromkeys(host.pipeline for host in hosts)
    bundles = {name: bundle_of(pipelines.get(name), pipelines.folder(name), reference) for name in names}
    for name, bundle in bundles.items():
        if bundle.reference is None and bundle.pipeline.critical:
            ctx.talk(f"pipeline {name} has no reference directory: only its own scripts are synced (--reference DIR)")
    in_flight, source, connector = ctx.inventory().defaults.in_flight, agent_source(), ctx.connector()
    if not dry_run and not yes and ctx.interactive:
        preview = sync_hosts(hosts, connector, bundles, source, in_flight, machine=machine, dry_run=True)
        differing = [result for result in preview if result.outcome is Outcome.WOULD_CHANGE]
        if not differing:
            return preview
        click.echo(render(preview, ctx.style()))
        if not click.confirm(f"Write these files on {len(differing)} host{'s' * (len(differing) > 1)}?"):
            return None
    return sync_hosts(hosts, connector, bundles, source, in_flight, machine=machine, dry_run=dry_run)


def _rollback(
    ctx: Context, hosts: Sequence[Host], machine: Callable[[str], str], backup: str | None, yes: bool
) -> list[HostSync] | None:
    from fleet.inventory.pipelines import agent_source
    from fleet.sync import rollback_hosts

    pipelines = {host.pipeline: ctx.pipelines().get(host.pipeline) for host in hosts}
    if not yes and ctx.interactive and not click.confirm(f"Roll back on {', '.join(host.name for host in hosts)}?"):
        return None
    in_flight = ctx.inventory().defaults.in_flight
    return rollback_hosts(hosts, ctx.connector(), pipelines, agent_source(), in_flight, machine=machine, backup=backup)


def render(results: Sequence[HostSync], style: Style) -> str:
    """Return each set of changes once with its hosts, then backups, then what went wrong."""
    from fleet.sync.document import Outcome

    lines: list[str] = []
    groups: dict[tuple[Outcome, tuple[ChangedFile, ...]], list[HostSync]] = {}
    for result in results:
        if result.error is None:
            groups.setdefault((result.outcome, result.changed), []).append(result)
    for (outcome, changed), members in groups.items():
        names = ", ".join(member.host for member in members)
        if outcome is Outcome.UNCHANGED:
            lines.append(f"{style.green('✓')} {names}: {members[0].unchanged} files are as they should be")
            continue
        title = {
            Outcome.WOULD_CHANGE: "would be written",
            Outcome.CHANGED: "written and verified",
            Outcome.ROLLED_BACK: "rolled back",
        }[outcome]
        lines.append(f"{style.yellow('~') if outcome is Outcome.WOULD_CHANGE else style.green('✓')} {names}: {title}")
        lines += [f"    {_change(file, outcome is Outcome.ROLLED_BACK)}" for file in changed]
        if outcome is Outcome.CHANGED:
            lines += [f"    backup of {m.host}: {', '.join(backup.id for backup in m.backups)}" for m in members if m.backups]
            lines.append(f"    → undo: fleet sync {' '.join(member.host for member in members)} --rollback")
    for result in results:
        if result.error is not None:
            lines.append(f"{style.red('✗')} {result.host}: {result.outcome}: {result.error.removeprefix(f'{result.host}: ')}")
            lines += [f"    → {result.fix}"] if result.fix else []
    return "\n".join(lines) or "no hosts"


def _change(file: ChangedFile, rolled_back: bool) -> str:
    from fleet.model.names import visible

    where = visible(f"{file.root}/{file.path}")
    if rolled_back:
        return where
    if file.before == file.after:
        return f"{where}  mode"
    return f"{where}  {visible((file.before or 'not there')[:12])} → {visible((file.after or 'not there')[:12])}"
