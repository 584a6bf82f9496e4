"""`fleet check`: a table of hosts × groups of checks, and below it what is wrong, grouped, each with its fix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style, table

if TYPE_CHECKING:
    from fleet.model.findings import HostReport, Mark

MAX_NAMES = 12
HOLE = "\0"


@fleet_command(
    "check",
    example="fleet check\nfleet check eval1 eval2 --json\nfleet check @gpu '!eval3' --reference ~/OpenHands",
)
@click.argument("hosts", nargs=-1, metavar="[HOST]...")
@click.option(
    "--reference",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Checkout with the right critical files; overrides the pipeline's.",
)
@click.option("--pipeline", metavar="NAME", help="Check for this pipeline instead of each host's own.")
def check(ctx: Context, hosts: tuple[str, ...], reference: Path | None, pipeline: str | None) -> int:
    """Check consistency and readiness of the hosts, all in parallel, one round trip each.

    Consistency: the pipeline's critical files are what pipeline.yaml lists, what the reference directory holds, or what the
    majority of the asked hosts has. Readiness: a task could start now. Each ✗ comes with its fix.

    HOST is a name, eval*, eval[1-6], @group or !exclusion; none means all. Exit code: 2 a host is not ready, 4 one gave no
    answer, 16 a host key is unknown or changed; they add up.
    """
    from fleet.checks.document import document_of, exit_of
    from fleet.checks.survey import Answer, check_hosts
    from fleet.inventory.pipelines import agent_source
    from fleet.model.hosts import Host

    chosen = ctx.inventory().select(hosts)
    warn_of_rsync(ctx)
    if pipeline is not None:
        chosen = tuple(host.model_copy(update={"pipeline": pipeline}) for host in chosen)
    done = 0

    def progress(host: Host, answer: Answer) -> None:
        nonlocal done
        done += 1
        state = "no answer" if answer.error is not None else f"{answer.seconds:.1f} s"
        click.echo(f"\r\x1b[K{done}/{len(chosen)} {host.name} {state}", err=True, nl=False)

    reports = check_hosts(
        chosen,
        ctx.connector(),
        ctx.pipelines(),
        agent_source(),
        ctx.inventory().defaults.in_flight,
        reference=reference,
        on_answer=progress if ctx.interactive else None,
    )
    if ctx.interactive:
        click.echo("\r\x1b[K", err=True, nl=False)
    body = document_of(reports).model_dump(mode="json", by_alias=True, exclude={"schema_"})
    ctx.emit_text("fleet.check/1", body, lambda: render(reports, ctx.style()))
    return int(exit_of(reports))


def warn_of_rsync(ctx: Context) -> None:
    """Say once what is wrong with the rsync of this machine; it is no host's fault, so it is no finding."""
    from fleet.transport.rsync import local_trouble

    trouble = local_trouble()
    if trouble is not None:
        ctx.talk(f"{ctx.style(stderr=True).yellow('⚠')} {trouble}")


def require_rsync(ctx: Context) -> None:
    """Refuse to begin what no result could be brought home from: InputError without a usable rsync, a warning of an old one."""
    from fleet.transport.rsync import find_client

    find_client()
    warn_of_rsync(ctx)


def render(reports: Sequence[HostReport], style: Style) -> str:
    """Return the table, the problems grouped over hosts, and one line that sums up."""
    from fleet.checks.document import document_of
    from fleet.checks.registry import GROUP_OF, GROUPS
    from fleet.model.findings import Mark
    from fleet.model.states import Link

    signs = {Mark.OK: style.green("✓"), Mark.WARN: style.yellow("⚠"), Mark.FAIL: style.red("✗")}
    rows = []
    for report in reports:
        if report.link is not Link.OK:
            rows.append([report.host, style.red(f"✗ {report.link}"), *[style.dim("·")] * len(GROUPS)])
            continue
        cells = [
            signs[_worst([f.mark for f in report.findings if GROUP_OF.get(f.check, GROUPS[0]) == group])] for group in GROUPS
        ]
        rows.append([report.host, style.green("ready") if report.ready else style.red("not ready"), *cells])
    parts = [table(["host", "state", *GROUPS], rows, style)]
    listed = group_problems(reports)
    following = [*(one[0][2] for one in listed[1:]), ""]
    for number, ((mark, message, fix), names) in enumerate(listed):
        more = f" and {len(names) - MAX_NAMES} more" * (len(names) > MAX_NAMES)
        line = f"{signs[mark]} {', '.join(names[:MAX_NAMES])}{more}: {message}"
        # One fix for several problems in a row is said once, below the last of them.
        parts.append(line + (f"\n    → {fix}" if fix and fix != following[number] else ""))
    summary = document_of(reports).summary
    counts = [(summary.ready, "ready"), (summary.not_ready, "not ready"), (summary.unreachable, "without an answer")]
    parts.append(style.bold(", ".join(f"{number} {what}" for number, what in counts if number)) or "no hosts")
    return "\n\n".join([parts[0], "\n".join(parts[1:-1]), parts[-1]] if len(parts) > 2 else parts)


def _worst(marks: Sequence[Mark]) -> Mark:
    from fleet.model.findings import Mark

    return next((mark for mark in (Mark.FAIL, Mark.WARN) if mark in marks), Mark.OK)


def group_problems(reports: Sequence[HostReport]) -> list[tuple[tuple[Mark, str, str], list[str]]]:
    """Return each problem once with the hosts that have it; warnings first, so that the worst stands last.

    Two problems are the same when they differ only in the host's own name.
    """
    from fleet.model.findings import Mark
    from fleet.model.states import Link

    grouped: dict[tuple[Mark, str, str], list[str]] = {}
    for report in reports:
        if report.link is not Link.OK:
            problems = [(Mark.FAIL, (report.error or str(report.link)).removeprefix(f"{report.host}: "), report.fix)]
        else:
            problems = [(f.mark, f"{f.check}: {f.message}", f.fix) for f in report.findings if f.mark is not Mark.OK]
        for mark, message, fix in problems:
            key = (mark, _without(report.host, message), _without(report.host, fix))
            grouped.setdefault(key, []).append(report.host)
    listed = [((mark, _filled(message, names), _filled(fix, names)), names) for (mark, message, fix), names in grouped.items()]
    return sorted(listed, key=lambda item: item[0][0] is Mark.FAIL)


def _filled(text: str, names: Sequence[str]) -> str:
    """Put the hosts back into a text of one or several: a command takes them all."""
    if len(names) == 1 or (text.startswith("fleet ") and len(names) <= MAX_NAMES):
        return text.replace(HOLE, " ".join(names))
    return text.replace(HOLE, "HOST")


def _without(host: str, text: str) -> str:
    """Return `text` with the host's name as a hole, so that equal problems of several hosts are equal."""
    import re

    return re.sub(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", HOLE, text)
