"""Rules that hold one piece of evidence against another: files, lists, log, dataset and manifest."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.model.verdict import Severity
from fleet.quality import values
from fleet.quality.case import Case, Finding
from fleet.quality.images import wrong_images
from fleet.quality.logs import CUT_AT, Status
from fleet.quality.provenance import PROVENANCE
from fleet.quality.readers.pilot2 import Lists
from fleet.quality.readers.report import Report
from fleet.quality.same_patch import left_out

_NAMES = {
    "f2p_success": "successful F2P", "f2p_failed": "failed F2P", "p2p_success": "successful P2P", "p2p_failed": "failed P2P",
}  # fmt: skip


def resolved_unsupported(case: Case) -> Iterator[Finding]:
    """`resolved` is true and the evidence says otherwise; recomputed from every list and from the log."""
    evidence = case.evidence
    claims = {
        evidence.evaluated.path: (evidence.evaluation.resolved, evidence.evaluation.lists) if evidence.evaluation else None,
        evidence.report.path: (evidence.report.resolved, evidence.report.lists),
    }
    claimed = [file for file, claim in claims.items() if claim is not None and claim[0]]
    if not claimed:
        return
    for file in claimed:
        claim = claims[file]
        assert claim is not None
        lists = claim[1] if claim[1].f2p is not None or claim[1].p2p is not None else evidence.lists
        against = _against(lists, evidence.dataset_f2p)
        if against:
            yield Finding(f"{file} says resolved, but {against}.", file)
            return
    failed = case.log_says(evidence.f2p, Status.FAILED)
    skipped = case.log_says(evidence.f2p, Status.SKIPPED)
    missing = case.log_says(evidence.f2p, Status.MISSING, Status.NOT_RUN)
    broken = case.log_says(evidence.p2p, Status.FAILED)
    for tests, words in (
        (failed, "shows failed F2P"), (skipped, "shows skipped F2P"), (missing, "is whole and lacks F2P"),
        (broken, "shows failed P2P"),
    ):  # fmt: skip
        if tests:
            yield Finding(
                f"{claimed[0]} says resolved, but the test log {words}: {values.some(tests)}.", evidence.log_name, len(tests), 0
            )
            return


def _against(lists: Lists, dataset_f2p: tuple[str, ...]) -> str | None:
    """Return what the lists say against `resolved`."""
    if lists.f2p_failed:
        return f"{len(lists.f2p_failed)} F2P failed: {values.some(lists.f2p_failed)}"
    if not lists.f2p_success:
        return "no F2P test is among the successful ones"
    missing = tuple(test for test in dict.fromkeys(dataset_f2p) if test not in set(lists.f2p_success))
    if missing:
        return f"{len(missing)} F2P of the dataset are not among the successful ones: {values.some(missing)}"
    if lists.p2p_failed:
        return f"{len(lists.p2p_failed)} P2P failed: {values.some(lists.p2p_failed)}"
    return None


def report_disagrees(case: Case) -> Iterator[Finding]:
    """Two of report.json, the report above it and the evaluation contradict each other."""
    evidence = case.evidence
    evaluation, report, over = evidence.evaluation, evidence.report, evidence.run_report
    if evaluation is not None:
        name = evidence.evaluated.path
        if evaluation.resolved is not None and evaluation.resolved_inside not in (None, evaluation.resolved):
            yield Finding(
                f"{name} says resolved is {_bool(evaluation.resolved)}; its details say {_bool(evaluation.resolved_inside)}.",
                name,
            )
        if report.found:
            yield from _contradiction(name, evaluation.resolved, evaluation.lists, report)
            applied = None if evaluation.failed_apply_patch is None else not evaluation.failed_apply_patch
            if None not in (applied, report.applied) and applied != report.applied:
                yield Finding(
                    f"{name} says the patch {_applied(applied)}, and {report.path} says it {_applied(report.applied)}.",
                    report.path,
                )
        elif report.ids:
            yield Finding(f"{report.path} reports on {values.some(report.ids)}, which {name} does not speak of.", report.path)
    if over.found and report.found:
        yield from _contradiction(report.path, report.resolved, report.lists, over)
    elif over.found and evaluation is not None:
        yield from _contradiction(evidence.evaluated.path, evaluation.resolved, evaluation.lists, over)
    elif over.ids and not over.found:
        yield Finding(f"{over.path} reports on {values.some(over.ids)} and not on this instance.", over.path)
    for one in (report, over):
        if one.twofold:
            yield Finding(f"{one.path} lists this instance as resolved and as something that excludes it.", one.path)
    yield from _understated(case)


def _contradiction(name: str, resolved: bool | None, lists: Lists, report: Report) -> Iterator[Finding]:
    if None not in (resolved, report.resolved) and resolved != report.resolved:
        yield Finding(
            f"{name} says resolved is {_bool(resolved)}, and {report.path} says {_bool(report.resolved)}.", report.path
        )
    for field, words in _NAMES.items():
        one, other = getattr(lists, field), getattr(report.lists, field)
        if one is None or other is None or set(one) == set(other):
            continue
        different = tuple(sorted(set(one) ^ set(other)))
        yield Finding(
            f"{name} and {report.path} list different {words} tests: {values.some(different)}.", report.path, len(different), 0
        )


def _understated(case: Case) -> Iterator[Finding]:
    """Say when all tests passed and `resolved` is false; false is always valid, so this is only worth knowing."""
    lists = case.evidence.lists
    if case.evidence.resolved is False and lists.f2p_success and not lists.f2p_failed and not lists.p2p_failed:
        yield Finding(
            "resolved is false although every listed F2P and P2P test passed.",
            case.evidence.graded_in,
            severity=Severity.INFO,
        )


def _bool(value: bool | None) -> str:
    return "true" if value else "false"


def _applied(value: bool | None) -> str:
    return "applied" if value else "did not apply"


def patch_disagrees(case: Case) -> Iterator[Finding]:
    """The patch of output.jsonl is not the one that was evaluated; how the harness tidies patches up makes no difference."""
    evidence = case.evidence
    record = evidence.record
    if record is None:
        return
    if record.other_patch is not None:
        yield Finding(f"{case.row_file} holds two different patches, in test_result and at its top level.", case.row_file)
    mine = _bytes(record.patch)
    if evidence.patch_diff.ok:
        name, size = evidence.patch_diff.path, evidence.patch_diff.size
        lacks = left_out(mine, evidence.patch_diff.data)
        if lacks is None:
            yield Finding(f"{name} is not the patch of {case.row_file} ({size} and {len(mine)} bytes).", name)
        elif lacks:
            words = f"{name} leaves out {lacks} binary file(s) of the patch in {case.row_file}; the rest is the same."
            yield Finding(words, name, lacks, severity=Severity.INFO)
    graded = evidence.evaluated_record
    if graded is not None and graded.patch is not None and left_out(mine, _bytes(graded.patch)) != 0:
        name = evidence.evaluated.path
        yield Finding(f"The patch in {name} is not the one in {case.row_file}.", name)


def _bytes(patch: str | None) -> bytes:
    return (patch or "").encode("utf-8", "surrogatepass")


def log_disagrees(case: Case) -> Iterator[Finding]:
    """Reading the log again gives another answer than the lists, or names none of the F2P tests."""
    evidence, log = case.evidence, case.evidence.log
    if log.blank or case.no_test_ran:
        return
    lists = evidence.lists
    cut = f" The log is cut at {CUT_AT} characters." if log.cut else ""
    for tests, statuses, words in (
        (lists.f2p_success, (Status.FAILED, Status.SKIPPED, Status.MISSING, Status.NOT_RUN), "F2P listed as passed"),
        (lists.p2p_success, (Status.FAILED, Status.MISSING), "P2P listed as passed"),
        (lists.f2p_failed, (Status.PASSED,), "F2P listed as failed"),
        (lists.p2p_failed, (Status.PASSED,), "P2P listed as failed"),
    ):
        found = case.log_says(tests, *statuses)
        if found:
            said = "did pass" if Status.PASSED in statuses else "did not pass"
            yield Finding(
                f"{len(found)} {words} {said} according to the log: {values.some(found)}.{cut}",
                evidence.log_name,
                len(found),
                0,
            )
    loosely = not log.recognised and case.named_loosely
    if evidence.f2p and len(case.unnamed_f2p) == len(evidence.f2p) and not loosely:
        yield Finding(f"The log names none of the {len(evidence.f2p)} F2P tests.{cut}", evidence.log_name, 0, len(evidence.f2p))


def dataset_disagrees(case: Case) -> Iterator[Finding]:
    """The tests that were judged are not the ones of the dataset."""
    evidence = case.evidence
    for name, listed, wanted in (
        ("F2P", evidence.lists.f2p, evidence.dataset_f2p or None),
        ("P2P", evidence.lists.p2p, evidence.dataset_p2p),
    ):
        if listed is None or wanted is None or set(listed) == set(wanted):
            continue
        lacking, extra = tuple(sorted(set(wanted) - set(listed))), tuple(sorted(set(listed) - set(wanted)))
        parts = [f"lacks {len(lacking)} ({values.some(lacking)})"] if lacking else []
        parts += [f"has {len(extra)} more ({values.some(extra)})"] if extra else []
        yield Finding(
            f"The {name} tests that were judged are not the dataset's: the result {' and '.join(parts)}.",
            evidence.graded_in, len(set(listed)), len(set(wanted)),
        )  # fmt: skip


def image_mismatch(case: Case) -> Iterator[Finding]:
    """The eval ran in another image than the task's, or in two."""
    images = case.evidence.images
    for severity, what, found in wrong_images(images) if images is not None else ():
        yield Finding(f"{what}.", PROVENANCE, found or None, images.expected if images else None, severity=severity)


def manifest_mismatch(case: Case) -> Iterator[Finding]:
    """A file is not the one that the host sealed."""
    for name, how in case.evidence.manifest:
        yield Finding(f"{values.shown(name, 200)} {values.shown(how)}.", values.shown(name, 200))
