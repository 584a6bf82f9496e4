"""A trajectory of mini-swe-agent, `*.traj.json`, formats mini-swe-agent-1 and 1.1.

`{info: {exit_status, submission, model_stats: {instance_cost, api_calls}, config}, messages: […], trajectory_format,
instance_id?}`.
`submission` is the patch of a run that ended with `Submitted`, and an exception's words of one that did not.
"""

from __future__ import annotations

from typing import Any

from fleet.quality import values
from fleet.quality.evidence import Evidence, Expected
from fleet.quality.folder import Folder
from fleet.quality.jsonsafe import Problem
from fleet.quality.kinds import Kind
from fleet.quality.readers.rows import RowFile, read_values
from fleet.quality.readers.trajectory import Record

SUFFIX = ".traj.json"
_SUBMITTED = frozenset({"Submitted", "submitted"})


def read_mini_swe_agent(folder: Folder, name: str, expected: Expected | None) -> list[Evidence]:
    """Return the evidence of one trajectory; the file, else its directory, is named after the instance."""
    found = read_values(folder, name)
    body = found.values[0][1] if len(found.values) == 1 else None
    problems = list(found.problems)
    if found.values and not isinstance(body, dict):
        problems.append(Problem("is not one JSON object"))
    named = name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else folder.path.resolve().name
    record = _record(body, named) if isinstance(body, dict) else None
    output: RowFile[Record] = RowFile(name, found.state, blank=not found.values and not problems, detail=found.detail)
    output.problems, output.count = problems, len(found.values)
    return [
        Evidence(
            kind=Kind.MINI_SWE_AGENT,
            instance_id=(expected.instance_id if expected else None) or (record.claimed_id if record else named),
            expected=expected,
            output=output,
            record=record,
            model=(expected.model if expected else None) or (record.model if record else None),
        )
    ]


def _record(body: dict[str, Any], named: str) -> Record:
    info = values.mapping(body.get("info"))
    stats, config = values.mapping(info.get("model_stats")), values.mapping(info.get("config"))
    messages = body.get("messages")
    status = values.text(info.get("exit_status"))
    submission = info.get("submission")
    ended = status in _SUBMITTED or (status is None and isinstance(submission, str))
    patch = submission if isinstance(submission, str) and (ended or submission.lstrip().startswith("diff ")) else None
    return Record(
        claimed_id=values.identity(body.get("instance_id")) or named,
        claimed_kind=values.kind(body.get("instance_id")),
        patch=patch,
        patch_kind=values.kind(submission) if patch is not None or not isinstance(submission, str) else "null",
        history_entries=sum(1 for one in messages if isinstance(one, dict)) if isinstance(messages, list) else None,
        history_kind=values.kind(messages),
        error=None if ended else _error(status, info.get("exception_str") or submission),
        model=values.text(values.mapping(config.get("model")).get("model_name")),
        cost_usd=values.amount(stats.get("instance_cost")),
    )


def _error(status: str | None, said: Any) -> str | None:
    """Return how the run ended, with the exception's words where there are any."""
    return f"{status or 'no exit status'}: {values.shown(said)}" if said else status
