"""Whatever stands in the files of a result: a verdict comes out, and it can be written as JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.model.pipeline import Quality
from fleet.model.verdict import Verdict
from fleet.quality import judge
from fleet.quality.jsonsafe import parse
from fleet.quality.logs import read_log
from fleet.quality.patches import read_patch
from tests.support.catalogue import attack
from tests.support.mutation import QUICK, anything, places, replaced
from tests.support.results import F2P, build_result, make_patch
from tests.support.verdict_table import EVALS, LOG

JSON_FILES = ("output.jsonl", "eval_pilot2_output.jsonl", "metadata.json", f"{EVALS}/report.json", "eval_outputs/report.json")
TEXT_FILES = (*JSON_FILES, f"{EVALS}/patch.diff", LOG, "manifest.json", "fleet.json")


def good_files() -> dict[str, bytes]:
    """Return the files of a good result."""
    with tempfile.TemporaryDirectory() as name:
        root = build_result(Path(name), history=3, manifest=True, provenance={})
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


GOOD = good_files()


def verdict_on(files: dict[str, bytes]) -> Verdict:
    with tempfile.TemporaryDirectory() as name:
        for path, body in files.items():
            target = Path(name) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
        verdict = judge(Path(name), None, Quality())
    json.loads(verdict.model_dump_json())
    json.dumps(verdict.model_dump(mode="json"), allow_nan=False).encode()
    return verdict


DOCUMENTS = {name: json.loads(GOOD[name]) for name in (*JSON_FILES, "manifest.json", "fleet.json")}
PLACES = [(name, path) for name, document in DOCUMENTS.items() for path in places(document)]


@QUICK
@given(st.sampled_from(PLACES), anything)
@attack("S15")
def test_any_value_of_any_type_at_any_place(place: tuple[str, tuple[Any, ...]], value: Any) -> None:
    name, path = place
    changed = json.dumps(replaced(DOCUMENTS[name], path, value))
    verdict_on({**GOOD, name: changed.encode()})


@QUICK
@given(st.sampled_from(TEXT_FILES), st.binary(max_size=80), st.integers(0, 10_000), st.integers(0, 200))
@attack("S15")
def test_any_bytes_anywhere(name: str, inserted: bytes, at: int, removed: int) -> None:
    body = GOOD[name]
    start = at % (len(body) + 1)
    verdict_on({**GOOD, name: body[:start] + inserted + body[start + removed :]})


@QUICK
@given(st.sets(st.sampled_from(sorted(GOOD))))
def test_any_files_missing(gone: set[str]) -> None:
    verdict = verdict_on({name: body for name, body in GOOD.items() if name not in gone})
    if "output.jsonl" in gone:
        assert any(reason.code == "output-missing" for reason in verdict.reasons)


@QUICK
@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
@attack("S14", "S15")
def test_any_json_is_read_or_refused(raw: bytes) -> None:
    document = parse(raw)
    assert document.values or document.problems or not raw.strip(b" \t\r\n\xef\xbb\xbf")


diff_lines = st.sampled_from(
    [
        *make_patch().split("\n"),
        "--- a/x",
        "+++ b/x",
        "@@ -0,0 +1 @@",
        "@@ -1 +1",
        "\\ No newline at end of file",
        "rename from x",
        "",
    ]
) | st.text(max_size=20)


@QUICK
@given(st.lists(diff_lines, max_size=20))
def test_any_patch_is_read(lines: list[str]) -> None:
    patch = read_patch("\n".join(lines))
    assert patch.problem is None or patch.problem


log_lines = st.sampled_from(
    [
        "= test session starts =",
        "= short test summary info =",
        f"PASSED {F2P[0]}",
        f"FAILED {F2P[1]} - x",
        "ERROR tests/x.py",
        "= 1 failed, 1 passed in 0.1s =",
        "no tests ran in 0.01s",
        "test_a (m.C.test_a) ... ok",
        "test_a (m.C) ... ",
        "ok",
        "Ran 2 tests in 0.1s",
        "FAILED (failures=1)",
        "OK",
        f"{F2P[0]} PASSED [ 10%]",
        "[gw0] [ 5%] FAILED x::y",
        ">>>>> Start Test Output",
        ">>>>> End Test Output",
        "collected 0 items",
        "ERROR: x (unittest.loader._FailedTest)",
        "FAIL: test_b (m.C)",
        "PASSED",
        "FAILED  - ",
        "[",
        "_",
        "=",
    ]
) | st.text(max_size=30)


@QUICK
@given(st.lists(log_lines, max_size=25))
def test_any_log_is_read(lines: list[str]) -> None:
    log = read_log("\n".join(lines), F2P)
    assert log.executed >= 0
    for test in F2P:
        log.status(test)


def test_hostile_logs_and_patches_take_linear_time() -> None:
    units = (
        "a::b ",
        " - ",
        "=",
        "[",
        "( ",
        "_ ",
        "1",
        "ok 1 - ",
        "--- PASS: ",
        "✓ ",
        " > ",
        "1 passed, ",
        "test_a (x) ... ",
        'File "',
        "sh: ",
    )
    for unit in units:
        for frame in ("{}", "FAILED x::y {}", "= {} in 1s =", "{}\n" * 3):
            read_log(frame.replace("{}", unit * 100_000), F2P)
        read_patch("diff --git " + unit * 100_000 + "\n@@ " + unit * 100_000)
