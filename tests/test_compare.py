"""Comparisons agree with published results, leave out what says nothing about a model, and say so."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.cli.main import cli
from fleet.compare.comparison import compare
from fleet.compare.sides import Run, Side
from fleet.compare.statistics import detectable, exact_mcnemar, holm, paired_permutation, pass_at_k, wilson
from fleet.dashboard import measures
from fleet.model.failures import FailureClass
from fleet.model.states import AttemptState
from fleet.model.verdict import Cause, Facts, Outcome
from fleet.quality.readers.run_report import read_run_report
from tests.support.batches import GOOD_FACTS, Batch, reject, task
from tests.support.moatless import resolved_by

OPENHANDS = "20241029_OpenHands-CodeAct-2.1-sonnet-20241022"
TOOLS = "20241022_tools_claude-3-5-sonnet-updated"
EMERGENT = "20241023_emergent"
UNRESOLVED = GOOD_FACTS.model_copy(update={"resolved": False})


def report_of(submission: str) -> dict[str, object]:
    """Return the run report that the harness would have written for a submission to SWE-bench Verified."""
    found = resolved_by(submission)
    return {
        "total_instances": len(found),
        "submitted_ids": list(found),
        "completed_ids": list(found),
        "resolved_ids": [name for name, resolved in found.items() if resolved],
        "unresolved_ids": [name for name, resolved in found.items() if not resolved],
        "schema_version": 2,
    }


def run(*argv: str) -> Result:
    return CliRunner().invoke(cli, argv, catch_exceptions=False)


def test_published_submissions_compare_as_they_should(tmp_path: Path) -> None:
    for submission in (OPENHANDS, TOOLS, EMERGENT):
        (tmp_path / f"{submission}.json").write_text(json.dumps(report_of(submission)))
    done = run("compare", *(str(tmp_path / f"{name}.json") for name in (OPENHANDS, TOOLS, EMERGENT)), "--json")
    document = json.loads(done.stdout)
    assert [(side["resolved"], side["instances"], side["method"]) for side in document["sides"]] == [
        (265, 500, "wilson"), (245, 500, "wilson"), (233, 500, "wilson"),
    ]  # fmt: skip
    pairs = {(pair["a"], pair["b"]): pair for pair in document["pairs"]}
    tools, emergent = pairs[OPENHANDS, TOOLS], pairs[OPENHANDS, EMERGENT]
    assert (len(tools["a_better"]), len(tools["b_better"]), round(tools["p"], 4)) == (60, 40, 0.0569)
    assert (len(emergent["a_better"]), len(emergent["b_better"]), round(emergent["p"], 4)) == (72, 40, 0.0032)
    assert tools["p_holm"] == pytest.approx(2 * tools["p"])
    assert emergent["p_holm"] == pytest.approx(3 * emergent["p"])
    assert (tools["difference"], emergent["difference"]) == (pytest.approx(0.04), pytest.approx(0.064))
    assert tools["interval"]["low"] < 0.04 < tools["interval"]["high"]
    assert "chance alone explains" in tools["words"]
    assert emergent["words"].startswith(f"{OPENHANDS} resolves more than {EMERGENT}, by 6.4 points")


def test_the_difference_called_detectable_is_seen_four_times_in_five() -> None:
    import numpy

    shared, disagreement = 200, 0.2
    seen = Side("a", {f"t{n}": (Run(n < 100 + 20),) for n in range(shared)})
    other = Side("b", {f"t{n}": (Run(20 <= n < 120 or n >= 180),) for n in range(shared)})
    found = compare([seen, other]).pairs[0].detectable
    assert found is not None
    random = numpy.random.default_rng(5)
    ahead, behind = (disagreement + found) / 2, (disagreement - found) / 2
    drawn = random.multinomial(shared, [ahead, behind, 1 - disagreement], size=2000)
    power = numpy.mean([exact_mcnemar(int(a), int(b)) < 0.05 for a, b, _ in drawn])
    # The exact test is a little shy of its nominal power, and the estimate of the difference is a normal one.
    assert 0.7 < power < 0.87


@pytest.mark.parametrize("alpha", [0.0001, 0.01, 0.05, 0.1, 0.2, 0.5])
@pytest.mark.parametrize("shared", [2, 3, 10, 100, 500, 1000, 50_000])
def test_a_detectable_difference_is_found_for_every_size_and_confidence(shared: int, alpha: float) -> None:
    from statsmodels.stats.power import TTestPower

    for differences in ([1.0, -1.0] * (shared // 2) + [0.0] * (shared % 2), [1.0] + [0.0] * (shared - 1), [1 / 3] * shared):
        found = detectable(differences, alpha)
        assert found is not None
        assert 0 < found <= 1
        if found < 1:
            spread = math.sqrt(sum(value * value for value in differences) / shared)
            power = TTestPower().power(found / spread, shared, alpha / 2, alternative="larger")
            assert power == pytest.approx(0.8, abs=1e-6)


def test_two_reports_of_one_name_are_two_sides_and_what_shares_nothing_is_said(tmp_path: Path) -> None:
    for name, instances in (("one", ["a", "b"]), ("two", ["b", "c"]), ("three", ["x"])):
        (tmp_path / name).mkdir()
        report = {"submitted_ids": instances, "completed_ids": instances, "resolved_ids": instances[:1]}
        (tmp_path / name / "report.json").write_text(json.dumps({**report, "unresolved_ids": instances[1:]}))
    paths = [str(tmp_path / name / "report.json") for name in ("one", "two", "three")]
    page = run("compare", *paths).stdout
    document = json.loads(run("compare", *paths, paths[0], "--json").stdout)
    assert [side["name"] for side in document["sides"]] == ["report", *paths[1:]]
    (pair,) = document["pairs"]
    assert (pair["shared"], pair["a_better"], pair["b_better"]) == (1, [], ["b"])
    assert f"report and {paths[2]} have no instance in common" in page


def test_what_is_not_the_models_fault_is_left_out_and_counted(tmp_path: Path) -> None:
    models = ("gpt", "claude")
    tasks = [task(f"t{n}", model, "eval1") for n in range(7) for model in models]
    batch = Batch(tasks).ready()
    by_label = {one.label: one for one in tasks}
    for n, (gpt, claude) in enumerate([(True, True), (True, False), (False, False)]):
        for model, resolved in zip(models, (gpt, claude), strict=True):
            batch.run(by_label[f"t{n}/{model}/run1"], facts=GOOD_FACTS if resolved else UNRESOLVED)
    broken = by_label["t3/gpt/run1"]
    batch.run(broken, verdict=Outcome.REJECTED, cause=Cause.ENVIRONMENT, facts=UNRESOLVED)
    batch.run(by_label["t3/claude/run1"])
    # No patch at all is the model's own doing, and not resolved.
    batch.run(by_label["t4/gpt/run1"], "eval1", Outcome.REJECTED, reject("patch-missing"), cause=Cause.MODEL, facts=Facts())
    batch.run(by_label["t4/claude/run1"])
    lost = batch.launch(by_label["t5/gpt/run1"])
    batch.observe(lost, AttemptState.LOST, reason="the host rebooted during the eval")
    batch.run(by_label["t5/claude/run1"], facts=UNRESOLVED)
    batch.write(tmp_path)
    document = json.loads(run("--collected", str(tmp_path), "compare", "phase8", "--json").stdout)
    gpt, claude = document["sides"]
    assert (gpt["name"], gpt["instances"], gpt["resolved"]) == ("gpt", 4, 2)
    assert gpt["excluded"] == {"environment": 1, str(FailureClass.LOST_REBOOT): 1, "unfinished": 1}
    assert (claude["instances"], claude["resolved"], claude["excluded"]) == (6, 3, {"unfinished": 1})
    (pair,) = document["pairs"]
    assert (pair["shared"], pair["a_better"], pair["b_better"], pair["both"], pair["neither"]) == (4, ["t1"], ["t4"], 1, 1)
    page = run("--collected", str(tmp_path), "compare", "phase8").stdout
    assert "1 environment, 1 lost-reboot, 1 unfinished" in page
    assert "No difference between gpt and claude is shown on 4 shared instances" in page


def test_several_runs_per_instance_give_pass_at_k_and_a_permutation_test(tmp_path: Path) -> None:
    tasks = [task(f"t{n}", model, "eval1", run=r) for n in range(8) for model in ("gpt", "claude") for r in (1, 2, 3)]
    batch = Batch(tasks).ready()
    for one in tasks:
        wins = one.key.run <= (3 if one.key.model == "gpt" else 1)
        batch.run(one, facts=GOOD_FACTS if wins else UNRESOLVED)
    batch.write(tmp_path)
    document = json.loads(run("--collected", str(tmp_path), "compare", "phase8", "--k", "1,3,4", "--json").stdout)
    gpt, claude = document["sides"]
    assert [(one["k"], one["value"], one["instances"]) for one in claude["pass_at"]] == [
        (1, pytest.approx(1 / 3), 8),
        (3, 1.0, 8),
    ]
    assert gpt["method"] == "bootstrap over instances"
    (pair,) = document["pairs"]
    assert pair["test"] == "paired permutation"
    assert pair["p"] == pytest.approx(2 / 2**8)


def test_result_directories_are_sides_too(tmp_path: Path) -> None:
    from tests.support.results import build_result

    for n, model in itertools.product(range(2), ("gpt", "claude")):
        build_result(tmp_path / "runs" / model / f"i{n}", f"i{n}", model)
    document = json.loads(run("compare", str(tmp_path / "runs"), "--json").stdout)
    assert {side["name"]: side["instances"] for side in document["sides"]} == {"gpt": 2, "claude": 2}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nothere", "neither"], "no such batch, directory or file"),
        (["phase8"], "two are needed"),
        (["phase8:gpt", "phase8:claude"], "no result of model claude"),
        (["phase8", "phase8", "--k", "0"], "two are needed"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, argv: list[str], words: str) -> None:
    one = task("t1")
    Batch([one]).ready().run(one).write(tmp_path)
    from fleet.errors import InputError

    with pytest.raises(InputError, match=words) as caught:
        run("--collected", str(tmp_path), "compare", *argv)
    if "no result" in words:
        assert caught.value.hint == f"fleet validate {tmp_path}/phase8"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"resolved_ids": 3}', b'{"resolved_ids": ["a"], "resolved_ids": []}'])
def test_what_is_no_run_report_is_not_taken_for_one(body: bytes) -> None:
    assert read_run_report(body) is None


def test_both_shapes_of_run_reports_are_read() -> None:
    older = {"generated": ["a", "b", "c"], "applied": ["a", "b"], "no_generation": ["d"], "no_logs": ["c"], "resolved": ["a"]}
    report = read_run_report(json.dumps(older).encode())
    assert report is not None
    assert report.instances == {"a": True, "b": False, "c": "no logs", "d": False}
    newer = {
        "submitted_ids": ["a", "b", "c", "e"],
        "resolved_ids": ["a"],
        "empty_patch_ids": ["e"],
        "error_ids": ["c"],
        "incomplete_ids": ["f"],
    }
    report = read_run_report(json.dumps(newer).encode())
    assert report is not None
    assert report.instances == {"a": True, "b": False, "c": "error", "e": False, "f": "incomplete"}


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_for_single_runs_the_permutation_test_is_mcnemars(only_a: int, only_b: int) -> None:
    if only_a + only_b <= 13:  # as long as all exchanges are tried, the two are one and the same
        assert paired_permutation([1.0] * only_a + [-1.0] * only_b) == pytest.approx(exact_mcnemar(only_a, only_b))
    assert exact_mcnemar(only_a, only_b) == exact_mcnemar(only_b, only_a)


@given(st.integers(1, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_draws_that_resolve(case: tuple[int, int, int]) -> None:
    runs, resolved, k = case
    draws = list(itertools.combinations([True] * resolved + [False] * (runs - resolved), k))
    assert pass_at_k(resolved, runs, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_dashboards_interval_is_statsmodels(case: tuple[int, int]) -> None:
    ours, theirs = measures.wilson(*case), wilson(*case, 0.05)
    assert ours is theirs is None or ours == pytest.approx(theirs, abs=1e-9)


def test_holm_never_lowers_a_p_value_and_keeps_the_order() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
