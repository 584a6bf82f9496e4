"""The instances of a run report, one by one: a claim each, and nothing beside it to check it by."""

from __future__ import annotations

from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import MIB, Folder, State
from fleet.quality.kinds import Kind
from fleet.quality.readers.pilot2 import Evaluation
from fleet.quality.readers.report import Report
from fleet.quality.readers.rows import RowFile
from fleet.quality.readers.run_report import RunReport, read_run_report

CAP = 256 * MIB


def read_claims(folder: Folder, name: str, expected: Expected | None) -> list[Evidence]:
    """Return one piece of evidence per instance that the report speaks of: its word, and nothing to check it by."""
    file = folder.read(name, CAP)
    report = (read_run_report(file.data) if file.ok else None) or RunReport({})
    wanted = expected.instance_id if expected else None
    chosen = [instance for instance in report.instances if wanted is None or instance == wanted]
    state = file.state if not file.ok or report.instances else State.UNREADABLE
    if not chosen:
        empty = Report(name, state, file.detail or "is not a run report that can be read", ids=tuple(report.instances))
        return [Evidence(wanted, expected, RowFile(name, state), None, kind=Kind.RUN_REPORT, report=empty)]
    return [_claim(name, instance, report, expected) for instance in chosen]


def _claim(name: str, instance: str, report: RunReport, expected: Expected | None) -> Evidence:
    said = report.instances[instance]
    known = said if isinstance(said, bool) else None
    failed = Evaluation(error_eval=True, error_message=f"the report lists it under {said}")
    infra = said if isinstance(said, str) and "infra" in said else None
    twofold = instance in report.twofold
    return Evidence(
        instance_id=instance,
        expected=expected,
        output=RowFile(name, State.OK),
        record=None,
        kind=Kind.RUN_REPORT,
        evaluated=RowFile(name, State.OK),
        evaluation=failed if isinstance(said, str) and infra is None else None,
        report=Report(name, State.OK, found=True, ids=(instance,), resolved=known, infra=infra, twofold=twofold),
    )
