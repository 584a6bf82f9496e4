"""Take in results that fleet did not start, as attempts marked `"origin": "adopted"`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.collect.candidates import Candidate
from fleet.collect.judged import collected_row, dataset_of, judge_here, key_of, result_records
from fleet.collect.manifest import Limits, digest_of, read_manifest
from fleet.collect.outcome import Got, Result, failed
from fleet.collect.places import ADOPTED, UNKNOWN_BATCH, find_result, find_same, free_number
from fleet.collect.provenance import code_facts, task_facts
from fleet.collect.pull import bring
from fleet.collect.result import AttemptRef, Collected, NumberTaken, existing_result
from fleet.errors import FleetError, StorageError
from fleet.model.exitcodes import Exit
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline
from fleet.model.records import AnyRecord, AttemptObserved
from fleet.model.states import AttemptState
from fleet.model.tasks import Task, TaskKey

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.transport import Transport

_TRIES = 20


@dataclass(frozen=True)
class Adoption:
    """Where adopted results go; the callables are the batch's journal."""

    batch: str
    batch_dir: Path
    pipeline: Pipeline
    tasks: Mapping[str, Task]
    """The batch's tasks by label."""
    floor: Callable[[str], int]
    """Label → first attempt number that the journal has not given."""
    note: Callable[[Task, AttemptRef, Sequence[AnyRecord]], bool]
    """Note the attempt and what became of it; False when it is noted, or its task has something better."""

    def take(self, client: AgentClient, transport: Transport, candidate: Candidate) -> Result:
        """Bring one directory here, judge it and journal it."""
        task = task_of(candidate, self.tasks)
        where: dict[str, Any] = {"host": candidate.host, "task": task.label}
        dataset = dataset_of(task)
        try:
            ref, got = adopt(
                client,
                transport,
                candidate,
                batch_dir=self.batch_dir,
                pipeline=self.pipeline,
                facts=task_facts(task, dataset, batch=self.batch),
                floor=lambda: self.floor(task.label),
            )
        except StorageError:
            raise
        except FleetError as error:
            return failed(Got.FAILED, error, batch=self.batch, **where)
        verdict = judge_here(got, task, dataset, self.pipeline)
        seen = AttemptObserved(attempt=ref.attempt_id, state=AttemptState.FINISHED, reason="adopted")
        # Also what is here already: whoever brought it may have died before it was noted.
        self.note(task, ref, (seen, *result_records(ref.attempt_id, got, verdict)))
        kind = Got.ALREADY if got.already else Got.ADOPTED
        return collected_row(kind, got, verdict, batch=self.batch, attempt=ref.attempt_id, **where)


def own_result(candidate: Candidate, collected: Path) -> Result:
    """Return the row of a directory that an eval of fleet's wrote: its result is here, or `fleet collect` brings it."""
    own = candidate.own or {}
    attempt, named, key = own.get("attempt"), own.get("batch"), key_of(own.get("key"))
    batch = str(named) if is_name(named) else UNKNOWN_BATCH
    where: dict[str, Any] = {"host": candidate.host, "batch": batch, "task": key.label if key is not None else candidate.label}
    if key is not None and is_name(attempt):
        where["attempt"] = str(attempt)
        number = find_result(collected / batch / key.label, str(attempt))
        if number is not None:
            return Result(Got.ALREADY, path=f"{batch}/{key.label}/attempt{number}", **where)
    said = f"{visible(candidate.root, 200)}: fleet itself started this eval, so it is collected, not adopted"
    return Result(Got.FAILED, error=said, hint=f"fleet collect {candidate.host}", bit=Exit.INCOMPLETE, **where)


def task_of(candidate: Candidate, known: Mapping[str, Task]) -> Task:
    """Return the batch's task of that label, or one made of what the directory tells."""
    task = known.get(candidate.label)
    if task is not None:
        return task
    key = TaskKey(instance_id=candidate.instance_id, model=candidate.model or "", run=candidate.run)
    return Task(key=key, dataset_file=Path(), place=candidate.host, hosts=(candidate.host,))


def adopt(
    client: AgentClient,
    transport: Transport,
    candidate: Candidate,
    *,
    batch_dir: Path,
    pipeline: Pipeline,
    facts: Mapping[str, Any],
    floor: Callable[[], int],
) -> tuple[AttemptRef, Collected]:
    """Bring a directory here as the next attempt of its task, marked `"origin": "adopted"`; the same files only once.

    The host stays as it is. Raises what `collect_attempt` raises.
    """
    began = time.monotonic()
    outputs = pipeline.outputs
    limits = {"max_file_mb": outputs.max_file_mb, "max_total_mb": outputs.max_total_mb, "max_files": outputs.max_files}
    document = client.manifest_of(candidate.root, limits)
    manifest = read_manifest(document, Limits.of(outputs), candidate.host)
    digest = digest_of(manifest)
    # The same directory with the same bytes is the same attempt of its task, however often it is adopted; of another task
    # (a --model that was mistyped first) it is another, for a journal has each attempt once.
    identity = hashlib.sha256(f"{candidate.host}\0{candidate.root}\0{candidate.label}\0{digest}".encode()).hexdigest()
    attempt_id = f"{ADOPTED}{identity[:24]}"
    here = {
        "origin": "adopted",
        "state": "finished",
        "finished_at": candidate.written_at,
        "pipeline": pipeline.name,
        "source": visible(candidate.root, 4096),
        "found_by": f"instance id in {outputs.marker}",
    }
    known = [code_facts(client, pipeline, transport.host.workdir), here, facts]
    assert candidate.model is not None
    ref = AttemptRef(attempt_id, candidate.instance_id, candidate.model, candidate.run, 1, candidate.host)
    task_dir = batch_dir.joinpath(*ref.parts)
    same = find_same(task_dir, candidate.host, visible(candidate.root, 4096), digest)
    if same is not None:
        ref = replace(ref, number=same[0], attempt_id=same[1])
        found = existing_result(ref, batch_dir)
        if found is not None:
            return ref, found
    for _ in range(_TRIES):
        ref = replace(ref, number=find_result(task_dir, attempt_id) or free_number(task_dir, floor()))
        try:
            return ref, bring(transport, manifest, None, attempt=ref, batch_dir=batch_dir, facts=known, began=began)
        except NumberTaken:
            continue
    raise StorageError(f"{task_dir}: no free attempt number after {_TRIES} tries", hint="fleet collect again")
