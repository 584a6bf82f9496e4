"""What kinds of results there are, how each is recognised by what it holds, and which parts of a result it has.

openhands        output.jsonl and what the OpenHands evaluation writes beside it; also fleet's collected attempts
swebench-log     one instance's directory of the SWE-bench harness: report.json, test_output.txt, patch.diff, run_instance.log
multi-swe-bench  one instance's directory of the Multi-SWE-bench harness: report.json, fix-patch-run.log, fix.patch
swebench-lite    one run of the swebench_lite runner: result.json, pytest_tail.txt
mini-swe-agent   a trajectory, *.traj.json
predictions      patches by instance, not evaluated: JSON lines, a list, or an object by id
run-report       the report of a whole run: ids by outcome, no evidence beside them
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from enum import StrEnum


class Part(StrEnum):
    """A part of a result about which some rules speak; a kind without the part does not lack it."""

    ROW = "row"
    PATCH = "patch"
    HISTORY = "history"
    EVALUATION = "evaluation"
    REPORT = "report"
    PATCH_DIFF = "patch-diff"
    TEST_OUTPUT = "test-output"
    LOG = "log"
    LISTS = "lists"
    METADATA = "metadata"
    COMPLETIONS = "completions"
    CLAIM = "claim"
    """The result is a bare claim."""
    UNGRADED = "ungraded"
    """The result was never meant to hold an evaluation."""


class Kind(StrEnum):
    """A kind of result."""

    OPENHANDS = "openhands"
    SWEBENCH_LOG = "swebench-log"
    MULTI_SWE_BENCH = "multi-swe-bench"
    SWEBENCH_LITE = "swebench-lite"
    MINI_SWE_AGENT = "mini-swe-agent"
    PREDICTIONS = "predictions"
    RUN_REPORT = "run-report"


FILES = frozenset({Kind.MINI_SWE_AGENT, Kind.PREDICTIONS, Kind.RUN_REPORT})
"""Kinds that are one file; the others are a directory."""

_GRADED = frozenset({Part.PATCH, Part.REPORT, Part.LOG, Part.LISTS, Part.TEST_OUTPUT})
PARTS: Mapping[Kind, frozenset[Part]] = {
    Kind.OPENHANDS: frozenset(Part) - {Part.CLAIM, Part.UNGRADED},
    Kind.SWEBENCH_LOG: _GRADED | {Part.PATCH_DIFF},
    Kind.MULTI_SWE_BENCH: _GRADED,
    Kind.SWEBENCH_LITE: _GRADED - {Part.PATCH},
    Kind.MINI_SWE_AGENT: frozenset({Part.ROW, Part.PATCH, Part.HISTORY, Part.UNGRADED}),
    Kind.PREDICTIONS: frozenset({Part.ROW, Part.PATCH, Part.UNGRADED}),
    Kind.RUN_REPORT: frozenset({Part.CLAIM}),
}

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 4 * 1024
_OPENHANDS_FILES = frozenset({"output.jsonl", "eval_pilot2_output.jsonl", "fleet.json"})
_OPENHANDS_DIRECTORIES = frozenset({"eval_outputs", "llm_completions"})
_LITE_FILES = frozenset({"result.json", "pytest_tail.txt"})
_LOG_FILES = frozenset({"test_output.txt", "run_instance.log"})
_CONTENT: tuple[tuple[Kind, re.Pattern[bytes]], ...] = (
    (Kind.MINI_SWE_AGENT, re.compile(rb'"trajectory_format"\s*:\s*"mini-swe-agent|\A\s*\{\s*"info"\s*:\s*\{')),
    (Kind.RUN_REPORT, re.compile(rb'"resolved_ids"\s*:\s*\[|"completed_instances"\s*:\s*\d')),
    (
        Kind.RUN_REPORT,
        re.compile(rb'\A(?=[^{}]*\{[^{}]*"(?:no_generation|no_apply|generated|applied)")\s*\{[^{}]*"resolved"\s*:\s*\['),
    ),
    (Kind.PREDICTIONS, re.compile(rb'"model_patch"\s*:')),
)
"""What the beginning or the end of a file shows; quotes inside of JSON strings are escaped, so no content can pose as a key."""


def kind_of_directory(files: Collection[str], directories: Collection[str]) -> Kind | None:
    """Return the kind of a directory with these names in it, or None when it is not a result itself."""
    if not _OPENHANDS_FILES.isdisjoint(files) or not _OPENHANDS_DIRECTORIES.isdisjoint(directories):
        return Kind.OPENHANDS
    if "fix-patch-run.log" in files:
        return Kind.MULTI_SWE_BENCH
    if set(files) >= _LITE_FILES:
        return Kind.SWEBENCH_LITE
    if not _LOG_FILES.isdisjoint(files) or {"report.json", "patch.diff"} <= set(files):
        return Kind.SWEBENCH_LOG
    return None


def kind_of_file(head: bytes, tail: bytes) -> Kind | None:
    """Return the kind of a file by its first HEAD_BYTES and last TAIL_BYTES, or None when it is none that is known."""
    for kind, pattern in _CONTENT:
        if pattern.search(head) or pattern.search(tail):
            return kind
    return None
