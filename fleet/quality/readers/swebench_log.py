"""One instance's directory of the SWE-bench harness, 2.x to 5.x: report.json, test_output.txt, patch.diff, run_instance.log.

Source: swebench/harness/{run_evaluation,grading,constants}.py. A patch that does not apply, and tests that run into the
timeout, end the harness before it writes report.json: `run_instance.log` is then the only witness.
"""

from __future__ import annotations

import re
from dataclasses import replace

from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import MIB, FileRead, Folder, State
from fleet.quality.kinds import Kind, Part
from fleet.quality.readers.pilot2 import Evaluation
from fleet.quality.readers.report import Report, read_report
from fleet.quality.readers.rows import RowFile
from fleet.quality.readers.trajectory import Record

REPORT, LOG, PATCH, RUN = "report.json", "test_output.txt", "patch.diff", "run_instance.log"
CAP = 64 * MIB
_APPLY_FAILED, _APPLIED, _TIMED_OUT = b">>>>> Patch Apply Failed", b">>>>> Applied Patch", b">>>>> Tests Timed Out"
_TIMEOUT = re.compile(rb"\nTimeout error: \d+ seconds exceeded\.|Test timed out after \d+ seconds")
_ERROR = re.compile(rb"(?:EvaluationError|BuildImageError|Error creating container|Error in evaluating model)[^\n]{0,300}")


def read_swebench_log(folder: Folder, _name: str, expected: Expected | None) -> list[Evidence]:
    """Read one instance's log directory; the harness names it after the instance."""
    report = read_report(folder, REPORT, expected.instance_id if expected else None)
    instance_id = expected.instance_id if expected else _own_id(report, folder)
    log, cut = folder.read_ends(LOG, CAP)
    run, _ = folder.read_ends(RUN, CAP)
    patch = folder.read(PATCH, CAP)
    evaluation = _witnessed(report, run, log)
    unfinished = evaluation is not None and evaluation.resolved is False
    return [
        Evidence(
            kind=Kind.SWEBENCH_LOG,
            instance_id=instance_id,
            expected=expected,
            output=RowFile(PATCH, patch.state, patch.size, detail=patch.detail),
            record=record_of_patch(patch),
            evaluated=RowFile(RUN, run.state, run.size, detail=run.detail),
            evaluation=evaluation,
            report=_applied(report, run),
            patch_diff=patch,
            test_output=log,
            test_output_cut=cut,
            model=expected.model if expected else _model(folder),
            excused=_excused(evaluation, report) if unfinished else frozenset(),
        )
    ]


def record_of_patch(patch: FileRead) -> Record | None:
    """Return a row that holds nothing but the patch in a file."""
    if not patch.ok:
        return None
    text = patch.data.decode("utf-8", "surrogateescape")
    return Record(patch=text, patch_kind="string")


def _own_id(report: Report, folder: Folder) -> str | None:
    return report.ids[0] if len(report.ids) == 1 else folder.path.resolve().name or None


def _model(folder: Folder) -> str | None:
    """Return the model of `logs/run_evaluation/RUN/MODEL/INSTANCE`, as the harness spells it there."""
    path = folder.path.resolve()
    return path.parent.name if len(path.parts) > 3 and path.parts[-4] == "run_evaluation" else None


def _applied(report: Report, run: FileRead) -> Report:
    """Believe the harness's log where it says that the patch did apply: the report calls it not applied when no test parsed."""
    if report.applied is False and run.ok and _APPLIED in run.data and _APPLY_FAILED not in run.data:
        return replace(report, applied=True)
    return report


def _witnessed(report: Report, run: FileRead, log: FileRead) -> Evaluation | None:
    """Return what the logs say of a run that ended before it could be graded; None when there is nothing to add."""
    words = (run.data if run.ok else b"") + b"\n" + (log.data[-4096:] if log.ok else b"")
    failed, timed_out = _APPLY_FAILED in words, _TIMED_OUT in words or _TIMEOUT.search(words) is not None
    error = _ERROR.search(words) if report.state is State.MISSING and not failed and not timed_out else None
    if not (failed or timed_out or error):
        return None
    return Evaluation(
        resolved=False if report.state is State.MISSING and not error else None,
        failed_apply_patch=failed or None,
        error_eval=error is not None or None,
        test_timeout=timed_out or None,
        error_message=error.group().decode("utf-8", "replace") if error else None,
    )


def _excused(evaluation: Evaluation | None, report: Report) -> frozenset[Part]:
    """Return what a run that ended early rightly lacks; tests that ran into the timeout have left a log."""
    if report.state is not State.MISSING or evaluation is None:
        return frozenset()
    missing = {Part.REPORT, Part.LISTS, Part.LOG}
    return frozenset(missing if evaluation.test_timeout else missing | {Part.TEST_OUTPUT})
