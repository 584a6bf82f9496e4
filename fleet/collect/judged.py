"""From a collected result to its verdict, its journal records and its row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fleet.agent.status import observed_record, started_record, state_of
from fleet.collect.manifest import VERDICT
from fleet.collect.outcome import Got, Result
from fleet.errors import InputError
from fleet.model.dataset import Dataset, read_dataset
from fleet.model.names import is_name, visible
from fleet.model.records import AnyRecord, ResultCollected, ResultJudged
from fleet.model.states import AttemptState
from fleet.model.tasks import Task, TaskKey
from fleet.quality import Expected, judge, write_verdict

if TYPE_CHECKING:
    from fleet.collect.result import Collected
    from fleet.collect.sweep import Known
    from fleet.model.pipeline import Pipeline
    from fleet.model.verdict import Verdict


def dataset_of(task: Task) -> Dataset | None:
    """Return the task's dataset when the file is here and still the one that was run."""
    try:
        dataset = read_dataset(task.dataset_file.read_bytes(), str(task.dataset_file))
    except (OSError, InputError):
        return None
    return dataset if task.key.dataset_sha256 in ("", dataset.sha256) else None


def judge_here(got: Collected, task: Task, dataset: Dataset | None, pipeline: Pipeline) -> Verdict:
    """Return the verdict on a collected result and write it beside the result."""
    expected = Expected(
        instance_id=task.key.instance_id,
        model=task.key.model,
        fail_to_pass=dataset.fail_to_pass if dataset else (),
        pass_to_pass=dataset.pass_to_pass if dataset else (),
    )
    verdict = judge(got.path, expected, pipeline.quality, verified=not got.already)
    if not (got.path / VERDICT).exists():
        write_verdict(got.path, verdict)
    return verdict


def result_records(attempt: str, got: Collected, verdict: Verdict) -> tuple[AnyRecord, ...]:
    """Return what the journal keeps of a collected and judged result."""
    return (
        ResultCollected(attempt=attempt, path=got.relative, files=got.files, bytes=got.bytes),
        ResultJudged(
            attempt=attempt, verdict=verdict.verdict, cause=verdict.cause, reasons=verdict.reasons, facts=verdict.facts
        ),
    )


def collected_row(kind: Got, got: Collected, verdict: Verdict, *, batch: str, **where: Any) -> Result:
    """Return the row of a result that is here."""
    return Result(
        kind,
        batch=batch,
        path=f"{batch}/{got.relative}",
        files=got.files,
        bytes=got.bytes,
        seconds=round(got.seconds, 3),
        verdict=verdict.verdict,
        cause=verdict.cause,
        reasons=tuple(dict.fromkeys(reason.code for reason in verdict.reasons if reason.severity != "info")),
        findings=got.findings,
        **where,
    )


def news_records(attempt: str, status: Mapping[str, Any], known: Known | None) -> tuple[AnyRecord, ...]:
    """Return the host's news of an attempt that the journal has not got yet."""
    records: list[AnyRecord] = []
    state, epoch = state_of(status), status.get("epoch")
    if (known is None or known.epoch is None) and isinstance(epoch, int) and status.get("started_at"):
        records.append(started_record(attempt, status))
    if known is None or known.state is not state:
        records.append(observed_record(attempt, status))
    return tuple(records)


def ack_word(status: Mapping[str, Any], verdict: Verdict) -> str:
    """Return what the host is told became of the attempt; after some words it allows the task again."""
    if state_of(status) is AttemptState.LOST:
        return "lost"
    return "cancelled" if status.get("cancelled") is True else str(verdict.verdict)


def key_of(value: object) -> TaskKey | None:
    """Return the task that a host names, None when a part of it could not be a path."""
    if not isinstance(value, dict):
        return None
    run, sha = value.get("run", 1), value.get("dataset_sha256", "")
    names = is_name(value.get("instance_id")) and is_name(value.get("model"))
    if not names or type(run) is not int or not 1 <= run <= 10_000 or not isinstance(sha, str) or len(sha) > 64:
        return None
    return TaskKey(instance_id=value["instance_id"], model=value["model"], run=run, dataset_sha256=visible(sha))
