"""From which Docker image a result came: read from fleet.json, judged, and compared between results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet.collect.provenance import image_facts
from fleet.dashboard.failures import flags_of
from fleet.dispatch.answers.why import why_task
from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause, Outcome, Severity, Verdict
from fleet.quality import flag_differing, judge
from tests.support.batches import GOOD_FACTS, Batch, task
from tests.support.results import INSTANCE, build_result

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
TAGS = ("mswebench/one:latest", "mswebench/two:pr-1")


def judged(directory: Path, **images: Any) -> Verdict:
    """Return the verdict on a good result whose fleet.json says this of its images."""
    build_result(directory)
    (directory / "fleet.json").write_text(json.dumps({"task": {"instance_id": INSTANCE}, "images": images}))
    return judge(directory, None, Quality())


def said(verdict: Verdict) -> set[tuple[str, Severity]]:
    return {(reason.code, reason.severity) for reason in verdict.reasons}


@pytest.mark.parametrize(
    ("images", "severity"),
    [
        ({}, None),
        ({"start": dict.fromkeys(TAGS), "end": dict.fromkeys(TAGS, A)}, None),
        ({"expected": A, "start": {}, "end": dict.fromkeys(TAGS, A)}, None),
        ({"expected": A, "end": dict.fromkeys(TAGS, B)}, Severity.REJECT),
        ({"expected": A, "end": {TAGS[0]: A, TAGS[1]: B}}, Severity.REJECT),
        ({"expected": A, "end": dict.fromkeys(TAGS, A), "used": {TAGS[0]: B}}, Severity.REJECT),
        ({"expected": A, "end": dict.fromkeys(TAGS, A), "used": {"local/runtime:built": B}}, None),
        ({"expected": A, "end": dict.fromkeys(TAGS)}, Severity.REJECT),
        ({"expected": A}, Severity.WARN),
        ({"start": {TAGS[0]: A}, "end": {TAGS[0]: B}}, Severity.WARN),
        ({"end": {TAGS[0]: A, TAGS[1]: B}}, Severity.WARN),
        ({"expected": 7, "start": [], "end": {"x": 7}, "used": None}, None),
    ],
)
def test_another_image_than_the_tasks_rejects_and_two_images_warn(
    tmp_path: Path, images: dict[str, Any], severity: Severity | None
) -> None:
    verdict = judged(tmp_path / "result", **images)
    assert {one for code, one in said(verdict) if code == "image-mismatch"} == ({severity} if severity else set())
    if severity is Severity.REJECT:
        assert (verdict.verdict, verdict.cause) == (Outcome.REJECTED, Cause.ENVIRONMENT)


def test_the_image_of_a_result_is_among_its_facts_unless_its_names_disagree(tmp_path: Path) -> None:
    assert judged(tmp_path / "one", end=dict.fromkeys(TAGS, A)).facts.image_id == A
    assert judged(tmp_path / "two", end={TAGS[0]: A, TAGS[1]: B}).facts.image_id is None
    assert judged(tmp_path / "three").facts.image_id is None


def test_results_of_one_instance_from_two_images_are_flagged_together(tmp_path: Path) -> None:
    one = judged(tmp_path / "one", end={TAGS[0]: A})
    two = judged(tmp_path / "two", end={TAGS[0]: B})
    same = judged(tmp_path / "same", end={TAGS[0]: A})
    assert [verdict.verdict for verdict in flag_differing([one, same])] == [Outcome.ACCEPTED, Outcome.ACCEPTED]
    flagged = flag_differing([one, two])
    assert [verdict.verdict for verdict in flagged] == [Outcome.FLAGGED, Outcome.FLAGGED]
    assert all(("image-differs", Severity.WARN) in said(verdict) for verdict in flagged)


def test_a_batch_shows_which_tasks_ran_in_different_images() -> None:
    tasks = [task("one", "gpt", "eval1"), task("one", "claude", "eval2"), task("two", "gpt", "eval1")]
    batch = Batch(tasks, ("eval1", "eval2"))
    for each, host, image in zip(tasks, ("eval1", "eval2", "eval1"), (A, B, A), strict=True):
        batch.run(each, host, facts=GOOD_FACTS.model_copy(update={"image_id": image}))
    (flag,) = flags_of(batch.state)
    assert (flag.code, flag.count, flag.task) == ("image-differs", 2, "one/gpt/run1")
    sentence = why_task(batch.state, batch.state.tasks["one/claude/run1"]).sentence
    assert A[:19] in sentence and B[:19] in sentence and "eval1" in sentence
    assert "image" not in why_task(batch.state, batch.state.tasks["two/gpt/run1"]).sentence


def test_what_a_host_says_of_its_images_is_believed_only_where_it_is_an_id() -> None:
    told = {"start": {"a": A, "b": "sha256:xyz", "c": 7}, "end": "nothing", "used": {f"n{one}": A for one in range(1000)}}
    images = image_facts({"images": told})["images"]
    assert images["start"] == {"a": A, "b": None, "c": None}
    assert images["end"] == {}
    assert len(images["used"]) == 50
    assert image_facts({"images": None}) == image_facts({}) == {}
