"""The OpenHands layout: output.jsonl, eval_pilot2_output.jsonl, metadata.json, llm_completions/ and eval_outputs/.

output.jsonl  metadata.json  llm_completions/{id}/*.json  eval_pilot2_output.jsonl
eval_outputs/report.json     eval_outputs/{id}/{report.json, patch.diff, test_output.txt}
"""

from __future__ import annotations

import re

from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import MIB, Folder, State
from fleet.quality.jsonsafe import parse
from fleet.quality.readers.pilot2 import read_evaluation
from fleet.quality.readers.report import read_report
from fleet.quality.readers.rows import Row, RowFile, read_rows
from fleet.quality.readers.trajectory import Record, model_of, read_output, read_record
from fleet.quality.values import kind, some

OUTPUT, EVALUATION = "output.jsonl", "eval_pilot2_output.jsonl"
METADATA, COMPLETIONS, EVALS = "metadata.json", "llm_completions", "eval_outputs"
PATCH_CAP, LOG_CAP, METADATA_CAP, RUN_CAP = 64 * MIB, 64 * MIB, 16 * MIB, 256 * 1024
_DOUBT = re.compile(rb"Patch application may have failed|>>>>> Patch Apply Failed")
_APPLIED = b">>>>> Applied Patch"


def read_openhands(folder: Folder, _name: str, expected: Expected | None) -> list[Evidence]:
    """Read everything a verdict needs out of an OpenHands result directory.

    One piece of evidence, unless no instance is expected and the directory is that of a whole batch: several instances of
    output.jsonl were evaluated.
    """
    wanted = expected.instance_id if expected else None
    names = tuple(sorted(name for name, is_dir in folder.entries(EVALS).items() if is_dir))
    output = read_rows(folder, OUTPUT, wanted, read_output)
    evaluated = read_rows(folder, EVALUATION, wanted or _only(output), read_record)
    instance_id = wanted or _own_id(output, evaluated, names)
    metadata = _metadata(folder)
    if instance_id is None and sum(one in evaluated.ids or one in names for one in output.ids) > 1:
        return [
            _evidence(folder, None, one, output, evaluated, tuple(name for name in names if name == one), metadata)
            for one in output.ids
        ]
    return [_evidence(folder, expected, instance_id, output, evaluated, names, metadata)]


def _evidence(
    folder: Folder,
    expected: Expected | None,
    instance_id: str | None,
    output: RowFile[Record],
    evaluated: RowFile[Record],
    names: tuple[str, ...],
    metadata: tuple[str | None, str | None],
) -> Evidence:
    row, ambiguous = _choose(output, instance_id)
    graded, graded_ambiguous = _choose(evaluated, instance_id)
    eval_dir = f"{EVALS}/{_eval_name(names, instance_id)}"
    log, cut = folder.read_ends(f"{eval_dir}/test_output.txt", LOG_CAP)
    record = row.kept if row else None
    return Evidence(
        instance_id=instance_id,
        expected=expected,
        output=output,
        record=record,
        evaluated=evaluated,
        evaluated_record=graded.kept if graded else None,
        evaluation=read_evaluation(graded.kept) if graded else None,
        report=read_report(folder, f"{eval_dir}/report.json", instance_id),
        run_report=read_report(folder, f"{EVALS}/report.json", instance_id),
        eval_names=names,
        patch_diff=folder.read(f"{eval_dir}/patch.diff", PATCH_CAP),
        test_output=log,
        test_output_cut=cut,
        metadata=metadata[0],
        completions=_completions(folder, instance_id),
        model=(expected.model if expected else None) or metadata[1] or (record.model if record else None),
        output_ambiguous=ambiguous,
        evaluated_ambiguous=graded_ambiguous,
        apply_doubt=_apply_doubt(folder, f"{eval_dir}/run_instance.log"),
    )


def _only(output: RowFile[Record]) -> str | None:
    return next(iter(output.ids)) if len(output.ids) == 1 and output.count == 1 else None


def _own_id(output: RowFile[Record], evaluated: RowFile[Record], names: tuple[str, ...]) -> str | None:
    """Return the one id that the directory speaks of; where output.jsonl has several, its other files may decide."""
    if len(output.ids) == 1:
        return next(iter(output.ids))
    others = [tuple(evaluated.ids), names]
    if output.ids:
        others = [tuple(name for name in found if name in output.ids) for found in others]
    return next((found[0] for found in others if len(found) == 1), None)


def _choose(file: RowFile[Record], instance_id: str | None) -> tuple[Row[Record] | None, str | None]:
    """Return the row of the instance, and why there is none although the file has rows."""
    rows = file.of(instance_id)
    if not rows and file.count > 1:
        if instance_id is None:
            return None, f"holds {file.count} rows ({some(tuple(file.ids))}) and nothing says which one is meant"
        return None, None
    if len(rows) > 1 and any(row.kept != rows[0].kept for row in rows[1:]):
        where = ", ".join(str(row.line) for row in rows[:5])
        return rows[-1], f"holds {len(rows)} different rows for the same instance (lines {where})"
    return (rows[0] if rows else None), None


def _eval_name(names: tuple[str, ...], instance_id: str | None) -> str:
    """Return the directory of the instance's evaluation; an id that cannot be a directory name has none."""
    if instance_id is None:
        return names[0] if len(names) == 1 else "{instance_id}"
    return instance_id if "/" not in instance_id and "\0" not in instance_id else "{instance_id}"


def _apply_doubt(folder: Folder, path: str) -> str:
    """Return what the evaluation's log says of a patch that may not have applied; the script's own flag is never set."""
    file, _ = folder.read_ends(path, RUN_CAP)
    found = _DOUBT.search(file.data) if file.ok and _APPLIED not in file.data else None
    return found.group().decode() if found else ""


def _metadata(folder: Folder) -> tuple[str | None, str | None]:
    """Return what is wrong with metadata.json, and the model that it names."""
    file = folder.read(METADATA, METADATA_CAP)
    if not file.ok:
        return ("is not there" if file.state is State.MISSING else file.detail), None
    document = parse(file.data)
    if not document.values:
        problems = [problem.message for problem in document.problems]
        return (problems[0] if problems else "is empty"), None
    body = document.values[0]
    if not isinstance(body, dict):
        return f"holds a JSON {kind(body)} instead of an object", None
    fatal = [problem.message for problem in document.problems if problem.fatal]
    return (fatal[0] if fatal else None), model_of(body)


def _completions(folder: Folder, instance_id: str | None) -> int:
    """Count the logged completions: below the instance's own directory, else wherever they are."""
    found = folder.entries(COMPLETIONS)
    own = [name for name, is_dir in found.items() if is_dir and (instance_id is None or name == instance_id)]
    inside = [entry for name in own for entry, is_dir in folder.entries(f"{COMPLETIONS}/{name}").items() if not is_dir]
    return len([name for name in (*inside, *(name for name, is_dir in found.items() if not is_dir)) if name.endswith(".json")])
