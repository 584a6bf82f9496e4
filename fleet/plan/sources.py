"""What a plan is made from: dataset files, and the results and durations below `collected/`."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fleet.errors import InputError
from fleet.model.dataset import MAX_BYTES, Dataset, read_dataset
from fleet.model.names import is_name, visible
from fleet.model.verdict import Outcome
from fleet.plan.planner import Key, Want

SUFFIXES = (".json", ".jsonl")
DONE = {Outcome.ACCEPTED.value, Outcome.FLAGGED.value}
MAX_RECORD_BYTES = 16 * 1024 * 1024


def find_datasets(places: Sequence[str]) -> list[Path]:
    """Return the files that `places` (files, directories, globs) stand for, sorted within each; none there is an InputError."""
    found: dict[Path, None] = {}
    for place in places:
        path = Path(place).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
        elif path.is_file():
            files = [path]
        else:
            files = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())  # noqa: PTH207
        if not files:
            raise InputError(
                f"--datasets {visible(place, 200)}: no dataset file there", hint="a file, a directory or a quoted glob"
            )
        found.update(dict.fromkeys(file.resolve() for file in files))
    return list(found)


def read_datasets(files: Sequence[Path]) -> list[tuple[Path, Dataset]]:
    """Read all datasets; the first bad one is an InputError, and so are two different ones of the same instance."""
    datasets: dict[str, tuple[Path, Dataset]] = {}
    for path in files:
        try:
            with path.open("rb") as file:
                dataset = read_dataset(file.read(MAX_BYTES + 1), str(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {error.strerror}") from None
        if not is_name(dataset.instance_id):
            raise InputError(f"{path}: instance_id {visible(dataset.instance_id, 80)!r} may only hold A-Z a-z 0-9 . _ -")
        other = datasets.setdefault(dataset.instance_id, (path, dataset))
        if other[1].sha256 != dataset.sha256:
            raise InputError(f"{path}: instance {dataset.instance_id} is also in {other[0]}, with other content")
    return list(datasets.values())


def wants_of(datasets: Sequence[tuple[Path, Dataset]], models: Sequence[str], runs: int) -> list[Want]:
    """Return every task that is wanted."""
    return [
        Want(Key(dataset.instance_id, model, run), path, dataset.image, _task_name(dataset))
        for run in range(1, runs + 1)
        for path, dataset in datasets
        for model in models
    ]


def _task_name(dataset: Dataset) -> str:
    """Return the users' name of a task, `owner__repo-instance`, or nothing when it would not be a valid one."""
    name = f"{dataset.repo.replace('/', '__')}-{dataset.instance_id}"
    return name if is_name(name) else ""


def done_keys(collected: Path) -> set[Key]:
    """Return the tasks that have an accepted or flagged result in any batch below `collected`."""
    return {key for key, directory in _attempts(collected) if _verdict(directory, key) in DONE}


def durations(collected: Path) -> dict[tuple[str, str], float]:
    """Return the minutes that collected evals took, averaged by (instance, model)."""
    seconds: dict[tuple[str, str], list[float]] = {}
    for key, directory in _attempts(collected):
        elapsed = _elapsed(_read(directory / "fleet.json"))
        if elapsed is not None and elapsed > 0:
            seconds.setdefault((key.instance_id, key.model), []).append(elapsed)
    return {pair: sum(values) / len(values) / 60 for pair, values in seconds.items()}


def _attempts(collected: Path) -> Iterator[tuple[Key, Path]]:
    """Yield the complete attempts: `<batch>/<instance>/<model>/run<N>/attempt<K>`."""
    for directory in sorted(collected.glob("*/*/*/run*/attempt*")):
        run, number = directory.parent.name.removeprefix("run"), directory.name.removeprefix("attempt")
        if run.isdigit() and number.isdigit() and directory.is_dir():
            yield Key(directory.parts[-4], directory.parts[-3], int(run)), directory


def _verdict(directory: Path, key: Key) -> str | None:
    """Return the verdict kept beside a result, when it is about this task."""
    results = _read(directory / "verdict.json").get("results")
    result = results[0] if isinstance(results, list) and len(results) == 1 else None
    if not isinstance(result, dict) or result.get("instance_id") not in (None, key.instance_id):
        return None
    verdict = result.get("verdict")
    return verdict if isinstance(verdict, str) else None


def _elapsed(provenance: dict[str, Any]) -> float | None:
    value = provenance.get("elapsed_s")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _read(path: Path) -> dict[str, Any]:
    """Return a JSON object, or nothing: a result without a readable verdict is not a reason to skip its task."""
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return {}
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
