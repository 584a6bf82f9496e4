"""`pilot2_eval_details`: what the evaluation says about one instance, field by field, with every wrong type named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fleet.quality import values
from fleet.quality.readers.trajectory import Record

FLAGS = ("failed_apply_patch", "failed_apply_test_patch", "error_eval", "test_timeout")
COUNTS = ("tests_passed", "tests_failed", "tests_error")
LISTS = ("fail_to_pass_success", "fail_to_pass_failed", "pass_to_pass_success", "pass_to_pass_failed")


@dataclass(frozen=True)
class Lists:
    """The four lists of test ids; None means that the list was not there."""

    f2p_success: tuple[str, ...] | None = None
    f2p_failed: tuple[str, ...] | None = None
    p2p_success: tuple[str, ...] | None = None
    p2p_failed: tuple[str, ...] | None = None

    @property
    def f2p(self) -> tuple[str, ...] | None:
        """All F2P ids, or None when neither list was there."""
        return _union(self.f2p_success, self.f2p_failed)

    @property
    def p2p(self) -> tuple[str, ...] | None:
        """All P2P ids, or None when neither list was there."""
        return _union(self.p2p_success, self.p2p_failed)


def _union(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if one is None and other is None else (*(one or ()), *(other or ()))


@dataclass(frozen=True)
class Evaluation:
    """One row of eval_pilot2_output.jsonl; a None flag or count was not there."""

    resolved: bool | None = None
    resolved_inside: bool | None = None
    """The `resolved` of the details, which repeats the one of the row."""
    instance_id: str | None = None
    """The instance_id of the details."""
    failed_apply_patch: bool | None = None
    failed_apply_test_patch: bool | None = None
    error_eval: bool | None = None
    test_timeout: bool | None = None
    tests_passed: int | None = None
    tests_failed: int | None = None
    tests_error: int | None = None
    lists: Lists = field(default_factory=Lists)
    test_output: str | None = None
    error_message: str | None = None
    problems: tuple[str, ...] = field(default=())

    @property
    def tests(self) -> int | None:
        """Passed, failed and errors together, or None when no count was there."""
        known = [value for value in (self.tests_passed, self.tests_failed, self.tests_error) if value is not None]
        return sum(known) if known else None


def read_evaluation(record: Record) -> Evaluation:
    """Return the evaluation in a row; what has a wrong type becomes None and a problem."""
    problems: list[str] = []
    details = values.mapping(record.details)
    if not details:
        problems.append("has no pilot2_eval_details" if record.details is None else "has pilot2_eval_details without content")
    resolved = values.flag(record.resolved)
    if record.resolved is not None and resolved is None:
        problems.append(f"says resolved is a {values.kind(record.resolved)}, not true or false")
    flags = {name: _typed(details, name, values.flag, "true or false", problems) for name in ("resolved", *FLAGS)}
    counts = {name: _typed(details, name, values.count, "a number of tests", problems) for name in COUNTS}
    lists = {name: _typed(details, name, values.strings, "a list of test ids", problems) for name in LISTS}
    if details and resolved is None and flags["resolved"] is None and not problems:
        problems.append("says nowhere whether the instance is resolved")
    return Evaluation(
        resolved=resolved if resolved is not None else flags["resolved"],
        resolved_inside=flags["resolved"],
        instance_id=values.identity(details.get("instance_id")),
        failed_apply_patch=flags["failed_apply_patch"],
        failed_apply_test_patch=flags["failed_apply_test_patch"],
        error_eval=flags["error_eval"],
        test_timeout=flags["test_timeout"],
        tests_passed=counts["tests_passed"],
        tests_failed=counts["tests_failed"],
        tests_error=counts["tests_error"],
        lists=Lists(*(lists[name] for name in LISTS)),
        test_output=values.text(details.get("test_output")),
        error_message=values.text(details.get("error_message")),
        problems=tuple(problems),
    )


def _typed(details: dict[str, Any], name: str, read: Any, wanted: str, problems: list[str]) -> Any:
    value = details.get(name)
    found = read(value)
    if value is not None and found is None:
        problems.append(f"has a {values.kind(value)} as {name} instead of {wanted}")
    return found
