"""`fleet validate`: verdicts for result directories, offline, with the reasons and the fixes below each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fleet.cli.audit_text import audit_lines
from fleet.cli.options import Context, fleet_command
from fleet.cli.output import Style, table
from fleet.errors import FleetError, InputError, StorageError
from fleet.model.exitcodes import Exit

if TYPE_CHECKING:
    from fleet.audit.document import Audit
    from fleet.model.pipeline import Quality
    from fleet.model.verdict import Verdict
    from fleet.quality import Expected, Provenance, Rule, Source

SHOWN = 200
"""Accepted results listed in the table; a batch may have thousands, and those that need a look are all listed."""

_UNFILLED = re.compile(r"\b(TASK|HOST)\b")
"""A fix that needs a task or a host of fleet's; a result that fleet did not make has neither."""


@fleet_command(
    "validate",
    example="fleet validate collected/phase8\nfleet validate DIR --json\nfleet validate --explain log-disagrees",
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[PATH]...")
@click.option(
    "--instance", metavar="ID", help="The instance that the results should be of; else fleet.json, else their own word."
)
@click.option("--pipeline", metavar="NAME", help="Thresholds of this pipeline; else the one in fleet.json, else the defaults.")
@click.option("--write/--no-write", default=None, help="Keep verdict.json beside each result; else only in collected attempts.")
@click.option("--explain", metavar="CODE", help="Say what a reason code means and what to do about it.")
def validate(
    ctx: Context, paths: tuple[Path, ...], instance: str | None, pipeline: str | None, write: bool | None, explain: str | None
) -> int:
    """Judge result directories offline: accepted, flagged or rejected, each with reasons and fixes.

    PATH is a result directory or anything above some: a batch, all of collected/. Results are recognised by what they hold.
    No host is asked and nothing is changed but verdict.json in collected attempts. Exit code: 2 when one is rejected.
    """
    from fleet.model.verdict import SCHEMA, Outcome
    from fleet.quality import document, find_sources, flag_differing, judge_many, provenance_of

    if explain is not None:
        return _explain(ctx, explain)
    found = find_sources(paths or (ctx.collected,))
    if not found:
        names = ", ".join(str(path) for path in paths or (ctx.collected,))
        raise InputError(f"no result found in {names}", hint="name a directory that holds output.jsonl, or one above it")
    quality = _thresholds(ctx, pipeline)
    told = [provenance_of(source.folder) for source in found]
    work = [(source, _expected(one, instance), quality(one)) for source, one in zip(found, told, strict=True)]
    verdicts: list[Verdict] = []
    unwritten = []
    for source, judged in zip(found, judge_many(work), strict=True):
        verdicts += judged
        failure = _keep(source, judged, write)
        if failure is not None:
            unwritten.append(failure)
    verdicts = flag_differing(verdicts)
    audit = _audit(ctx, paths or (ctx.collected,), dict(zip(found, told, strict=True)), verdicts)
    body = {**document(verdicts), "batch": audit.model_dump(mode="json")}
    ctx.emit_text(SCHEMA, body, lambda: "\n\n".join([_page(verdicts, ctx.style()), *audit_lines(audit, ctx.style())]))
    for failure in unwritten[:3]:
        ctx.talk(f"warning: {failure.message}")
    code = Exit.FAILED if any(verdict.verdict is Outcome.REJECTED for verdict in verdicts) else Exit.OK
    return int(code | (Exit.LOCAL if unwritten and write else Exit.OK))


def _audit(
    ctx: Context, paths: Sequence[Path], found: Mapping[Source, Provenance | None], verdicts: Sequence[Verdict]
) -> Audit:
    """Return what the results show together, and the accounts of every batch that lies at or below `paths` as a whole."""
    from fleet.audit.accounts import accounts
    from fleet.audit.document import Audit
    from fleet.audit.judged import Judged
    from fleet.audit.together import findings
    from fleet.dispatch.files.batch import JOURNAL, Batch

    told = {str(source.path): provenance for source, provenance in found.items() if not source.name}
    by_path = {verdict.path: verdict for verdict in verdicts}
    asked = [path.resolve() for path in paths]
    mine: dict[Path, dict[str, Verdict]] = {}
    for source in found:
        path = source.path.resolve()
        batch = next((parent for parent in path.parents if (parent / JOURNAL).is_file()), None)
        if batch is not None and str(source.path) in by_path and any(batch.is_relative_to(root) for root in asked):
            mine.setdefault(batch, {})[str(path.relative_to(batch))] = by_path[str(source.path)]
    books = []
    for one, here in mine.items():
        try:
            books.append(accounts(Batch(one.parent, one.name).load(), here))
        except FleetError as error:
            ctx.talk(f"warning: the tasks of batch {one.name} cannot be accounted for: {error.message}")
    return Audit(findings=findings([Judged(verdict, told.get(verdict.path)) for verdict in verdicts]), accounts=tuple(books))


def _thresholds(ctx: Context, named: str | None) -> Callable[[Provenance | None], Quality]:
    """Return the thresholds for a result: those of the pipeline that made it, so that offline and online agree."""
    from fleet.model.pipeline import Quality

    if named is not None:
        chosen = ctx.pipelines().get(named).quality
        return lambda _provenance: chosen
    known: dict[str, Quality] = {}

    def of(provenance: Provenance | None) -> Quality:
        name = provenance.pipeline if provenance else None
        if name is None:
            return Quality()
        if name not in known:
            try:
                known[name] = ctx.pipelines().get(name).quality
            except FleetError:
                ctx.talk(f"warning: pipeline {name} is not here, so its results are judged by the default thresholds")
                known[name] = Quality()
        return known[name]

    return of


def _expected(provenance: Provenance | None, instance: str | None) -> Expected | None:
    """Return what the user expects; the lists of fleet.json stay in use when it is about the same instance."""
    from fleet.quality import Expected

    if instance is None:
        return None
    known = provenance.expected if provenance else None
    return known if known is not None and known.instance_id == instance else Expected(instance)


def _keep(source: Source, judged: Sequence[Verdict], write: bool | None) -> StorageError | None:
    """Write the verdict beside a result that has a directory of its own."""
    from fleet.quality import is_collected, write_verdict

    if source.name or len(judged) != 1 or write is False or (write is None and not is_collected(source.path)):
        return None
    try:
        write_verdict(source.path, judged[0])
    except StorageError as error:
        return error
    return None


def _page(verdicts: Sequence[Verdict], style: Style) -> str:
    """Return the table, what is wrong with each result, and the sum."""
    from fleet.model.verdict import Outcome
    from fleet.quality import document

    paint = {Outcome.ACCEPTED: style.green, Outcome.FLAGGED: style.yellow, Outcome.REJECTED: style.red}
    looked = [verdict for verdict in verdicts if verdict.verdict is not Outcome.ACCEPTED]
    accepted = [verdict for verdict in verdicts if verdict.verdict is Outcome.ACCEPTED]
    rows = [
        (
            paint[verdict.verdict](verdict.verdict),
            verdict.instance_id or "?",
            verdict.model or "?",
            {True: "yes", False: "no", None: "?"}[verdict.facts.resolved],
            verdict.cause or "",
            ", ".join(dict.fromkeys(reason.code for reason in verdict.reasons)),
            verdict.path,
        )
        for verdict in (*accepted[:SHOWN], *looked)
    ]
    parts = [table(("verdict", "instance", "model", "resolved", "cause", "reasons", "path"), rows, style, cut="reasons")]
    if len(accepted) > SHOWN:
        parts.append(f"… and {len(accepted) - SHOWN} more accepted")
    parts += ["\n".join(_reasons(verdict, style)) for verdict in looked]
    summary = document(verdicts)["summary"]
    assert isinstance(summary, dict)
    parts.append(", ".join(f"{number} {name}" for name, number in summary.items()))
    return "\n\n".join(parts)


def _reasons(verdict: Verdict, style: Style) -> list[str]:
    from fleet.quality.kinds import FILES

    marks = {"reject": style.red("✗"), "warn": style.yellow("⚠"), "info": style.dim("·")}
    lines = [style.bold(verdict.path) + (f"  {verdict.instance_id}" if verdict.kind in FILES and verdict.instance_id else "")]
    for reason in verdict.reasons:
        lines.append(f"  {marks[reason.severity]} {reason.code}: {reason.message}")
        if reason.fix and not _UNFILLED.search(reason.fix):
            lines.append(f"      → {reason.fix}")
    return lines


def _explain(ctx: Context, code: str) -> int:
    from fleet.model.base import nearest
    from fleet.quality import BY_CODE

    rule = BY_CODE.get(code)
    if rule is None:
        near = nearest(code, list(BY_CODE))
        hint = f"did you mean {near}?" if near else "codes: " + ", ".join(BY_CODE)
        raise InputError(f"no such reason code: {code}", hint=hint)
    body = {
        "code": rule.code,
        "severity": str(rule.severity),
        "cause": rule.cause and str(rule.cause),
        **rule.text._asdict(),
        "fix": rule.fix,
    }
    ctx.emit_text("fleet.reason/1", body, lambda: _entry(rule, ctx.style()))
    return int(Exit.OK)


def _entry(rule: Rule, style: Style) -> str:
    lines = [
        f"{style.bold(rule.code)} ({rule.severity})",
        f"  when:  {rule.text.when}",
        f"  means: {rule.text.means}",
        f"  do:    {rule.text.do}",
    ]
    return "\n".join([*lines, f"  → {rule.fix}"] if rule.fix else lines)
