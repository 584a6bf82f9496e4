"""One result on trial: the evidence, the thresholds, and the questions that several rules ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause, Severity
from fleet.quality.diagnosis import Diagnosis
from fleet.quality.environment import environment_fault
from fleet.quality.evidence import Evidence
from fleet.quality.logs import Status
from fleet.quality.model_fault import left_out, model_fault
from fleet.quality.pipeline_fault import pipeline_fault

_NOT_IMPORTED = re.compile(r"^_{3,} ERROR collecting (\S+) _{3,}\n(.*?)(?=^_{3,} |^={3,} |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """One sentence of one rule; `severity` and `cause` only where they differ from the rule's own."""

    message: str
    file: str | None = None
    measured: int | float | str | None = None
    threshold: int | float | str | None = None
    fix: str | None = None
    severity: Severity | None = None
    cause: Cause | None = None


class Case:
    """Evidence and thresholds; every question is answered once."""

    def __init__(self, evidence: Evidence, quality: Quality) -> None:
        self.evidence = evidence
        self.quality = quality

    @property
    def row_file(self) -> str:
        """The file that holds the agent's row: output.jsonl, or what stands for it."""
        return self.evidence.output.path

    @cached_property
    def pipeline_fault(self) -> Diagnosis | None:
        """The known failure of the pipeline's own that its log ends with."""
        return pipeline_fault(self.evidence.eval_log) if self.evidence.eval_log else None

    @cached_property
    def good_patch(self) -> bool:
        """Whether there is a patch that is long enough and parses."""
        patch = self.evidence.patch
        return patch is not None and patch.size >= self.quality.min_patch_bytes and patch.problem is None

    @cached_property
    def counted_zero(self) -> bool:
        """Whether the evaluation itself counted no test at all."""
        evaluation = self.evidence.evaluation
        return evaluation is not None and evaluation.tests == 0

    @cached_property
    def no_test_ran(self) -> bool:
        """Whether nothing shows that a test ran: the evaluation counted none, or the log is one of a run without tests.

        Skipped tests and test files that could not be imported are not tests that ran.
        """
        log, evaluation = self.evidence.log, self.evidence.evaluation
        if self.counted_zero:
            return True
        if log.recognised:
            return log.executed == 0 and (log.ended or not self._claims_tests)
        if evaluation is None:
            # Without counts and in a format that is not parsed here, only a fault that explains it is proof.
            return not log.blank and (self._proven if self._claims_tests else self._explained)
        if self._claims_tests:
            return self._claims_errors_only and not log.blank and self._explained
        return evaluation.tests is not None or log.blank or not self.named_loosely

    @property
    def _claims_tests(self) -> bool:
        """Whether the evaluation says that tests ran."""
        evaluation, lists = self.evidence.evaluation, self.evidence.lists
        if evaluation is not None and evaluation.tests is not None:
            return evaluation.tests > 0
        return bool(lists.f2p_success or lists.p2p_success)

    @property
    def _explained(self) -> bool:
        return self._model_at_fault is not None or self._left_out is not None or self._environment_at_fault is not None

    @property
    def _proven(self) -> bool:
        """Whether a fault explains it that weighs more than lists of passed tests."""
        return self._model_at_fault is not None or environment_fault(self.evidence.log.text, no_test_ran=False) is not None

    @cached_property
    def named_loosely(self) -> bool:
        """Whether the text shows the last part of some F2P id; for logs in a format that is not parsed here."""
        text = self.evidence.log.text
        return any(part and part in text for test in self.evidence.f2p for part in (_last_part(test),))

    @property
    def _claims_errors_only(self) -> bool:
        evaluation = self.evidence.evaluation
        return evaluation is not None and not evaluation.tests_passed and not evaluation.tests_failed

    @cached_property
    def _model_at_fault(self) -> Diagnosis | None:
        patch = self.evidence.patch
        return model_fault(self.evidence.log.text, patch) if patch is not None and patch.files else None

    @cached_property
    def _left_out(self) -> Diagnosis | None:
        patch = self.evidence.patch
        return left_out(self.evidence.log.text, patch) if patch is not None and patch.files else None

    @cached_property
    def _environment_at_fault(self) -> Diagnosis | None:
        return environment_fault(self.evidence.log.text, no_test_ran=True)

    @cached_property
    def model_broke_tests(self) -> Diagnosis | None:
        """The model's own fault that kept all tests from running; such a result is valid."""
        return self._model_at_fault if self.no_test_ran and not self._log_shows_tests else None

    @cached_property
    def left_out(self) -> Diagnosis | None:
        """What the task's tests import and the patch does not bring, where that kept all tests from running."""
        return self._left_out if self.no_test_ran and not self._log_shows_tests and not self.model_broke_tests else None

    @property
    def _log_shows_tests(self) -> bool:
        return self.evidence.log.recognised and self.evidence.log.executed > 0

    @cached_property
    def environment_broken(self) -> Diagnosis | None:
        """The environment's fault that kept the tests, or the F2P tests, from running."""
        log = self.evidence.log
        if self.model_broke_tests is not None or self.left_out is not None or log.blank:
            return None
        if self.no_test_ran and not self._log_shows_tests:
            return self._environment_at_fault
        if self._not_imported:
            return self._import_fault
        if log.cut or not self.unnamed_f2p or (log.ended and not log.whole):
            return None
        return environment_fault(log.text, no_test_ran=False)

    @cached_property
    def _not_imported(self) -> tuple[str, ...]:
        """What pytest says of the F2P tests' own files, where it could import none of them; each at its place in the log."""
        files = {test.split("::", 1)[0] for test in self.evidence.f2p}
        text = self.evidence.log.text
        said = {found[1]: found for found in _NOT_IMPORTED.finditer(text) if found[1] in files}
        if not said or len(said) < len(files):
            return ()
        return tuple(
            "\n" * text.count("\n", 0, found.start()) + f"{file}:1: in <module>\n{found[2]}" for file, found in said.items()
        )

    @property
    def _import_fault(self) -> Diagnosis | None:
        """The environment's fault in that, unless it is the patch that breaks or lacks what they import."""
        patch = self.evidence.patch
        for text in self._not_imported:
            if patch is not None and (model_fault(text, patch) or left_out(text, patch)):
                return None
        return next((fault for text in self._not_imported if (fault := environment_fault(text, no_test_ran=True))), None)

    @cached_property
    def unnamed_f2p(self) -> tuple[str, ...]:
        """F2P ids that the log does not name."""
        log = self.evidence.log
        if log.recognised:
            return tuple(test for test in self.evidence.f2p if not log.names(test))
        return tuple(test for test in self.evidence.f2p if test not in log.text)

    @cached_property
    def log_comparable(self) -> bool:
        """Whether the log names at least one test of the lists, so that ids mean the same in both."""
        log = self.evidence.log
        wanted = (*self.evidence.f2p, *self.evidence.p2p)
        return log.recognised and any(log.names(test) for test in wanted)

    def log_says(self, tests: tuple[str, ...] | None, *statuses: Status) -> tuple[str, ...]:
        """Return the ids of which the log proves one of `statuses`."""
        if not self.log_comparable:
            return ()
        return tuple(test for test in dict.fromkeys(tests or ()) if self.evidence.log.status(test) in statuses)


def _last_part(test_id: str) -> str:
    for separator in ("::", " > ", "#", "/", "."):
        test_id = test_id.rsplit(separator, 1)[-1]
    return test_id.strip()
