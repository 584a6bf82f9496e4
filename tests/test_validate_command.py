"""`fleet validate`: finds results by content, prints what CONTRACT promises, keeps verdicts where they belong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.errors import InputError, StorageError
from fleet.model.pipeline import Quality
from fleet.model.verdict import Severity
from fleet.quality import RULES, Kind, Source, find_sources, judge, judge_many, read_verdict, write_verdict
from fleet.quality.batch import WORTH_IT
from tests.support.results import INSTANCE, build_result, make_patch

DOCS = Path(__file__).resolve().parent.parent / "docs" / "verdicts.md"


def fleet(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet", *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """Return a collected batch: one result accepted, one flagged, one rejected, one transfer that is not finished."""
    root = tmp_path / "collected" / "phase8"
    build_result(root / "a-1/gpt/run1/attempt1", "a-1", manifest=True, provenance={})
    build_result(root / "a-2/gpt/run1/attempt1", "a-2", patch=make_patch(500), resolved=False, provenance={})
    build_result(root / "a-3/gpt/run1/attempt1", "a-3", patch="", error="litellm.RateLimitError: 429", provenance={})
    build_result(root / "a-4/gpt/run1/attempt1.partial", "a-4", provenance={})
    (root / "journal.jsonl").write_text("")
    return root


def test_a_batch_is_judged_whole_and_the_document_is_the_published_one(batch: Path) -> None:
    done = fleet("validate", batch, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 2
    assert done.stderr == ""
    assert document["schema"] == "fleet.verdict/1"
    assert document["summary"] == {"accepted": 1, "flagged": 1, "rejected": 1, "resolved": 1}
    assert [(one["instance_id"], one["verdict"], one["cause"]) for one in document["results"]] == [
        ("a-1", "accepted", None),
        ("a-2", "flagged", None),
        ("a-3", "rejected", "provider"),
    ]
    reason = document["results"][1]["reasons"][0]
    assert {key: reason[key] for key in ("code", "severity", "file", "measured", "threshold")} == {
        "code": "patch-small",
        "severity": "warn",
        "file": "output.jsonl",
        "measured": 500,
        "threshold": 1024,
    }


def test_the_table_names_reasons_and_fixes(batch: Path) -> None:
    done = fleet("validate", batch)
    assert done.returncode == 2
    assert "1 accepted, 1 flagged, 1 rejected, 1 resolved" in done.stdout
    assert "→ fleet retry a-3/gpt/run1" in done.stdout
    assert "patch-small: The patch has only 500 bytes" in done.stdout
    assert "a-4" not in done.stdout


def test_without_rejected_results_the_exit_code_is_zero(batch: Path) -> None:
    assert fleet("validate", batch / "a-1", batch / "a-2", "-q").returncode == 0
    assert fleet("validate", batch / "a-3", "-q").returncode == 2


def test_the_collected_directory_is_the_default(batch: Path) -> None:
    done = fleet("validate", "--json", cwd=batch.parent.parent)
    assert len(json.loads(done.stdout)["results"]) == 3


def test_nothing_to_judge_is_said_with_a_hint(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        done = fleet("validate", path)
        assert done.returncode == 1
        assert "error: " in done.stderr
        assert "→" in done.stderr


def test_a_file_that_is_no_result_is_said_and_its_neighbours_are_left_alone(batch: Path) -> None:
    (batch / "notes.json").write_text("{")
    done = fleet("validate", batch / "notes.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{batch / 'notes.json'}: holds no result" in done.stderr


def test_no_fix_is_offered_that_lacks_its_task_and_each_row_of_a_file_is_named(tmp_path: Path) -> None:
    rows = [{"instance_id": f"a-{n}", "model_name_or_path": "gpt", "model_patch": ""} for n in (1, 2)]
    (tmp_path / "predictions.json").write_text(json.dumps(rows))
    done = fleet("validate", tmp_path)
    assert "TASK" not in done.stdout, "these are no tasks of fleet's"
    assert [f"{tmp_path}/predictions.json  a-{n}" in done.stdout.splitlines() for n in (1, 2)] == [True, True]


def test_verdicts_are_kept_in_collected_attempts_only(batch: Path, tmp_path: Path) -> None:
    loose = build_result(tmp_path / "loose")
    fleet("validate", batch, loose, "-q")
    kept = sorted(path.parent.parent.parent.parent.name for path in tmp_path.rglob("verdict.json"))
    assert kept == ["a-1", "a-2", "a-3"]
    stored = json.loads((batch / "a-1/gpt/run1/attempt1/verdict.json").read_text())
    assert (stored["schema"], stored["results"][0]["verdict"]) == ("fleet.verdict/1", "accepted")
    assert fleet("validate", batch / "a-1", "-q").returncode == 0


def test_writing_verdicts_can_be_forced_and_forbidden(batch: Path, tmp_path: Path) -> None:
    loose = build_result(tmp_path / "loose")
    fleet("validate", batch, loose, "-q", "--no-write")
    assert list(tmp_path.rglob("verdict.json")) == []
    fleet("validate", loose, "-q", "--write")
    assert read_verdict(loose) == judge(loose, None, Quality())


def test_a_verdict_that_is_as_before_is_not_written_again(tmp_path: Path) -> None:
    build_result(tmp_path)
    verdict = judge(tmp_path, None, Quality())
    write_verdict(tmp_path, verdict)
    os.utime(tmp_path / "verdict.json", (1, 1))
    write_verdict(tmp_path, verdict)
    assert (tmp_path / "verdict.json").stat().st_mtime == 1
    write_verdict(tmp_path, verdict.model_copy(update={"model": "other"}))
    assert read_verdict(tmp_path) is not None
    assert (tmp_path / "verdict.json").stat().st_mtime > 1
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_verdict_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    verdict = judge(build_result(tmp_path / "r"), None, Quality())
    with pytest.raises(StorageError, match=r"verdict\.json"):
        write_verdict(tmp_path / "gone", verdict)


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"results": []}', '{"results": [{"verdict": "fine"}]}', "[" * 100_000])
def test_a_verdict_that_cannot_be_read_is_none(body: str, tmp_path: Path) -> None:
    assert read_verdict(tmp_path) is None
    (tmp_path / "verdict.json").write_text(body)
    assert read_verdict(tmp_path) is None


def test_the_instance_can_be_given(tmp_path: Path) -> None:
    build_result(tmp_path)
    assert fleet("validate", tmp_path, "--instance", INSTANCE, "-q").returncode == 0
    done = fleet("validate", tmp_path, "--instance", "other", "--json")
    assert "instance-mismatch" in {reason["code"] for reason in json.loads(done.stdout)["results"][0]["reasons"]}


def test_results_are_found_by_what_they_hold(tmp_path: Path) -> None:
    for name, marker in (("a", "output.jsonl"), ("b/c/d", "eval_pilot2_output.jsonl"), ("e", "fleet.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / marker).write_text("{}")
    (tmp_path / "f/eval_outputs/x").mkdir(parents=True)
    (tmp_path / "g.partial").mkdir()
    (tmp_path / "g.partial/output.jsonl").write_text("{}")
    (tmp_path / "h").symlink_to(tmp_path / "a")
    (tmp_path / "i/notes").mkdir(parents=True)
    expected = [tmp_path / name for name in ("a", "b/c/d", "e", "f")]
    assert [source.path for source in find_sources([tmp_path])] == expected
    assert [source.path for source in find_sources([tmp_path / "a/output.jsonl", tmp_path / "a", tmp_path])] == expected
    assert find_sources([tmp_path / "i"]) == []
    with pytest.raises(InputError):
        find_sources([tmp_path / "nowhere"])


def test_a_directory_that_is_not_there_cannot_be_judged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        judge(tmp_path / "nowhere", None, Quality())


def test_many_results_are_judged_by_several_processes_in_order(tmp_path: Path) -> None:
    names = [f"i-{number}" for number in range(WORTH_IT + 4)]
    sources = [Source(build_result(tmp_path / name, name, history=20), Kind.OPENHANDS) for name in names]
    work = [(source, None, Quality()) for source in sources]
    assert [verdict.instance_id for judged in judge_many(work, processes=2) for verdict in judged] == names


def test_the_thresholds_of_the_pipeline_that_made_it_are_used(tmp_path: Path) -> None:
    source = Path(__file__).resolve().parent.parent / "remote_scripts/openhands/pipeline.yaml"
    target = tmp_path / "remote_scripts/openhands/pipeline.yaml"
    target.parent.mkdir(parents=True)
    target.write_text(source.read_text().replace("min_history: 20", "min_history: 70"))
    result = build_result(tmp_path / "r", provenance={"pipeline": "openhands"})
    plain = build_result(tmp_path / "s")
    found = json.loads(fleet("validate", result, plain, "--json", cwd=tmp_path).stdout)["results"]
    assert [[reason["code"] for reason in one["reasons"]] for one in found] == [["history-short"], []]
    named = json.loads(fleet("validate", plain, "--pipeline", "openhands", "--json", cwd=tmp_path).stdout)["results"]
    assert [reason["code"] for reason in named[0]["reasons"]] == ["history-short"]


def test_a_code_can_be_explained() -> None:
    done = fleet("validate", "--explain", "log-disagrees")
    assert done.returncode == 0
    assert "log-disagrees (warn)" in done.stdout
    wrong = fleet("validate", "--explain", "log-disagree")
    assert (wrong.returncode, "log-disagrees" in wrong.stderr) == (1, True)
    assert json.loads(fleet("validate", "--explain", "eval-error", "--json").stdout)["severity"] == "reject"


def test_hostile_text_does_not_reach_the_terminal(tmp_path: Path) -> None:
    build_result(tmp_path, error="\x1b]0;owned\x07 \u202e sk-abcdefghijklmnop1234", row={"instance_id": "\x1b[2J"})
    done = fleet("validate", tmp_path)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", done.stdout)
    assert "sk-abcdef" not in done.stdout


def test_every_code_is_documented_with_its_severity_and_its_words() -> None:
    sections = dict(re.findall(r"^### ([a-z0-9-]+)\n+(.*?)(?=^### |\Z)", DOCS.read_text(), re.MULTILINE | re.DOTALL))
    assert list(sections) == [rule.code for rule in RULES]
    for rule in RULES:
        words = " ".join(sections[rule.code].split())
        assert words.startswith(f"**{rule.severity}**, when {rule.text.when}".rstrip("."))
        assert f"{rule.text.means} {rule.text.do}" in words
        assert rule.fix in words
    listed = re.findall(r"^\| \[([a-z0-9-]+)\]\(#\1\) \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    assert listed == [(rule.code, str(rule.severity)) for rule in RULES]
    assert {rule.severity for rule in RULES} == set(Severity)
