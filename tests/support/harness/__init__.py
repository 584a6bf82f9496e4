"""A stand-in for the users' OpenHands harness: same paths, arguments and output layouts, switchable failures.

`HOME` is what an eval host has in its home directory: `SWETEs7/OpenHands` and a `poetry` in `.local/bin`. How an eval
behaves is set in `~/harness-switches.json`, by instance id (`*`: all), instance id and model (`id/model`), in the
dataset's own field `harness_switches`, or in the variable HARNESS_SWITCHES; the later of these wins. See
`harness_standin.py` for the list.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent / "home"
WORKDIR = "SWETEs7/OpenHands"
SCRIPT = "evaluation/benchmarks/multi_swe_bench/scripts/run_full_eval_with_s3.sh"
OUTPUTS = "evaluation/evaluation_outputs"
RECORDS = "eval-records.jsonl"
SWITCHES = "harness-switches.json"
CHILDREN = "harness-children"
"""Below the home: one pid a line of what `leave-children` left."""


def install(home: Path) -> Path:
    """Put the harness into a home directory and return its work directory."""
    shutil.copytree(HOME, home, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return home / WORKDIR


def switch(home: Path, instance: str, switches: Mapping[str, Any]) -> None:
    """Set how the harness in `home` behaves for an instance id (`*`: for all of them)."""
    path = home / SWITCHES
    known = json.loads(path.read_text()) if path.exists() else {}
    known[instance] = dict(switches)
    path.write_text(json.dumps(known))


def records(home: Path) -> list[dict[str, Any]]:
    """Return the start and stop records that the evals in `home` wrote, in that order."""
    path = home / RECORDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def overlaps(host_records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each eval that ran beside another, from one host's own records.

    A start names what the host saw alive at that moment, so an eval that was killed before it could write its stop
    is an overlap only when it really lived on.
    """
    found: list[str] = []
    running: dict[str, str] = {}
    for record in host_records:
        if record["event"] != "start":
            running.pop(record["eval"], None)
            continue
        me = f"{record['instance_id']}/{record['model']}"
        for gone in record["gone"]:
            running.pop(gone, None)
        found += [f"{me} started before {other} stopped" for other in running.values()]
        if record["phases"] and not running:
            found.append(f"{me} started while a phase of another eval ran: {record['phases']}")
        running[record["eval"]] = me
    return found
