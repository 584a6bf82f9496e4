"""Outputs as they are found in the wild are read, and what cannot be trusted is rejected with a sentence, never a traceback."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fleet.model.pipeline import Quality
from fleet.model.verdict import Outcome, Verdict
from fleet.quality import Expected, judge
from tests.support.catalogue import attack, fault
from tests.support.results import INSTANCE, MODEL, build_result, make_history, make_patch
from tests.support.verdict_table import EVALS, LOG


def judged(directory: Path, expected: Expected | None = None) -> Verdict:
    return judge(directory, expected, Quality())


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


def output_of(directory: Path) -> bytes:
    return (directory / "output.jsonl").read_bytes()


def other_row(instance_id: str, **more: Any) -> bytes:
    return json.dumps({"instance_id": instance_id, "history": [], "test_result": {"git_patch": ""}, **more}).encode() + b"\n"


def pretty(raw: bytes) -> bytes:
    return json.dumps(json.loads(raw), indent=2).encode()


READABLE = {
    "crlf": lambda raw: raw.replace(b"\n", b"\r\n"),
    "pretty-printed": pretty,
    "pretty-printed with crlf": lambda raw: pretty(raw).replace(b"\n", b"\r\n"),
    "no newline at the end": lambda raw: raw.rstrip(b"\n"),
    "blank lines around": lambda raw: b"\n\n" + raw + b"\n\n",
    "another row before": lambda raw: other_row("other-1") + raw,
    "another row behind": lambda raw: raw + other_row("other-1"),
    "many other rows": lambda raw: b"".join(other_row(f"other-{n}") for n in range(50)) + raw,
    "another row that is cut off": lambda raw: raw + other_row("other-1")[:-20],
    "a run id before the instance id": lambda raw: b'{"id": "run-1", ' + raw.removeprefix(b"{") + other_row("other-1"),
    "the same row twice": lambda raw: raw + raw,
    "byte order mark": lambda raw: b"\xef\xbb\xbf" + raw,
    "other instance's text inside": lambda raw: raw.replace(b"Please fix", b'\\"instance_id\\": \\"other-1\\" fix'),
}


@pytest.mark.parametrize("shape", READABLE)
def test_the_row_of_the_task_is_found(shape: str, tmp_path: Path) -> None:
    build_result(tmp_path)
    (tmp_path / "output.jsonl").write_bytes(READABLE[shape](output_of(tmp_path)))
    verdict = judged(tmp_path, Expected(INSTANCE, MODEL))
    assert verdict.verdict is Outcome.ACCEPTED
    assert (verdict.facts.history_entries, verdict.facts.patch_bytes) == (60, 1500)


def test_several_rows_are_told_apart_by_the_evaluation_when_no_task_is_known(tmp_path: Path) -> None:
    build_result(tmp_path)
    (tmp_path / "output.jsonl").write_bytes(other_row("other-1") + output_of(tmp_path))
    assert judged(tmp_path).instance_id == INSTANCE
    assert judged(tmp_path).verdict is Outcome.ACCEPTED


def test_several_rows_and_nothing_that_tells_them_apart_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "output.jsonl").write_bytes(other_row("a-1") + other_row("a-2"))
    verdict = judged(tmp_path)
    assert verdict.instance_id is None
    assert "nothing says which one" in next(reason.message for reason in verdict.reasons if reason.code == "output-malformed")


@fault("T10")
def test_rows_of_others_only_are_a_mismatch(tmp_path: Path) -> None:
    build_result(tmp_path)
    (tmp_path / "output.jsonl").write_bytes(other_row("a-1") + other_row("a-2"))
    verdict = judged(tmp_path, Expected(INSTANCE, MODEL))
    assert "instance-mismatch" in codes(verdict)
    assert verdict.facts.patch_bytes is None


BROKEN = {
    "cut off": (lambda raw: raw[:-30], "cut off"),
    "cut off behind a whole row of ours": (lambda raw: raw + raw[:-30], "cut off"),
    "second, different row of ours": (lambda raw: raw + other_row(INSTANCE), "different rows"),
    "NUL bytes at the end": (lambda raw: raw + b"\0" * 512, "512 NUL"),
    "only NUL bytes": (lambda raw: b"\0" * 512, "NUL"),
    "NaN": (lambda raw: raw.replace(b"0.42", b"NaN"), "NaN"),
    "Infinity": (lambda raw: raw.replace(b"0.42", b"-Infinity"), "Infinity"),
    "a key twice": (lambda raw: raw.replace(b'"error"', b'"history": [], "error"'), "'history' twice"),
    "nested too deeply": (lambda raw: raw.replace(b"0.42", b"[" * 100_000 + b"]" * 100_000), "too deeply"),
    "nothing but brackets": (lambda raw: b"[" * 100_000, "too deeply"),
    "an integer of 5,000 digits": (lambda raw: raw.replace(b"0.42", b"9" * 5000), "5000 digits"),
    "a list": (lambda raw: b"[" + raw.strip() + b"]", "list"),
    "a string": (lambda raw: b'"x"', "string"),
    "text": (lambda raw: b"Traceback (most recent call last):\n", "not JSON"),
    "two objects on one line": (lambda raw: raw.strip() + b" " + other_row(INSTANCE), "different rows"),
    "garbage behind the object": (lambda raw: raw.strip() + b"}\n", "not JSON"),
    "not UTF-8": (lambda raw: raw.replace(b"Please", b"Ple\xffse"), "not UTF-8"),
}


@pytest.mark.parametrize("shape", BROKEN)
@fault("T8")
@attack("S14")
def test_a_row_that_cannot_be_trusted_is_rejected_with_its_line(shape: str, tmp_path: Path) -> None:
    build_result(tmp_path)
    change, words = BROKEN[shape]
    (tmp_path / "output.jsonl").write_bytes(change(output_of(tmp_path)))
    verdict = judged(tmp_path, Expected(INSTANCE, MODEL))
    assert verdict.verdict is Outcome.REJECTED
    messages = [reason.message for reason in verdict.reasons if reason.code == "output-malformed"]
    assert any(words in message for message in messages), messages
    json.loads(verdict.model_dump_json())


@pytest.mark.parametrize("shape", BROKEN)
@fault("T8")
@attack("S14")
def test_the_same_damage_in_the_evaluation_is_found(shape: str, tmp_path: Path) -> None:
    build_result(tmp_path)
    file = tmp_path / "eval_pilot2_output.jsonl"
    file.write_bytes(BROKEN[shape][0](file.read_bytes()))
    verdict = judged(tmp_path, Expected(INSTANCE, MODEL))
    assert "eval-malformed" in codes(verdict)
    assert verdict.verdict is Outcome.REJECTED


@attack("S14")
def test_a_resolved_that_is_given_twice_is_not_believed(tmp_path: Path) -> None:
    build_result(tmp_path, resolved=False)
    file = tmp_path / "eval_pilot2_output.jsonl"
    file.write_text(file.read_text().replace('"resolved": false', '"resolved": false, "resolved": true', 1))
    assert "eval-malformed" in codes(judged(tmp_path))


@attack("S14")
def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\x85four\x0cfive"
    build_result(tmp_path, row={"instruction": text})
    (tmp_path / "output.jsonl").write_bytes(json.dumps(json.loads(output_of(tmp_path)), ensure_ascii=False).encode())
    assert judged(tmp_path).verdict is Outcome.ACCEPTED


@attack("S14")
def test_half_a_surrogate_pair_flags_and_is_never_written(tmp_path: Path) -> None:
    build_result(tmp_path, history=[*make_history(30), {"message": "\ud83d"}])
    verdict = judged(tmp_path)
    assert (verdict.verdict, codes(verdict)) == (Outcome.FLAGGED, {"output-malformed", "eval-malformed"})
    build_result(tmp_path, patch=make_patch() + "\ud83d")
    assert "patch-malformed" in codes(judged(tmp_path))
    build_result(tmp_path, instance_id="x", row={"instance_id": "\ud83d"}, details={"error_message": "\udfff"}, error="\ud800")
    json.loads(judged(tmp_path).model_dump_json())


def test_a_history_of_pairs_is_counted_like_one_of_events(tmp_path: Path) -> None:
    pairs = [[{"action": "run"}, {"observation": "ran"}] for _ in range(40)]
    build_result(tmp_path, history=pairs)
    assert judged(tmp_path).facts.history_entries == 40


@pytest.mark.parametrize(
    "metrics", [None, [], {}, {"accumulated_cost": None}, {"accumulated_cost": "1"}, {"accumulated_token_usage": 3}]
)
def test_costs_that_are_not_there_are_null(metrics: Any, tmp_path: Path) -> None:
    build_result(tmp_path, row={"metrics": metrics})
    verdict = judged(tmp_path)
    assert (verdict.verdict, verdict.facts.cost_usd, verdict.facts.tokens) == (Outcome.ACCEPTED, None, None)


def test_a_flat_report_of_an_old_swebench_is_read(tmp_path: Path) -> None:
    build_result(tmp_path)
    file = tmp_path / f"{EVALS}/report.json"
    file.write_text(json.dumps(json.loads(file.read_text())[INSTANCE]))
    assert judged(tmp_path).verdict is Outcome.ACCEPTED


@pytest.mark.parametrize(("listed", "outcome"), [("resolved_ids", Outcome.ACCEPTED), ("unresolved_ids", Outcome.REJECTED)])
def test_a_run_report_that_lists_ids_is_compared(listed: str, outcome: Outcome, tmp_path: Path) -> None:
    run = {"schema_version": 2, "resolved_ids": [], "unresolved_ids": [], "completed_ids": [INSTANCE]}
    build_result(tmp_path, files={"eval_outputs/report.json": json.dumps({**run, listed: [INSTANCE]})})
    assert judged(tmp_path).verdict is outcome


@fault("T10")
def test_the_evaluation_of_another_instance_is_a_mismatch(tmp_path: Path) -> None:
    build_result(tmp_path)
    (tmp_path / EVALS).rename(tmp_path / "eval_outputs/other-1")
    verdict = judged(tmp_path)
    assert {"instance-mismatch", "report-missing", "patch-diff-missing", "test-output-missing"} <= codes(verdict)


def test_links_devices_and_directories_are_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("{}")
    result = build_result(tmp_path / "r")
    for name, change in (
        ("output.jsonl", lambda path: path.symlink_to(secret)),
        ("eval_pilot2_output.jsonl", os.mkfifo),
        (f"{EVALS}/report.json", lambda path: path.mkdir()),
        (f"{EVALS}/patch.diff", lambda path: path.symlink_to("nowhere")),
        (LOG, os.mkfifo),
        ("metadata.json", lambda path: path.symlink_to(secret)),
    ):
        (result / name).unlink()
        change(result / name)
    started = time.monotonic()
    verdict = judged(result)
    assert time.monotonic() - started < 5
    assert codes(verdict) >= {
        "output-missing",
        "eval-missing",
        "report-missing",
        "patch-diff-missing",
        "test-output-missing",
        "metadata-missing",
    }


def test_a_linked_evaluation_directory_is_not_entered(tmp_path: Path) -> None:
    result = build_result(tmp_path / "r")
    (result / "eval_outputs").rename(tmp_path / "elsewhere")
    (result / "eval_outputs").symlink_to(tmp_path / "elsewhere")
    assert {"report-missing", "test-output-missing"} <= codes(judged(result))


def test_a_log_of_fifty_thousand_characters_is_said_to_be_cut(tmp_path: Path) -> None:
    noise = "============================= test session starts ==============================\n" + "x" * 60_000
    build_result(tmp_path, test_output=noise[:50_000])
    verdict = judged(tmp_path)
    assert codes(verdict) == {"log-disagrees"}
    assert "cut at 50000 characters" in verdict.reasons[0].message


@attack("S14")
def test_a_long_row_is_read_in_bounded_time(tmp_path: Path) -> None:
    entry = {"action": "run", "content": "é\u2028" + "x" * 1_000_000}
    build_result(tmp_path, history=[entry] * 25)
    started = time.monotonic()
    assert judged(tmp_path).facts.history_entries == 25
    assert time.monotonic() - started < 10


def test_hostile_names_do_not_leave_the_directory(tmp_path: Path) -> None:
    build_result(tmp_path / "r")
    for name in ("../../etc", "a/b", "..", ".", "\0", "{instance_id}", "x" * 5000):
        verdict = judged(tmp_path / "r", Expected(name, MODEL))
        assert verdict.verdict is Outcome.REJECTED
        assert {"instance-mismatch", "report-missing"} <= codes(verdict)
