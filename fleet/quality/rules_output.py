"""Rules about what the agent left: output.jsonl, its patch and history, metadata.json and llm_completions/."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.model.verdict import Severity
from fleet.quality import values
from fleet.quality.agent_errors import agent_error as diagnose_agent_error
from fleet.quality.case import Case, Finding
from fleet.quality.evidence import state_words
from fleet.quality.folder import State
from fleet.quality.host_fault import LOG, host_fault
from fleet.quality.kinds import Kind, Part


def host_failed(case: Case) -> Iterator[Finding]:
    """Something is missing, and the eval's last words blame the engine or the disk under it."""
    evidence = case.evidence
    wanted = [file for file in (evidence.output, evidence.evaluated) if file.path]
    missing = [file.path for file in wanted if file.state is not State.OK or file.blank]
    fault = host_fault(evidence.eval_log) if missing else None
    if fault is not None:
        what = f"{fault.words} while the eval ran: {values.shown(fault.evidence, 200)}"
        yield Finding(f"{what}; {missing[0]} was not written.", LOG, fix=fault.fix)


def because(case: Case, what: str, file: str, measured: int | None = None) -> Finding:
    """Return a finding about a file that was not written, with the reason where the eval's own log names one."""
    if (fault := case.pipeline_fault) is None:
        return Finding(f"{what}.", file, measured)
    words = f"{what}: {fault.words} ({LOG}: {values.shown(fault.evidence, 160)})."
    return Finding(words, file, measured, fix=fault.fix, cause=fault.cause)


def output_missing(case: Case) -> Iterator[Finding]:
    """No regular file of that name."""
    output = case.evidence.output
    if output.state is not State.OK:
        yield because(case, f"{case.row_file} {state_words(output)}, so there is no result", case.row_file)


def output_empty(case: Case) -> Iterator[Finding]:
    """A file of zero bytes, or of white space."""
    output = case.evidence.output
    if output.state is State.OK and output.blank:
        what = "has zero bytes" if output.size == 0 else f"has {output.size} bytes and all of them are white space"
        yield because(case, f"{case.row_file} {what}: the agent wrote no result", case.row_file, output.size)


def output_malformed(case: Case) -> Iterator[Finding]:
    """Not one JSON object for this instance."""
    output = case.evidence.output
    for problem in output.problems:
        place = f"{case.row_file}:{problem.line}" if problem.line else case.row_file
        severity = None if problem.fatal else Severity.INFO if "byte order" in problem.message else Severity.WARN
        yield Finding(f"{place} {values.shown(problem.message)}.", case.row_file, measured=output.size, severity=severity)
    if case.evidence.output_ambiguous:
        yield Finding(
            f"{case.row_file} {case.evidence.output_ambiguous}.", case.row_file, measured=output.count, threshold=1,
            fix="fleet validate PATH --instance INSTANCE_ID",
        )  # fmt: skip


def instance_mismatch(case: Case) -> Iterator[Finding]:
    """A file that speaks of another instance than the task's, or of none."""
    evidence = case.evidence
    wanted = evidence.instance_id
    output, record = evidence.output, evidence.record
    meant = values.shown(wanted or "", 120)
    if record is not None and Part.ROW in evidence.parts:
        own = record.claimed_id
        if own is None:
            what = {"null": "is not there", "string": "is an empty string"}.get(
                record.claimed_kind, f"is a {record.claimed_kind}"
            )
            yield Finding(f"The instance_id in {case.row_file} {what}, so nothing proves whose result this is.", case.row_file)
        elif wanted is not None and own != wanted:
            yield _other(case.row_file, own, meant)
        elif record.inner_id is not None and record.inner_id != own:
            yield Finding(
                f"{case.row_file} says instance_id {meant} and holds the instance {values.shown(record.inner_id, 120)}.",
                case.row_file, measured=values.shown(record.inner_id, 120), threshold=meant,
            )  # fmt: skip
    elif output.count and evidence.output_ambiguous is None:
        found = values.some(tuple(output.ids)) or "no id at all"
        yield Finding(
            f"{case.row_file} has {output.count} rows ({found}) and none of them is for {meant}.",
            case.row_file,
            threshold=meant,
        )
    if wanted is not None:
        yield from _mismatch_in_evaluation(case, wanted, meant)


def _mismatch_in_evaluation(case: Case, wanted: str, meant: str) -> Iterator[Finding]:
    evidence = case.evidence
    graded, name = evidence.evaluated_record, evidence.evaluated.path
    if graded is not None:
        own = graded.claimed_id
        inside = evidence.evaluation.instance_id if evidence.evaluation else None
        other = next((found for found in (own, inside) if found is not None and found != wanted), None)
        if other is not None:
            yield _other(name, other, meant)
        elif own is None and inside is None:
            yield Finding(f"{name} does not say which instance it graded.", name)
    elif evidence.evaluated.count and evidence.evaluated_ambiguous is None:
        found = values.some(tuple(evidence.evaluated.ids)) or "no id at all"
        yield Finding(f"{name} has {evidence.evaluated.count} rows ({found}) and none of them is for {meant}.", name)
    report = evidence.report
    if report.state is State.OK and report.ids and not report.found:
        yield _other(report.path, report.ids[0], meant)
    if evidence.eval_names and wanted not in evidence.eval_names:
        others = values.some(evidence.eval_names)
        yield Finding(f"eval_outputs/ holds the evaluation of {others} and not of {meant}.", "eval_outputs", threshold=meant)


def _other(file: str, found: str, meant: str) -> Finding:
    shown = values.shown(found, 120)
    return Finding(f"{file} is for instance {shown}, and the task is {meant}.", file, measured=shown, threshold=meant)


def patch_missing(case: Case) -> Iterator[Finding]:
    """No git_patch in the row."""
    record = case.evidence.record
    if record is not None and case.evidence.patch is None:
        what = "is blank" if record.patch is not None else "is not there"
        if record.patch is None and record.patch_kind != "null":
            what = f"is a {record.patch_kind} instead of text"
        named = "git_patch" if case.evidence.kind is Kind.OPENHANDS else "patch"
        yield Finding(f"The {named} in {case.row_file} {what}: the agent changed nothing that was recorded.", case.row_file)


def patch_too_small(case: Case) -> Iterator[Finding]:
    """Shorter than any real change; the harness does not even evaluate it."""
    patch, limit = case.evidence.patch, _least(case)
    if patch is not None and patch.size < limit:
        yield Finding(
            f"The patch has {patch.size} bytes; under {limit} the harness does not evaluate it.",
            case.row_file,
            patch.size,
            limit,
        )


def _least(case: Case) -> int:
    """Return the size below which the harness does not evaluate a patch; only that of OpenHands has one."""
    return case.quality.min_patch_bytes if case.evidence.kind is Kind.OPENHANDS else 0


def patch_small(case: Case) -> Iterator[Finding]:
    """Shorter than most real fixes."""
    patch, limit = case.evidence.patch, case.quality.small_patch_bytes
    if patch is not None and _least(case) <= patch.size < limit:
        yield Finding(f"The patch has only {patch.size} bytes (under {limit}).", case.row_file, patch.size, limit)


def patch_large(case: Case) -> Iterator[Finding]:
    """So long that it probably holds generated files."""
    patch, limit = case.evidence.patch, case.quality.large_patch_bytes
    if patch is not None and patch.size > limit:
        yield Finding(
            f"The patch has {patch.size} bytes (over {limit}) and touches {len(patch.files)} files; "
            "it may hold files that a build or a test wrote.",
            case.row_file, patch.size, limit,
        )  # fmt: skip


def patch_malformed(case: Case) -> Iterator[Finding]:
    """Not a unified diff."""
    patch = case.evidence.patch
    if patch is not None and patch.problem is not None:
        place = f" (line {patch.line} of the patch)" if patch.line else ""
        yield Finding(
            f"The patch {values.shown(patch.problem)}{place}, so it is not a unified diff.", case.row_file, patch.line
        )


def history_missing(case: Case) -> Iterator[Finding]:
    """No trajectory."""
    record = case.evidence.record
    if record is None or record.history_entries:
        return
    if record.history_entries == 0:
        what = "has no entry"
    else:
        what = "is not there" if record.history_kind == "null" else f"is a {record.history_kind} instead of a list"
    yield Finding(
        f"The history in {case.row_file} {what}: nothing shows what the agent did.", case.row_file, record.history_entries
    )


def history_short(case: Case) -> Iterator[Finding]:
    """Fewer entries than a real attempt has."""
    entries, limit = _entries(case), case.quality.min_history
    if entries and entries < limit:
        yield Finding(
            f"The history has only {entries} entries (under {limit}): the agent may have given up.",
            case.row_file,
            entries,
            limit,
        )


def history_long(case: Case) -> Iterator[Finding]:
    """More entries than a run without loops has."""
    entries, limit = _entries(case), case.quality.max_history
    if entries and entries > limit:
        yield Finding(
            f"The history has {entries} entries (over {limit}): the agent may have gone in circles.",
            case.row_file,
            entries,
            limit,
        )


def _entries(case: Case) -> int | None:
    record = case.evidence.record
    return record.history_entries if record else None


def agent_error(case: Case) -> Iterator[Finding]:
    """The agent recorded an error; with a good patch the result may still be one."""
    record = case.evidence.record
    if record is None or record.error is None:
        return
    diagnosis = diagnose_agent_error(record.error)
    yield Finding(
        f"The agent ended with an error ({diagnosis.kind}: {diagnosis.words}): {values.shown(record.error, 200)}",
        case.row_file,
        measured=diagnosis.kind,
        fix=diagnosis.fix,
        severity=Severity.WARN if case.good_patch else None,
        cause=diagnosis.cause,
    )


def metadata_missing(case: Case) -> Iterator[Finding]:
    """Nothing says with which model and settings the agent ran."""
    problem = case.evidence.metadata
    if problem is not None:
        yield Finding(
            f"metadata.json {values.shown(problem)}: nothing says with which model and settings the agent ran.", "metadata.json"
        )


def completions_missing(case: Case) -> Iterator[Finding]:
    """No logged completion."""
    if not case.evidence.completions:
        yield Finding("llm_completions/ holds no logged completion of this instance.", "llm_completions")
