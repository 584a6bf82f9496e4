"""Many tasks: results.jsonl as they end, and summary.csv with the pass rate, p50 and p95."""

import csv
import json
import os
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

from run import Run

FIELDS = ("task_id", "status", "stage", "resolved", "duration_s", "clone_s", "install_s", "tests_s", "directory")


def run_batch(tasks, settings, patch_of, parallel, say):
    """Run every task, `parallel` at a time; return the document with the summary and one row per task."""
    moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    directory = settings.directory / "batches" / ("%s-%s" % (moment, secrets.token_hex(3)))
    directory.mkdir(parents=True)
    # Checked before the first one starts: a task without what was asked for stops the batch, not its last minute.
    patches = [patch_of(task) for task in tasks]
    results = {}
    ended = threading.Event()

    def run(task, patch):
        return None if ended.is_set() else Run(task, settings, patch).execute()

    with open(str(directory / "results.jsonl"), "w", encoding="utf-8") as file, ThreadPoolExecutor(max(1, parallel)) as pool:
        try:
            numbers = {pool.submit(run, task, patches[number]): number for number, task in enumerate(tasks)}
            for future in as_completed(numbers):
                result = results[numbers[future]] = future.result()
                file.write(json.dumps(result) + "\n")
                file.flush()
                os.fsync(file.fileno())
                say(line_of(result))
        finally:
            ended.set()  # told to end: what runs comes to its end within its cap, and nothing else is started
    results = [results[number] for number in sorted(results)]
    summary = summarize(results)
    _write_csv(directory / "summary.csv", results, summary)
    return dict(
        {"schema": "fleet.lite-batch/1", "directory": str(directory)}, **summary, results=[row_of(one) for one in results]
    )


def line_of(result):
    """Return what is said when a task has ended."""
    words = (result["task_id"], result["status"], result["duration_s"], result["reason"] or "")
    return "%-40s %-8s %6.1f s  %s" % words


def summarize(results):
    """Return counts by status, the pass rate, and the 50th and 95th percentile of the durations."""
    durations = sorted(result["duration_s"] for result in results)
    kinds = [result["status"] for result in results]
    return {
        "tasks": len(results),
        "passed": kinds.count("pass"),
        "failed": kinds.count("fail"),
        "errors": kinds.count("error"),
        "timeouts": kinds.count("timeout"),
        "pass_rate": round(kinds.count("pass") / len(results), 4) if results else None,
        "p50_s": percentile(durations, 50),
        "p95_s": percentile(durations, 95),
    }


def percentile(ordered, percent):
    """Return the nearest-rank percentile of sorted numbers; None of none."""
    if not ordered:
        return None
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def row_of(result):
    """Return what the summary shows of one result."""
    stages = result["stages"]
    row = {key: result[key] for key in ("task_id", "status", "stage", "resolved", "duration_s", "directory")}
    return dict(row, **{name + "_s": stages.get(name) for name in ("clone", "install", "tests")})


def _write_csv(path, results, summary):
    with open(str(path), "w", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, FIELDS)
        rows.writeheader()
        rows.writerows(row_of(result) for result in results)
        lines = csv.writer(file)
        lines.writerow([])
        lines.writerow(list(summary))
        lines.writerow(list(summary.values()))
