"""The rule table: every reason code, its severity, whose fault it usually is, and the command that helps.

`texts.py` says when each speaks and what to do; `docs/verdicts.md` shows both, and a test holds them together.
Severities may be overridden per pipeline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fleet.model.names import plain
from fleet.model.verdict import Cause, Reason, Severity
from fleet.quality import rules_cross as cross
from fleet.quality import rules_eval as evaluation
from fleet.quality import rules_output as output
from fleet.quality.case import Case, Finding
from fleet.quality.diagnosis import ANOTHER_RUN, RETRY
from fleet.quality.kinds import Part
from fleet.quality.texts import TEXTS, Text

REJECT, WARN, INFO = Severity.REJECT, Severity.WARN, Severity.INFO
LOGS = "fleet logs TASK"


@dataclass(frozen=True)
class Rule:
    """One code; `fix` is a command where there is one, in which PATH, TASK and HOST are filled in."""

    code: str
    severity: Severity
    cause: Cause | None
    check: Callable[[Case], Iterable[Finding]]
    fix: str = ""

    @property
    def text(self) -> Text:
        """When the rule speaks, what that means and what to do."""
        return TEXTS[self.code]


# One row per code, in the order in which causes are believed: what went wrong first explains what followed.
# fmt: off
RULES: tuple[Rule, ...] = (
    Rule("manifest-mismatch", REJECT, Cause.TRANSFER, cross.manifest_mismatch, "fleet collect --again"),
    Rule("image-mismatch", REJECT, Cause.ENVIRONMENT, cross.image_mismatch, "fleet check HOST"),
    Rule("host-failed", REJECT, Cause.ENVIRONMENT, output.host_failed, "fleet check HOST"),
    Rule("output-missing", REJECT, Cause.HARNESS, output.output_missing, LOGS),
    Rule("output-empty", REJECT, Cause.HARNESS, output.output_empty, LOGS),
    Rule("output-malformed", REJECT, Cause.HARNESS, output.output_malformed, RETRY),
    Rule("instance-mismatch", REJECT, Cause.HARNESS, output.instance_mismatch, LOGS),
    Rule("environment-broken", REJECT, Cause.ENVIRONMENT, evaluation.environment_broken, "fleet check HOST"),
    Rule("agent-error", REJECT, Cause.HARNESS, output.agent_error, LOGS),
    Rule("patch-missing", REJECT, Cause.MODEL, output.patch_missing, RETRY),
    Rule("patch-too-small", REJECT, Cause.MODEL, output.patch_too_small, RETRY),
    Rule("history-missing", REJECT, Cause.HARNESS, output.history_missing, LOGS),
    Rule("eval-error", REJECT, Cause.HARNESS, evaluation.eval_error, LOGS),
    Rule("test-patch-failed", REJECT, Cause.HARNESS, evaluation.test_patch_failed, LOGS),
    Rule("eval-missing", REJECT, Cause.HARNESS, evaluation.eval_missing, LOGS),
    Rule("eval-malformed", REJECT, Cause.HARNESS, evaluation.eval_malformed, LOGS),
    Rule("report-missing", REJECT, Cause.HARNESS, evaluation.report_missing, LOGS),
    Rule("patch-diff-missing", REJECT, Cause.HARNESS, evaluation.patch_diff_missing, LOGS),
    Rule("test-output-missing", REJECT, Cause.HARNESS, evaluation.test_output_missing, LOGS),
    Rule("test-output-empty", REJECT, Cause.HARNESS, evaluation.test_output_empty, LOGS),
    Rule("no-tests-executed", REJECT, Cause.HARNESS, evaluation.no_tests_executed, RETRY),
    Rule("f2p-empty", REJECT, Cause.HARNESS, evaluation.f2p_empty, LOGS),
    Rule("resolved-unsupported", REJECT, Cause.HARNESS, cross.resolved_unsupported, RETRY),
    Rule("report-disagrees", REJECT, Cause.HARNESS, cross.report_disagrees, RETRY),
    Rule("patch-disagrees", REJECT, Cause.HARNESS, cross.patch_disagrees, RETRY),
    Rule("patch-not-applied", WARN, Cause.MODEL, evaluation.patch_not_applied),
    Rule("patch-malformed", WARN, Cause.MODEL, output.patch_malformed),
    Rule("test-timeout", WARN, None, evaluation.test_timeout, ANOTHER_RUN),
    Rule("log-disagrees", WARN, Cause.HARNESS, cross.log_disagrees),
    Rule("dataset-disagrees", WARN, Cause.OPERATOR, cross.dataset_disagrees),
    Rule("p2p-empty", WARN, None, evaluation.p2p_empty),
    Rule("patch-small", WARN, None, output.patch_small),
    Rule("patch-large", WARN, None, output.patch_large),
    Rule("history-short", WARN, None, output.history_short),
    Rule("history-long", WARN, None, output.history_long),
    Rule("metadata-missing", WARN, None, output.metadata_missing),
    Rule("completions-missing", WARN, None, output.completions_missing),
    Rule("claim-only", WARN, None, evaluation.claim_only),
    Rule("model-broke-tests", INFO, Cause.MODEL, evaluation.model_broke_tests),
    Rule("not-evaluated", INFO, None, evaluation.not_evaluated),
)

SPEAKS_OF: dict[str, Part] = {
    "output-missing": Part.ROW, "output-empty": Part.ROW, "output-malformed": Part.ROW,
    "patch-missing": Part.PATCH, "patch-too-small": Part.PATCH, "patch-malformed": Part.PATCH, "patch-small": Part.PATCH,
    "patch-large": Part.PATCH,
    "history-missing": Part.HISTORY, "history-short": Part.HISTORY, "history-long": Part.HISTORY,
    "eval-missing": Part.EVALUATION, "eval-malformed": Part.EVALUATION,
    "report-missing": Part.REPORT, "patch-diff-missing": Part.PATCH_DIFF,
    "test-output-missing": Part.TEST_OUTPUT, "test-output-empty": Part.TEST_OUTPUT,
    "no-tests-executed": Part.LOG, "log-disagrees": Part.LOG, "model-broke-tests": Part.LOG,
    "f2p-empty": Part.LISTS, "p2p-empty": Part.LISTS, "resolved-unsupported": Part.LISTS,
    "metadata-missing": Part.METADATA, "completions-missing": Part.COMPLETIONS,
    "claim-only": Part.CLAIM, "not-evaluated": Part.UNGRADED,
}
"""Rules that speak only where a result should have the part; the others speak of whatever is there."""
# fmt: on

BY_CODE: dict[str, Rule] = {rule.code: rule for rule in RULES}


def speak(case: Case) -> tuple[tuple[Reason, ...], Cause | None]:
    """Return what all rules have to say about a case, the gravest first, and whose fault it is."""
    spoken: list[tuple[Reason, Cause | None]] = []
    for rule in RULES:
        part = SPEAKS_OF.get(rule.code)
        if part is not None and part not in case.evidence.parts:
            continue
        override = case.quality.severities.get(rule.code)
        for finding in rule.check(case):
            reason = _reason(rule, finding, override)
            spoken.append((reason, finding.cause or rule.cause))
    order = {REJECT: 0, WARN: 1, INFO: 2}
    spoken.sort(key=lambda item: order[item[0].severity])
    return tuple(reason for reason, _ in spoken), _cause(spoken)


def _reason(rule: Rule, finding: Finding, override: Severity | None) -> Reason:
    # Paths hold the instance id, which is the host's word; nothing of it may reach a terminal unescaped.
    # What a rule itself only notes stays a note, whatever its code weighs.
    severity = INFO if finding.severity is INFO else override or finding.severity or rule.severity
    return Reason(
        code=rule.code,
        severity=severity,
        file=None if finding.file is None else plain(finding.file, 300),
        measured=finding.measured,
        threshold=finding.threshold,
        message=plain(finding.message),
        fix=rule.fix if finding.fix is None else finding.fix,
    )


def _cause(spoken: list[tuple[Reason, Cause | None]]) -> Cause | None:
    """Return the cause of the first reason, in the table's order, among the gravest; notes blame nobody but the model."""
    for severity in (REJECT, WARN):
        blamed = [cause for reason, cause in spoken if reason.severity is severity]
        if blamed:
            return next((cause for cause in blamed if cause is not None), None)
    return Cause.MODEL if any(reason.code == "model-broke-tests" for reason, _ in spoken) else None
