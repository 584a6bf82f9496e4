"""Where sides come from: a batch's journal, result directories, or the report of a SWE-bench run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fleet.compare.sides import Run, Side, run_of, sides_by_model
from fleet.dispatch.files.batch import JOURNAL, Batch
from fleet.dispatch.state.views import TaskView
from fleet.errors import InputError
from fleet.model.names import is_name
from fleet.model.pipeline import Quality
from fleet.model.states import SUCCESS, TERMINAL, TaskState
from fleet.model.verdict import Outcome, Verdict
from fleet.quality import Kind, Source, find_sources, judge_many, provenance_of, read_verdict
from fleet.quality.readers.run_report import read_run_report

MAX_REPORT_BYTES = 256 * 1024 * 1024
_EVALUATED = frozenset({Kind.OPENHANDS, Kind.SWEBENCH_LOG, Kind.SWEBENCH_LITE, Kind.MULTI_SWE_BENCH})


def read_sides(named: str, collected: Path) -> list[Side]:
    """Return the sides that one word of the operator means: `BATCH`, `PATH`, either with `:MODEL`; one side per model."""
    where, only = _parts(named, collected)
    path = Path(where)
    if is_name(where) and (collected / where / JOURNAL).is_file():
        sides = sides_by_model(_from_batch(Batch(collected, where)), where, only)
    elif (path / JOURNAL).is_file():
        sides = sides_by_model(_from_batch(Batch(path.resolve().parent, path.resolve().name)), path.name, only)
    elif path.is_dir():
        sides = sides_by_model(_from_results(path), path.name, only)
    elif path.is_file():
        sides = [_from_report(path)]
    else:
        raise InputError(
            f"{named}: no such batch, directory or file",
            hint="fleet dashboard names the batches; a directory of results or a run's report will do too",
        )
    if not sides:
        there = path if path.exists() else collected / where
        raise InputError(f"{named}: no result" + (f" of model {only}" if only else ""), hint=f"fleet validate {there}")
    return sides


def _parts(named: str, collected: Path) -> tuple[str, str | None]:
    """Split off `:MODEL`, unless the whole is something that exists."""
    where, colon, model = named.rpartition(":")
    if not colon or not where or Path(named).exists() or (is_name(named) and (collected / named).exists()):
        return named, None
    return where, model


def _from_batch(batch: Batch) -> Iterator[tuple[str, str, Run]]:
    for view in batch.load().tasks.values():
        yield view.task.key.model, view.task.key.instance_id, _run_of_task(view)


def _run_of_task(view: TaskView) -> Run:
    """A task without a judged result is left out under the name of its failure, or as unfinished."""
    if view.state in SUCCESS or view.state is TaskState.REJECTED:
        outcome = view.verdict or Outcome.REJECTED
        return run_of(outcome, view.facts.resolved if view.facts else None, view.cause, str(view.failure or ""))
    return Run(None, str(view.failure or view.state) if view.state in TERMINAL else "unfinished")


def _from_results(path: Path) -> Iterator[tuple[str, str, Run]]:
    """Yield every run's last attempt; verdicts kept beside the results are used, the others are judged now."""
    latest: dict[tuple[str, str, str], Verdict] = {}
    for source, verdict in _verdicts([source for source in find_sources([path]) if source.kind in _EVALUATED]):
        provenance = provenance_of(source.folder)
        # Attempts of one run lie beside each other in the order of their numbers; other directories are runs of their own.
        run = str(provenance.run) if provenance is not None and provenance.run else str(source.path)
        model = (provenance.expected.model if provenance and provenance.expected else None) or verdict.model or ""
        key = (model, verdict.instance_id or str(source.path), run)
        if key not in latest or latest[key].verdict is Outcome.REJECTED or verdict.verdict is not Outcome.REJECTED:
            latest[key] = verdict
    for (model, instance, _), verdict in latest.items():
        yield model, instance, run_of(verdict.verdict, verdict.facts.resolved, verdict.cause)


def _verdicts(found: list[Source]) -> Iterator[tuple[Source, Verdict]]:
    kept = {source: verdict for source in found if (verdict := read_verdict(source.folder)) is not None}
    judged = judge_many([(source, None, Quality()) for source in found if source not in kept])
    for source in found:
        yield from ((source, one) for one in ([kept[source]] if source in kept else next(judged)))


def _from_report(path: Path) -> Side:
    size = path.stat().st_size
    if size > MAX_REPORT_BYTES:
        raise InputError(f"{path}: {size} bytes, more than the {MAX_REPORT_BYTES} allowed")
    report = read_run_report(path.read_bytes())
    if report is None:
        raise InputError(
            f"{path}: not the report of a SWE-bench run",
            hint="a run report has resolved_ids; result directories are named as such",
        )
    runs = {
        instance: (Run(said) if isinstance(said, bool) else Run(None, said),) for instance, said in report.instances.items()
    }
    return Side(path.stem, runs)
