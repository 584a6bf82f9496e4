"""What a result directory holds, as the rules see it: plain data, whatever the layout it was read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from fleet.model.verdict import Facts
from fleet.quality import values
from fleet.quality.folder import FileRead, State
from fleet.quality.images import Images
from fleet.quality.kinds import PARTS, Kind, Part
from fleet.quality.logs import TestLog, read_log
from fleet.quality.patches import Patch, read_patch
from fleet.quality.readers.pilot2 import Evaluation, Lists
from fleet.quality.readers.report import Report
from fleet.quality.readers.rows import RowFile
from fleet.quality.readers.trajectory import Record, fingerprint


@dataclass(frozen=True)
class Expected:
    """The task that a result should be of; an empty F2P means that the dataset's lists are not known."""

    instance_id: str
    model: str = ""
    fail_to_pass: tuple[str, ...] = ()
    pass_to_pass: tuple[str, ...] = ()


@dataclass
class Evidence:
    """Everything that was read of one result."""

    instance_id: str | None
    """The task's id, else what the result itself says; None when it says nothing or several things."""
    expected: Expected | None
    output: RowFile[Record]
    record: Record | None
    kind: Kind = Kind.OPENHANDS
    evaluated: RowFile[Record] = field(default_factory=lambda: RowFile("", State.MISSING))
    evaluated_record: Record | None = None
    evaluation: Evaluation | None = None
    report: Report = field(default_factory=lambda: Report("", State.MISSING))
    run_report: Report = field(default_factory=lambda: Report("", State.MISSING))
    eval_names: tuple[str, ...] = ()
    """The directories below eval_outputs/."""
    patch_diff: FileRead = field(default_factory=lambda: FileRead("", State.MISSING))
    test_output: FileRead = field(default_factory=lambda: FileRead("", State.MISSING))
    test_output_cut: bool = False
    metadata: str | None = None
    """What is wrong with metadata.json, or None."""
    completions: int = 0
    """Files below llm_completions/."""
    model: str | None = None
    eval_log: str = ""
    """The end of what the eval itself printed, where fleet has kept it."""
    images: Images | None = None
    """What fleet.json says of the Docker images it ran in."""
    manifest: tuple[tuple[str, str], ...] = ()
    """File → how it differs from the manifest; `manifest.json` itself when that cannot be read."""
    output_ambiguous: str | None = None
    """Why no row could be chosen, when there are several."""
    evaluated_ambiguous: str | None = None
    apply_doubt: str = ""
    """The line of run_instance.log that doubts that the patch did apply."""
    excused: frozenset[Part] = frozenset()
    """Parts that this result rightly lacks, e.g. the report of a patch that did not apply."""

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that this result should have."""
        return PARTS[self.kind] - self.excused

    @property
    def graded_in(self) -> str:
        """The file that says how the instance was graded."""
        return self.evaluated.path if Part.EVALUATION in self.parts or not self.report.path else self.report.path

    @cached_property
    def patch(self) -> Patch | None:
        """The model's patch; None when there is none."""
        text = self.record.patch if self.record else None
        return read_patch(text) if text is not None and text.strip() else None

    @cached_property
    def lists(self) -> Lists:
        """The test lists of the evaluation, list by list completed from the report."""
        mine = self.evaluation.lists if self.evaluation else Lists()
        if mine.f2p is None and mine.p2p is None:
            return self.report.lists
        return mine

    @cached_property
    def f2p(self) -> tuple[str, ...]:
        """F2P ids of the dataset where they are known, else those of the lists."""
        return tuple(dict.fromkeys(self.dataset_f2p or self.lists.f2p or ()))

    @cached_property
    def p2p(self) -> tuple[str, ...]:
        """P2P ids of the dataset where they are known, else those of the lists."""
        return tuple(dict.fromkeys(self.dataset_p2p or self.lists.p2p or ()))

    @property
    def dataset_f2p(self) -> tuple[str, ...]:
        """F2P ids of the task, else of the instance inside output.jsonl; empty when neither is known."""
        if self.expected is not None and self.expected.fail_to_pass:
            return self.expected.fail_to_pass
        return (self.record.fail_to_pass if self.record else None) or ()

    @property
    def dataset_p2p(self) -> tuple[str, ...] | None:
        """P2P ids of the task, else of the instance inside output.jsonl; None when neither is known."""
        if self.expected is not None and self.expected.fail_to_pass:
            return self.expected.pass_to_pass
        return self.record.pass_to_pass if self.record else None

    @cached_property
    def log_name(self) -> str:
        """The file that the log was read from."""
        return self.test_output.path if self.test_output.ok else self.evaluated.path

    @cached_property
    def log(self) -> TestLog:
        """The test log: test_output.txt, else the copy inside the evaluation."""
        known = {*self.f2p, *self.p2p, *(self.lists.f2p or ()), *(self.lists.p2p or ())}
        if self.test_output.ok:
            return read_log(self.test_output.data.decode("utf-8", "replace"), known, cut=self.test_output_cut)
        return read_log((self.evaluation.test_output if self.evaluation else None) or "", known)

    @property
    def resolved(self) -> bool | None:
        """What the result claims: the evaluation, else the report."""
        if self.evaluation is not None and self.evaluation.resolved is not None:
            return self.evaluation.resolved
        return self.report.resolved

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests by which this result is compared with others."""
        history = self.record.history_print if self.record else None
        found = {
            "history": history,
            "patch": fingerprint(self.record.patch.strip() if self.record and self.record.patch else None),
        }
        return {name: digest for name, digest in found.items() if digest}

    @cached_property
    def facts(self) -> Facts:
        """The numbers shown beside a verdict; None where nothing was found."""
        record, evaluation, lists = self.record, self.evaluation, self.lists
        return Facts(
            patch_bytes=self.patch.size if self.patch else None,
            history_entries=record.history_entries if record else None,
            error=values.shown(record.error, 500) if record and record.error else None,
            tests_passed=evaluation.tests_passed if evaluation else None,
            tests_failed=evaluation.tests_failed if evaluation else None,
            tests_error=evaluation.tests_error if evaluation else None,
            f2p_success=_size(lists.f2p_success, lists.f2p),
            f2p_total=_size(lists.f2p, lists.f2p),
            p2p_success=_size(lists.p2p_success, lists.p2p),
            p2p_total=_size(lists.p2p, lists.p2p),
            resolved=self.resolved,
            cost_usd=record.cost_usd if record else None,
            tokens=record.tokens if record else None,
            image_id=self.images.image_id if self.images else None,
        )


def _size(listed: tuple[str, ...] | None, all_of_them: tuple[str, ...] | None) -> int | None:
    return None if all_of_them is None else len(set(listed or ()))


def state_words(file: FileRead | Report | RowFile[Record]) -> str:
    """Return how a file that was not read is described in a sentence."""
    if file.state is State.MISSING:
        return "is not there"
    return file.detail or str(file.state)
