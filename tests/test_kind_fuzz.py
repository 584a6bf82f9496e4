"""Whatever stands in the files of any kind of result: verdicts come out, one or more, and they can be written as JSON."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.model.pipeline import Quality
from fleet.quality import Kind, Source, find_sources
from fleet.quality.judge import judge_source
from tests.support.kinds import INSTANCE, lite_run, multi_swe_bench, predictions, run_report, swebench_log, trajectory
from tests.support.mutation import QUICK, anything, places, replaced


def _files(kind: Kind) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "r"
        if kind is Kind.SWEBENCH_LOG:
            swebench_log(root)
        elif kind is Kind.MULTI_SWE_BENCH:
            multi_swe_bench(root)
        elif kind is Kind.SWEBENCH_LITE:
            lite_run(root)
        else:
            bodies: dict[Kind, Any] = {
                Kind.PREDICTIONS: predictions(), Kind.MINI_SWE_AGENT: trajectory(), Kind.RUN_REPORT: run_report(),
            }  # fmt: skip
            root.mkdir()
            (root / "file.json").write_text(json.dumps(bodies[kind]))
        return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


FILES = {kind: _files(kind) for kind in Kind if kind is not Kind.OPENHANDS}
DOCUMENTS = {
    (kind, name): json.loads(body) for kind, files in FILES.items() for name, body in files.items() if name.endswith(".json")
}
PLACES = [(kind, name, path) for (kind, name), document in DOCUMENTS.items() for path in places(document)]
BODIES = [(kind, name) for kind, files in FILES.items() for name in files]


def judged(kind: Kind, files: dict[str, bytes]) -> None:
    """Judge the files as the kind that they were made of, and as whatever they are taken for."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for path, body in files.items():
            (root / path).write_bytes(body)
        file = "file.json" in FILES[kind]
        sources = [Source(root / "file.json" if file else root, kind), *find_sources([root])]
        for source in sources:
            verdicts = judge_source(source, None, Quality())
            assert verdicts
            for verdict in verdicts:
                json.dumps(verdict.model_dump(mode="json"), allow_nan=False).encode()


@QUICK
@given(st.sampled_from(PLACES), anything)
def test_any_value_of_any_type_at_any_place(place: tuple[Kind, str, tuple[Any, ...]], value: Any) -> None:
    kind, name, path = place
    judged(kind, {**FILES[kind], name: json.dumps(replaced(DOCUMENTS[kind, name], path, value)).encode()})


@QUICK
@given(st.sampled_from(BODIES), st.binary(max_size=80), st.integers(0, 10_000), st.integers(0, 200))
def test_any_bytes_anywhere(which: tuple[Kind, str], inserted: bytes, at: int, removed: int) -> None:
    kind, name = which
    body = FILES[kind][name]
    start = at % (len(body) + 1)
    judged(kind, {**FILES[kind], name: body[:start] + inserted + body[start + removed :]})


@QUICK
@given(st.sampled_from(sorted(FILES)), st.sets(st.sampled_from(sorted({name for _, name in BODIES}))))
def test_any_files_missing(kind: Kind, gone: set[str]) -> None:
    judged(kind, {name: body for name, body in FILES[kind].items() if name not in gone})


@QUICK
@given(st.lists(anything, max_size=6))
def test_any_rows_of_predictions(rows: list[Any]) -> None:
    good = [{**row, "instance_id": INSTANCE} for row in predictions(1)]
    judged(Kind.PREDICTIONS, {"file.json": b"\n".join(json.dumps(row).encode() for row in [*good, *rows])})
