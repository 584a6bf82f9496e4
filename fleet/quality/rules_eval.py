"""Rules about the evaluation: its files, what it says about itself, and whether tests ran at all."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.model.verdict import Severity
from fleet.quality import values
from fleet.quality.case import Case, Finding
from fleet.quality.environment import environment_fault
from fleet.quality.evidence import state_words
from fleet.quality.folder import State
from fleet.quality.rules_output import because


def eval_missing(case: Case) -> Iterator[Finding]:
    """The evaluation's own record is not there."""
    file = case.evidence.evaluated
    if file.state is not State.OK:
        yield because(case, f"{file.path} {state_words(file)}: the patch was not evaluated", file.path)


def eval_malformed(case: Case) -> Iterator[Finding]:
    """The evaluation's record cannot be read, or says too little to be used."""
    evidence = case.evidence
    file = evidence.evaluated
    if file.state is State.OK and file.blank:
        yield Finding(f"{file.path} is empty: the evaluation did not end.", file.path, measured=file.size)
    for problem in file.problems:
        place = f"{file.path}:{problem.line}" if problem.line else file.path
        severity = None if problem.fatal else Severity.INFO if "byte order" in problem.message else Severity.WARN
        yield Finding(f"{place} {values.shown(problem.message)}.", file.path, measured=file.size, severity=severity)
    if evidence.evaluated_ambiguous:
        yield Finding(f"{file.path} {evidence.evaluated_ambiguous}.", file.path, measured=file.count, threshold=1)
    for words in evidence.evaluation.problems if evidence.evaluation else ():
        yield Finding(f"{file.path} {words}.", file.path)


def report_missing(case: Case) -> Iterator[Finding]:
    """The report of the instance is not there, or says nothing about it."""
    report, over = case.evidence.report, case.evidence.run_report
    if report.state is not State.OK:
        yield Finding(f"{report.path} {state_words(report)}.", report.path)
    fatal = [problem for problem in report.problems if problem.fatal]
    for problem in fatal:
        place = f"{report.path}:{problem.line}" if problem.line else report.path
        yield Finding(f"{values.shown(place)} {values.shown(problem.message)}.", report.path)
    if report.state is State.OK and not report.found and not fatal and not report.ids:
        yield Finding(f"{report.path} says nothing about this instance.", report.path)
    if over.state is State.OK and any(problem.fatal for problem in over.problems):
        yield Finding(f"{over.path} {over.problems[0].message}.", over.path)
    elif over.path and over.state is not State.OK and report.found:
        yield Finding(
            f"{over.path} {state_words(over)}; the report of the instance was used.", over.path, severity=Severity.INFO
        )


def patch_diff_missing(case: Case) -> Iterator[Finding]:
    """The patch that was applied is not there."""
    file = case.evidence.patch_diff
    if not file.ok:
        yield Finding(f"{file.path} {state_words(file)}: nothing shows which patch was evaluated.", file.path)


def test_output_missing(case: Case) -> Iterator[Finding]:
    """The log of the tests is not there."""
    file = case.evidence.test_output
    if not file.ok:
        yield Finding(f"{file.path} {state_words(file)}: nothing shows that tests ran.", file.path)


def test_output_empty(case: Case) -> Iterator[Finding]:
    """The log of the tests is empty."""
    file = case.evidence.test_output
    if file.ok and not file.data.strip(b" \t\r\n\0"):
        yield Finding(f"{file.path} is empty: nothing shows that tests ran.", file.path, measured=file.size)


def no_tests_executed(case: Case) -> Iterator[Finding]:
    """Not one test ran, so `resolved` says nothing."""
    if not case.no_test_ran:
        return
    evidence = case.evidence
    ran = evidence.log.executed if evidence.log.recognised else 0
    if ran:
        words = f"The evaluation counted no test, although its log shows {ran}: its parser did not understand the log."
    else:
        words = "Not one test ran, so nothing is known about the patch."
    broke, left_out = case.model_broke_tests, case.left_out
    if broke is not None:
        words = "Not one test ran, because the model's own patch broke them; this is a valid result."
    elif left_out is not None:
        shown = f"{evidence.log_name}:{left_out.line}: {values.shown(left_out.evidence, 160)}"
        words = f"Not one test ran: {left_out.words} ({shown})."
    elif evidence.evaluation is not None and evidence.evaluation.test_timeout:
        words = "The tests ran into the timeout and nothing of their output was kept, so nothing is known about the patch."
    yield Finding(
        words, evidence.log_name, measured=0, threshold=1, severity=Severity.INFO if broke else None,
        cause=left_out.cause if left_out else None,
    )  # fmt: skip


def environment_broken(case: Case) -> Iterator[Finding]:
    """The log shows why the tests could not run, and it is not the model's doing."""
    infra = case.evidence.report.infra
    if infra is not None:
        name = case.evidence.report.path
        yield Finding(f"{name} calls this a failure of the infrastructure: {values.shown(infra, 160)}.", name, measured="infra")
    found = case.environment_broken
    if found is not None:
        name = case.evidence.log_name
        yield Finding(
            f"The environment was at fault: {found.words} ({name}:{found.line}: {values.shown(found.evidence, 160)}).",
            name, measured=found.kind, fix=found.fix,
        )  # fmt: skip


def model_broke_tests(case: Case) -> Iterator[Finding]:
    """The log shows a syntax or import error in a file that the patch touches."""
    found = case.model_broke_tests
    if found is not None:
        name = case.evidence.log_name
        yield Finding(
            f"The patch broke the tests: {found.words} ({name}:{found.line}: {values.shown(found.evidence, 160)}).", name
        )


def eval_error(case: Case) -> Iterator[Finding]:
    """The evaluation says that it failed itself."""
    evaluation = case.evidence.evaluation
    if evaluation is not None and evaluation.error_eval:
        message = evaluation.error_message or ""
        said = f": {values.shown(message, 200)}" if message else ""
        fault = environment_fault(message, no_test_ran=True)
        yield Finding(
            f"The evaluation ended with an error of its own{said}.", case.evidence.evaluated.path,
            measured=fault.kind if fault else None, fix=fault.fix if fault else None, cause=fault.cause if fault else None,
        )  # fmt: skip


def test_patch_failed(case: Case) -> Iterator[Finding]:
    """The tests of the dataset could not be put in place."""
    evaluation = case.evidence.evaluation
    if evaluation is not None and evaluation.failed_apply_test_patch:
        yield Finding("The test patch of the dataset did not apply, so the wrong tests ran.", case.evidence.evaluated.path)


def test_timeout(case: Case) -> Iterator[Finding]:
    """The tests ran into the harness's timeout."""
    evaluation = case.evidence.evaluation
    if evaluation is not None and evaluation.test_timeout:
        yield Finding("The tests ran into the timeout; tests that did not run count as failed.", case.evidence.evaluated.path)


def patch_not_applied(case: Case) -> Iterator[Finding]:
    """The model's patch could not be applied."""
    evaluation, report = case.evidence.evaluation, case.evidence.report
    said = evaluation.failed_apply_patch if evaluation else None
    if said or (said is None and report.applied is False):
        where = case.evidence.evaluated.path if said else report.path
        yield Finding("The model's patch did not apply to the repository.", where)
    elif case.evidence.apply_doubt:
        words = f"The evaluation's log doubts that the model's patch did apply to the repository: {case.evidence.apply_doubt}."
        yield Finding(words, "run_instance.log")


def f2p_empty(case: Case) -> Iterator[Finding]:
    """No F2P test was judged."""
    if _no_evaluation(case):
        return
    if not case.evidence.lists.f2p:
        yield Finding(
            "Neither F2P list holds a test: nothing shows whether the issue is solved.", case.evidence.graded_in, 0, 1
        )


def p2p_empty(case: Case) -> Iterator[Finding]:
    """No P2P test was judged."""
    if _no_evaluation(case):
        return
    if not case.evidence.lists.p2p:
        yield Finding(
            "Neither P2P list holds a test: nothing shows whether the patch broke something.",
            case.evidence.graded_in,
            0,
            1,
        )


def _no_evaluation(case: Case) -> bool:
    """Tell whether there is nothing to look for lists in; another rule says so."""
    return case.evidence.evaluation is None and not case.evidence.report.found


def claim_only(case: Case) -> Iterator[Finding]:
    """A report of a whole run says something of the instance, and nothing is there to check it by."""
    report = case.evidence.report
    said = {True: "resolved", False: "not resolved", None: "not known"}[report.resolved]
    yield Finding(f"{report.path} says {said}; it holds no test list and no log by which to check it.", report.path)


def not_evaluated(case: Case) -> Iterator[Finding]:
    """A patch that has not been evaluated yet."""
    yield Finding(f"{case.row_file} holds a patch and no evaluation: whether it resolves the instance is open.", case.row_file)
