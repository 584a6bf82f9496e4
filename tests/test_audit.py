"""What a batch shows as a whole: nothing is counted twice or lost, and results that cannot all be true are named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.audit.accounts import accounts
from fleet.audit.judged import Judged
from fleet.audit.together import findings
from fleet.cli.main import cli
from fleet.model.verdict import Facts, Outcome, Verdict
from fleet.quality import Provenance
from tests.support.batches import Batch, reject, seed_case, task
from tests.support.kinds import INSTANCE as SWEBENCH
from tests.support.kinds import swebench_log
from tests.support.results import build_result, make_history, make_patch


def history(mark: str, entries: int = 60) -> list[dict[str, Any]]:
    return [{**event, "mark": mark} for event in make_history(entries)]


def result(directory: Path, instance: str, model: str = "gpt", **changes: Any) -> Path:
    """Write a good result whose history and patch are its own unless they are given."""
    mark = f"{instance}/{model}/{directory.name}"
    own = {
        "history": history(mark),
        "patch": make_patch(1500 + sum(map(ord, mark)) % 700, f"src/{instance}.py"),
        "manifest": False,
    }
    return build_result(directory, instance, model, **{**own, **changes})


def validated(*paths: Path) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["validate", *map(str, paths), "--json"], catch_exceptions=False)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def codes(document: dict[str, Any]) -> list[str]:
    return [one["code"] for one in document["batch"]["findings"]]


def test_results_of_their_own_make_no_finding(tmp_path: Path) -> None:
    for number in range(4):
        for model in ("gpt", "claude"):
            result(tmp_path / model / str(number), f"i-{number}", model)
    assert validated(tmp_path)["batch"] == {"findings": [], "accounts": []}


def test_one_trajectory_for_two_instances_is_named_and_changes_no_single_verdict(tmp_path: Path) -> None:
    shared = history("the same")
    result(tmp_path / "a", "i-1", history=shared)
    result(tmp_path / "b", "i-2", history=shared)
    result(tmp_path / "c", "i-3")
    document = validated(tmp_path)
    assert codes(document) == ["trajectory-shared"]
    (finding,) = document["batch"]["findings"]
    assert finding["paths"] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert "i-1, i-2" in finding["message"]
    assert document["summary"]["accepted"] == 3


def test_the_same_patch_of_two_models_or_instances_is_named(tmp_path: Path) -> None:
    one, other = make_patch(1600), make_patch(1700)
    result(tmp_path / "a", "i-1", "gpt", patch=one)
    result(tmp_path / "b", "i-1", "claude", patch=one)
    result(tmp_path / "c", "i-2", "gpt", patch=other)
    result(tmp_path / "d", "i-3", "gpt", patch=other)
    messages = [finding["message"] for finding in validated(tmp_path)["batch"]["findings"]]
    assert messages == [
        "gpt, claude wrote the very same patch for i-1.",
        "2 results of 2 instances (i-2, i-3) hold the very same patch.",
    ]


def test_two_results_of_one_run_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    result(tmp_path / "attempt1", "i-1", provenance={})
    result(tmp_path / "attempt2", "i-1", provenance={}, resolved=False)
    assert codes(validated(tmp_path)) == ["graded-twice"]


def test_one_patch_that_is_both_resolved_and_not_is_named_whoever_graded_it(tmp_path: Path) -> None:
    patch = make_patch(1600)
    result(tmp_path / "a", "i-1", patch=patch)
    result(tmp_path / "b", "i-1", patch=patch, resolved=False)
    assert codes(validated(tmp_path)) == ["graded-twice"]


def test_a_run_report_is_held_against_the_logs_beside_it(tmp_path: Path) -> None:
    swebench_log(tmp_path / "logs/run_evaluation/r1/gpt__4" / SWEBENCH)
    told = {"submitted_ids": [SWEBENCH, "other"], "resolved_ids": ["other"], "unresolved_ids": [SWEBENCH]}
    (tmp_path / "gpt.r1.json").write_text(json.dumps(told))
    (finding,) = validated(tmp_path)["batch"]["findings"]
    assert finding["code"] == "graded-twice" and "not resolved" in finding["message"]
    (tmp_path / "gpt.r1.json").write_text(json.dumps(told | {"resolved_ids": ["other", SWEBENCH], "unresolved_ids": []}))
    assert validated(tmp_path)["batch"]["findings"] == []


def test_a_prediction_and_its_own_log_are_not_two_models(tmp_path: Path) -> None:
    swebench_log(tmp_path / "logs/run_evaluation/r1/lab__gpt" / SWEBENCH)
    row = {"instance_id": SWEBENCH, "model_name_or_path": "lab/gpt", "model_patch": make_patch()}
    (tmp_path / "all_preds.jsonl").write_text(json.dumps(row))
    assert validated(tmp_path)["batch"]["findings"] == []


def test_code_that_differs_between_hosts_is_named_with_the_hosts(tmp_path: Path) -> None:
    for number, digest in enumerate(["a" * 64, "a" * 64, "b" * 64]):
        told = {"host": f"eval{number + 1}", "pipeline": "openhands", "code": {"scripts/run.sh": digest, "same.py": "c" * 64}}
        result(tmp_path / str(number), f"i-{number}", provenance=told)
    (finding,) = validated(tmp_path)["batch"]["findings"]
    assert finding["code"] == "code-drift"
    assert "scripts/run.sh was aaaaaaaaaaaa on eval1, eval2, bbbbbbbbbbbb on eval3" in finding["message"]
    assert finding["fix"] == "fleet sync eval3"


def verdict(number: int, entries: int, cost: float = 0.4) -> Verdict:
    facts = Facts(history_entries=entries, cost_usd=cost)
    return Verdict(path=f"p{number}", instance_id=f"i-{number}", model="gpt", verdict=Outcome.ACCEPTED, facts=facts)


def test_a_result_far_outside_of_its_batch_is_named() -> None:
    usual = [verdict(number, 60 + number) for number in range(12)]
    assert findings([Judged(one) for one in usual]) == ()
    odd = Judged(verdict(99, 70, cost=40.0))
    slow = Judged(verdict(98, 70), Provenance(elapsed_s=9000.0))
    times = [Judged(one, Provenance(elapsed_s=900.0 + 10 * number)) for number, one in enumerate(usual)]
    found = findings([*times, odd, slow])
    assert [(one.code, one.paths) for one in found] == [("outlier", ("p98",)), ("outlier", ("p99",))]
    assert "The duration of i-98 is 9000 s" in found[0].message


def test_few_results_have_no_outliers() -> None:
    assert findings([Judged(verdict(number, 60)) for number in range(5)] + [Judged(verdict(9, 6000))]) == ()


def test_every_task_of_a_batch_is_in_exactly_one_bucket() -> None:
    for state in (seed_case().state, seed_case(finished=True).state):
        here = {
            view.path or "": Verdict(path="x", verdict=view.verdict)
            for view in state.tasks.values()
            if view.path and view.verdict
        }
        found = accounts(state, here)
        assert sum(found.buckets.values()) == found.assigned == len(state.tasks)
        assert (found.uncollected, found.strangers) == ((), ())


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_books_balance_whatever_is_here(data: st.DataObject) -> None:
    tasks = [task(f"t{number}") for number in range(8)]
    batch = Batch(tasks).ready()
    for one in tasks:
        end = data.draw(st.sampled_from(["accepted", "rejected", "running", "waiting"]))
        if end == "accepted":
            batch.run(one)
        elif end == "rejected":
            batch.run(one, "eval1", Outcome.REJECTED, reject("patch-missing"))
        elif end == "running":
            batch.launch(one)
    state = batch.state
    collected = [view.path for view in state.tasks.values() if view.path]
    kept = [path for path in collected if data.draw(st.booleans())]
    extra = data.draw(st.lists(st.sampled_from(["other/1", "other/2"]), unique=True))
    found = accounts(state, {path: Verdict(path=path, verdict=Outcome.ACCEPTED) for path in [*kept, *extra]})
    assert sum(found.buckets.values()) == found.assigned == 8
    assert len(found.uncollected) == len(collected) - len(kept)
    assert sorted(found.strangers) == sorted(extra)


def test_a_batch_is_accounted_for_where_it_is_validated_as_a_whole(tmp_path: Path) -> None:
    tasks = [task("i-1"), task("i-2"), task("i-3")]
    batch = Batch(tasks).ready()
    for one in tasks[:2]:
        batch.run(one)
    folder = batch.write(tmp_path)
    paths = [view.path for view in batch.state.tasks.values() if view.path]
    result(folder / paths[0], "i-1")
    result(folder / "left/over", "i-9")
    document = validated(tmp_path)
    (books,) = document["batch"]["accounts"]
    assert books["buckets"] == {"accepted": 1, "missing here": 1, "pending": 1}
    assert (books["uncollected"], books["strangers"]) == (["i-2/gpt/run1"], ["left/over"])
    assert validated(folder / paths[0])["batch"]["accounts"] == []
    page = CliRunner().invoke(cli, ["validate", str(tmp_path)], catch_exceptions=False).stdout
    assert "batch phase8: 3 assigned = 1 accepted + 1 missing here + 1 pending" in page
    assert "fleet collect phase8 --again" in page
