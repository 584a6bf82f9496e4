"""What is left of a run: result.json with every figure, and the ends of what pytest and pip printed."""

import json
import os
import re
import time

SCHEMA = "fleet.lite-run/1"
TAIL = 4000
_UNSHOWN = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def document(run, status, stage, reason, tail):
    """Return what is known of a run; `stage` and `reason` say what kept it from pass or fail."""
    before = dict(run.before.as_json(), tail=plain_tail(run.before_output)) if run.before else None
    return {
        "schema": SCHEMA,
        "task_id": run.task.task_id,
        "repo": run.task.repo,
        "ref": run.task.ref,
        "pytest_k": run.task.pytest_k,
        "status": status,
        "stage": stage,
        "reason": reason and plain_tail(reason),
        "resolved": run.report.resolved if run.report and status in ("pass", "fail") else None,
        "duration_s": round(time.monotonic() - run.started, 3),
        "stages": {name: round(seconds, 3) for name, seconds in run.stages.items()},
        "patch": run.applied,
        "tests": run.report.as_json() if run.report else None,
        "before": before,
        "sandbox": run.settings.kind,
        "image_id": run.image,
        "environment": run.tag or None,
        "cached": run.cached,
        "tail": plain_tail(tail),
        "directory": str(run.directory),
    }


def keep(run, result):
    """Write a result to its run's directory, and return it."""
    write(run.directory / "pytest_tail.txt", result["tail"])
    if result["before"]:
        write(run.directory / "pytest_tail_before.txt", result["before"]["tail"])
    if run.install_output:
        write(run.directory / "install_tail.txt", plain_tail(run.install_output))
    write(run.directory / "result.json", json.dumps(result, indent=2) + "\n")
    return result


def plain_tail(text):
    """Return the end of an output as it can be shown: no escape sequences, no control characters but line ends and tabs."""
    return _UNSHOWN.sub("", text[-4 * TAIL :])[-TAIL:]


def write(path, text):
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        data = text.encode("utf-8", "surrogateescape")  # bytes that were not UTF-8 are what they were
    except UnicodeEncodeError:
        data = text.encode("utf-8", "replace")
    temporary.write_bytes(data)
    os.replace(str(temporary), str(path))
