"""From a result directory to its verdict: read, measure, ask every rule, name the cause."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from fleet.errors import InputError
from fleet.model.base import nearest
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Quality
from fleet.model.verdict import Outcome, Reason, Verdict, outcome_of
from fleet.quality import values
from fleet.quality.case import Case
from fleet.quality.causes import may_grade, should_retry
from fleet.quality.diagnosis import ANOTHER_RUN, RETRY
from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import Folder, State
from fleet.quality.host_fault import LOG, TAIL
from fleet.quality.kinds import Kind, Part
from fleet.quality.manifest import MANIFEST, differences
from fleet.quality.provenance import Provenance, read_provenance
from fleet.quality.readers.claims import read_claims
from fleet.quality.readers.mini_swe_agent import read_mini_swe_agent
from fleet.quality.readers.multi_swe_bench import read_multi_swe_bench
from fleet.quality.readers.openhands import METADATA, read_openhands
from fleet.quality.readers.predictions import read_predictions
from fleet.quality.readers.swebench_lite import read_swebench_lite
from fleet.quality.readers.swebench_log import read_swebench_log
from fleet.quality.rules import BY_CODE, speak
from fleet.quality.sources import Source

READERS: dict[Kind, Callable[[Folder, str, Expected | None], list[Evidence]]] = {
    Kind.OPENHANDS: read_openhands,
    Kind.SWEBENCH_LOG: read_swebench_log,
    Kind.MULTI_SWE_BENCH: read_multi_swe_bench,
    Kind.SWEBENCH_LITE: read_swebench_lite,
    Kind.MINI_SWE_AGENT: read_mini_swe_agent,
    Kind.PREDICTIONS: read_predictions,
    Kind.RUN_REPORT: read_claims,
}
"""Kind → its reader (folder, file in it or empty, the task) → evidence, one per instance."""


def judge(path: Path, expected: Expected | None, quality: Quality, *, verified: bool = False) -> Verdict:
    """Return the verdict on the one result in the directory `path`, in the layout of its pipeline.

    `verified`: this process has just compared every file with the manifest, so they are not hashed once more.

    `expected` is the task that it should be of; None takes the task from fleet.json, else believes what the directory says
    of itself. Raises InputError when `path` is no directory that can be opened, or when `quality` names what does not exist;
    whatever the files hold becomes a reason, never an exception.
    """
    return judge_source(Source(path, _layout(quality)), expected, quality, verified=verified)[0]


def judge_source(source: Source, expected: Expected | None, quality: Quality, *, verified: bool = False) -> list[Verdict]:
    """Return the verdicts on everything in a source, one per instance; at least one."""
    _layout(quality)
    path = source.path
    try:
        hashing = not verified and os.path.lexists(source.folder / MANIFEST)
        folder = Folder(source.folder, hashing=hashing)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}", hint="name a result directory, one that holds output.jsonl") from None
    with folder:
        provenance = read_provenance(folder)
        known = expected or (provenance.expected if provenance else None)
        found = READERS[source.kind](folder, source.name, known)
        for evidence in found:
            evidence.images = provenance.images if provenance else None
            evidence.eval_log = _end_of_log(folder) if provenance else ""
            evidence.manifest = differences(folder, _used(evidence)) if hashing else ()
    return [_verdict(source, evidence, quality, provenance) for evidence in found]


def _verdict(source: Source, evidence: Evidence, quality: Quality, provenance: Provenance | None) -> Verdict:
    reasons, cause = speak(Case(evidence, quality))
    outcome = outcome_of(reasons)
    return Verdict(
        path=visible(str(source.path)),
        kind=source.kind,
        instance_id=_name(evidence.instance_id),
        model=_name(evidence.model),
        verdict=outcome,
        cause=cause,
        grade=may_grade(outcome, cause),
        retry=should_retry(outcome, cause),
        reasons=_commands(reasons, source.path, provenance, outcome),
        facts=evidence.facts,
        fingerprints=evidence.fingerprints,
    )


def _end_of_log(folder: Folder) -> str:
    file, _ = folder.read_ends(LOG, 2 * TAIL)
    return file.data[-TAIL:].decode("utf-8", "replace") if file.ok else ""


def _layout(quality: Quality) -> Kind:
    if quality.layout not in READERS:
        raise InputError(f"quality.layout {quality.layout!r} is not known", hint=f"known layouts: {', '.join(READERS)}")
    for code in quality.severities:
        if code not in BY_CODE:
            near = nearest(code, list(BY_CODE))
            raise InputError(f"quality.severities.{code}: no such reason code" + (f", did you mean {near!r}?" if near else ""))
    return Kind(quality.layout)


def _used(evidence: Evidence) -> tuple[str, ...]:
    """Return the files that the verdict rests on and that are here."""
    found: list[str] = [file.path for file in (evidence.output, evidence.evaluated) if file.state is State.OK]
    found += [report.path for report in (evidence.report, evidence.run_report) if report.state is State.OK]
    found += [file.path for file in (evidence.patch_diff, evidence.test_output) if file.ok]
    metadata = evidence.metadata is None and Part.METADATA in evidence.parts
    return (*found, METADATA) if metadata else tuple(found)


def _name(text: str | None) -> str | None:
    return values.shown(text, 200) if text is not None else None


def _commands(reasons: tuple[Reason, ...], path: Path, provenance: Provenance | None, outcome: Outcome) -> tuple[Reason, ...]:
    """Fill the names into the fixes, so that they can be typed as they stand.

    A result that counts is not tried again: `fleet retry` refuses it, and a fix of it must not name that.
    """
    label = provenance.label if provenance else None
    host = provenance.host if provenance else None
    filled: dict[str, str] = {"PATH": visible(str(path))}
    if label is not None and all(is_name(part) for part in label.split("/")):
        # Without its batch a command means the one that changed last, which may have a task of the same name.
        filled["TASK"] = f"{label} --batch {provenance.batch}" if provenance and provenance.batch else label
    if host is not None:
        filled["HOST"] = host

    def typed(fix: str) -> str:
        if outcome is not Outcome.REJECTED:
            fix = fix.replace(RETRY, ANOTHER_RUN)
        return " ".join(_word(word, filled) for word in fix.split(" "))

    return tuple(reason.model_copy(update={"fix": typed(reason.fix)}) if reason.fix else reason for reason in reasons)


def _word(word: str, filled: dict[str, str]) -> str:
    bare = word.rstrip(",)")
    return filled.get(bare, bare) + word[len(bare) :]
