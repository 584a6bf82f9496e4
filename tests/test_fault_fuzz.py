"""Whatever stands in a log or in a patch: a fault is one of its lines or none, and the search for it takes linear time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.quality.agent_errors import agent_error
from fleet.quality.diagnosis import Diagnosis, numbered
from fleet.quality.environment import environment_fault
from fleet.quality.host_fault import host_fault
from fleet.quality.model_fault import left_out, model_fault
from fleet.quality.patches import read_patch
from fleet.quality.pipeline_fault import pipeline_fault
from fleet.quality.same_patch import left_out as left_out_of
from tests.support.mutation import QUICK
from tests.support.results import TOUCHED, make_patch

PATCH = read_patch(make_patch() + make_patch(1500, "src/a.go"))
SEARCHES: dict[str, Callable[[str], Diagnosis | None]] = {
    "environment, no test ran": lambda text: environment_fault(text, no_test_ran=True),
    "environment, tests ran": lambda text: environment_fault(text, no_test_ran=False),
    "model": lambda text: model_fault(text, PATCH),
    "left out": lambda text: left_out(text, PATCH),
    "pipeline": pipeline_fault,
    "host": host_fault,
}
PARTS = (
    "bash: line 1: ", "pytest: ", "command not found", "sh: ", "/conda.sh: ", "No such file or directory", "E   ", 'File "',
    f'File "/testbed/{TOUCHED}", line ', "tests/test_a.py:1: in <module>", "ModuleNotFoundError: No module named '", "src.b'",
    "ImportError: cannot import name 'x' from 'y' (", "Cannot find module './x' from 'a.test.js'", "src/a.go:1:2: ",
    "undefined: ",
    "src/a_test.go:9:1: ", "error[E0425]: ", "Killed", "docker", "buildx build ", "failed", " on line 3", "(1:2)", "\r", "：",
)  # fmt: skip
lines = st.lists(st.sampled_from(PARTS) | st.text(max_size=8), max_size=6).map("".join)


@pytest.mark.parametrize("name", SEARCHES)
@QUICK
@given(st.lists(lines, max_size=12))
def test_a_fault_is_a_line_of_the_log(name: str, found: list[str]) -> None:
    text = "\n".join(found)
    fault = SEARCHES[name](text)
    assert fault is None or dict(numbered(text))[fault.line or 0] == fault.evidence


@QUICK
@given(st.text(max_size=60))
def test_any_error_of_an_agent_has_a_kind(error: str) -> None:
    assert agent_error(error).kind


@QUICK
@given(
    st.lists(
        st.sampled_from([*make_patch().splitlines(keepends=True), "Binary files a and b differ\n", "\r\n", "x"]), max_size=9
    )
)
def test_a_patch_is_itself_however_it_ends(parts: list[str]) -> None:
    patch = "".join(parts).encode()
    assert left_out_of(patch, patch) == left_out_of(patch, patch + b"\n\n") == 0
    assert left_out_of(patch + b"diff --git a/x b/x\n+y", patch) is None


@pytest.mark.parametrize("name", SEARCHES)
def test_a_hostile_log_is_searched_in_linear_time(name: str) -> None:
    for unit in (*PARTS, "a/b.go:", "((((", "/x" * 9, "image ", "137 ", "src/a.go "):
        for text in (unit * 20_000, f"{unit}\n" * 1_000):
            started = time.process_time()
            SEARCHES[name](text)
            assert time.process_time() - started < 3, unit
