"""`fleet images`: are the image archives of an assignment in S3, and who else can get at them?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style, table
from fleet.errors import ArchivesUnknown, BucketUnsafe, FleetError, InputError

if TYPE_CHECKING:
    from fleet.aws.document import Archive, ImagesDocument
    from fleet.model.findings import Finding
    from fleet.model.records import ArchiveSeen
    from fleet.model.tasks import Task

SCHEMA = "fleet.images/1"
MAX_LISTED = 10
TIMEOUT_S = 10.0


@fleet_command("images", example="fleet images assignments/phase8.json\nAWS_PROFILE=eval-host fleet images assignments/*.json")
@click.argument("files", nargs=-1, required=True, metavar="ASSIGNMENT...", type=click.Path(path_type=Path))
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=TIMEOUT_S, show_default=True, metavar="SECONDS",
              help="How long to wait for one answer, before it is asked for again.")  # fmt: skip
def images(ctx: Context, files: tuple[Path, ...], timeout: float) -> int:
    """Check that the image archive of every task is in S3, and that nobody else can get at it. No host is contacted.

    Each archive is asked for once (HEAD). Its bucket is asked, without credentials, to be listed, read and written: any of
    these is a safety finding. What your credentials can do beyond reading the archives is a warning. Nothing is changed.
    Credentials, region and AWS_ENDPOINT_URL come from where every AWS tool takes them.

    Exit code: 2 an archive is missing or forbidden, 4 something is not known, 16 the bucket is open; they add up.
    """
    from fleet.aws.document import exit_of
    from fleet.dispatch.resolve import resolve_assignment

    pairs: list[tuple[Task, str]] = []
    for file in files:
        resolved = resolve_assignment(file, ctx.inventory(), ctx.pipelines())
        pairs += [(task, resolved.archives.get(task.label, "")) for task in resolved.tasks]
    document = _ask(pairs, timeout)
    body = document.model_dump(mode="json", by_alias=True, exclude={"schema_"})
    ctx.emit_text(SCHEMA, body, lambda: render(document, ctx.style()))
    return int(exit_of(document))


def require_images(
    ctx: Context, file: Path, pairs: Iterable[tuple[Task, str]], before: Mapping[str, ArchiveSeen]
) -> dict[str, ArchiveSeen]:
    """Return what the archives are now; raises before any host is touched when one is missing, replaced, or open to others."""
    from fleet.aws.document import CREDENTIALS, ArchiveState, exit_of, replaced, seen_of
    from fleet.model.exitcodes import Exit
    from fleet.model.findings import Mark
    from fleet.model.names import visible

    document = _ask(pairs, TIMEOUT_S)
    findings = [*document.findings, *replaced(document, before)]
    code = exit_of(document.model_copy(update={"findings": tuple(findings)}))
    if code is Exit.OK:
        advice = [one for one in findings if one.check == CREDENTIALS]
        lines = [*(_of_archive(one) for one in document.archives if one.message), *map(_of_finding, advice)]
        style = ctx.style(stderr=True)
        for line in lines:
            ctx.talk(f"{style.yellow('⚠')} {line}")
        ctx.talk(_summed_up(document))
        return seen_of(document)
    bad = [_of_archive(one) for one in document.archives if one.state is not ArchiveState.OK]
    bad += [_of_finding(one) for one in findings if one.check != CREDENTIALS and one.mark is not Mark.OK]
    more = [f"… and {len(bad) - MAX_LISTED} more"] if len(bad) > MAX_LISTED else []
    kinds: list[tuple[Exit, type[FleetError]]] = [(Exit.SAFETY, BucketUnsafe), (Exit.FAILED, InputError)]
    kind = next((error for bit, error in kinds if code & bit), ArchivesUnknown)
    text = "\n  ".join(["the image archives are not as they should be; no host was asked:", *bad[:MAX_LISTED], *more])
    raise kind(text, hint=f"fleet images {visible(str(file), 300)}")


def _ask(pairs: Iterable[tuple[Task, str]], timeout_s: float) -> ImagesDocument:
    from fleet.aws.address import wanted
    from fleet.aws.client import open_store
    from fleet.aws.s3 import preflight

    archives, elsewhere = wanted(pairs)
    if not archives:
        hint = "image_storage_uri of a dataset: s3://BUCKET/PREFIX/REPO-COMMIT.tar"
        raise InputError("no task's dataset names an image archive in S3", hint=hint)
    return preflight(archives, elsewhere, open_store(timeout_s))


def render(document: ImagesDocument, style: Style) -> str:
    """Return the table of archives, below it what is wrong with its fix, and one line that sums up."""
    from fleet.aws.document import ArchiveState
    from fleet.dashboard.formats import counted, size
    from fleet.model.findings import Mark

    signs = {ArchiveState.OK: style.green("✓"), ArchiveState.UNKNOWN: style.yellow("⚠ unknown")}
    rows = [
        [
            one.uri,
            signs.get(one.state) or style.red(f"✗ {one.state}"),
            "-" if one.bytes is None else size(one.bytes),
            one.checksum or one.etag or "-",
            str(len(one.tasks)),
        ]
        for one in document.archives
    ]
    parts = [table(["archive", "state", "size", "checksum", "tasks"], rows, style)]
    marks = {ArchiveState.OK: style.yellow("⚠"), ArchiveState.UNKNOWN: style.yellow("⚠")}
    lines = [f"{marks.get(one.state) or style.red('✗')} {_of_archive(one)}" for one in document.archives if one.message]
    findings = sorted(document.findings, key=lambda one: one.mark is Mark.FAIL)
    lines += [f"{style.red('✗') if one.mark is Mark.FAIL else style.yellow('⚠')} {_of_finding(one)}" for one in findings]
    if document.elsewhere:
        more = f" and {len(document.elsewhere) - 3} more" if len(document.elsewhere) > 3 else ""
        named = f"{', '.join(document.elsewhere[:3])}{more}"
        lines.append(f"{style.yellow('⚠')} {counted(len(document.elsewhere), 'task')} without an archive in S3: {named}")
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else []), style.bold(_summed_up(document))])


def _of_archive(one: Archive) -> str:
    nearest = f"; the nearest there is {one.nearest}" if one.nearest else ""
    fix = f"\n    → {one.fix}" if one.fix else ""
    return f"{one.uri}: {one.message}{nearest} ({one.tasks[0]}{f' and {len(one.tasks) - 1} more' * (len(one.tasks) > 1)}){fix}"


def _of_finding(one: Finding) -> str:
    return f"{one.check}: {one.message}" + (f"\n    → {one.fix}" if one.fix else "")


def _summed_up(document: ImagesDocument) -> str:
    from fleet.dashboard.formats import counted, size

    total = document.summary
    counts = [(total.ok, "there"), (total.missing, "missing or unusable"), (total.unknown, "unknown")]
    text = f"{counted(total.archives, 'image archive')}: " + ", ".join(f"{number} {what}" for number, what in counts if number)
    most = max(document.hosts, key=lambda one: one.bytes, default=None)
    if not total.bytes or most is None:
        return text
    return f"{text}; {size(total.bytes)}, most for {most.host}: {size(most.bytes)}"
