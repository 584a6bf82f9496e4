#!/usr/bin/env python3
"""A small real evaluation in the OpenHands layout: clone, reproduce, patch, test, report.

    run_eval.py DATASET MODEL RUN OUTPUT_DIR [MAX_ITERATIONS]

No model is called: what "the model" answers is the recorded patch `patches/MODEL/INSTANCE.diff` beside this file, and no
file means an empty answer. Everything else is real: the repository is cloned and checked out, the patch is applied by git,
the tests are run, and F2P/P2P are counted from pytest's own report. Standard library only; Python 3.8+, git and pytest.

Environment:
  DEMO_PYTEST   directories (separated by ":") from which pytest is imported, when it is not installed for this Python
  DEMO_LIGHT    rehearsals on one machine: a built-in runner instead of pytest, and this many seconds of sleep
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import evaluate
from steps import Steps

HERE = Path(__file__).resolve().parent
MIN_PATCH_BYTES = 100


def main(argv):
    dataset_file, model, run, output = Path(argv[1]), argv[2], int(argv[3]), Path(argv[4])
    max_iterations = int(argv[5]) if len(argv) > 5 else 200
    instance = json.loads(dataset_file.read_text(encoding="utf-8"))
    output.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="eval-", dir=str(Path.home())))
    try:
        record = infer(instance, model, run, max_iterations, work, output)
        patch = record["test_result"]["git_patch"]
        if len(patch.encode()) < MIN_PATCH_BYTES:
            say("phase 2: skipped, the patch has %d bytes" % len(patch.encode()))
            return 0  # like the real script: exit 0 and no evaluation
        say("phase 2: evaluation of a patch of %d bytes" % len(patch.encode()))
        details = evaluate.run(instance, patch, work, output, say)
        row = dict(record, resolved=details["resolved"], pilot2_eval_details=details)
        write(output / "eval_pilot2_output.jsonl", json.dumps(row) + "\n")
        say("resolved: %s" % details["resolved"])
        return 0
    finally:
        shutil.rmtree(str(work), ignore_errors=True)


def infer(instance, model, run, max_iterations, work, output):
    """Let the scripted model work on the repository; return the record of output.jsonl."""
    instance_id, base = instance["instance_id"], instance["base_commit"]
    say("phase 1: %s by %s, run %d" % (instance_id, model, run))
    if os.environ.get("DEMO_LIGHT"):
        time.sleep(float(os.environ["DEMO_LIGHT"]))
    origin, repo = work / "origin.git", work / "repo"
    evaluate.import_repository(HERE / "spans.fastimport", origin)
    answer = HERE / "patches" / model / (instance_id + ".diff")
    steps = Steps(work, say)
    steps.message("user", "Fix this issue in %s:\n\n%s" % (instance["repo"], instance["problem_statement"]))
    steps.message("agent", "I am a recorded answer: no model is called. The commands below are really run.")
    steps.run(["git", "clone", "--quiet", str(origin), "repo"])
    steps.cwd = repo
    steps.run(["git", "checkout", "--quiet", base])
    steps.run(["git", "log", "--oneline"])
    steps.run(["git", "ls-files"])
    steps.read("README.md")
    module = sorted(path.name for path in (repo / "spans").glob("*.py") if path.stem in instance["FAIL_TO_PASS"][0])[0]
    steps.read("spans/" + module)
    steps.read("tests/test_" + module)
    steps.read("CHANGELOG.md")
    steps.run(evaluate.test_command(work / "seen.xml"), env=evaluate.test_environment(repo))
    if answer.exists():
        steps.run(["git", "apply", str(answer)])
        steps.read("spans/" + module)
    steps.run(["git", "status", "--short"])
    patch = steps.run(["git", "diff", "--no-color"]).stdout
    steps.message("agent", "Done." if patch else "I found nothing to change.")
    metadata = {
        "agent_class": "RecordedPatch",
        "llm_config": {"model": model, "note": "recorded patches, no model is called"},
        "max_iterations": max_iterations,
        "eval_n_limit": 1,
        "dataset": instance["repo"],
        "data_split": "demo",
        "run": run,
        "start_time": steps.started,
    }
    record = {
        "instance_id": instance_id,
        "test_result": {"git_patch": patch},
        "instruction": instance["problem_statement"],
        "metadata": metadata,
        "history": steps.history,
        "metrics": {
            "accumulated_cost": 0.0,
            "accumulated_token_usage": {"model": model, "prompt_tokens": 0, "completion_tokens": 0},
        },
        "error": None,
        "instance": {key: instance[key] for key in ("instance_id", "repo", "base_commit", "problem_statement")},
    }
    write(output / "metadata.json", json.dumps(metadata, indent=2))
    completion = {
        "note": "recorded patch, no model was called",
        "model": model,
        "messages": [{"role": "user", "content": instance["problem_statement"]}],
        "response": {"choices": [{"message": {"role": "assistant", "content": patch}}]},
    }
    write(output / "llm_completions" / instance_id / (model + "-0.json"), json.dumps(completion, indent=2))
    write(output / "output.jsonl", json.dumps(record) + "\n")
    return record


def write(path, text):
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(str(temporary), str(path))


def say(text):
    print(text, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except subprocess.CalledProcessError as error:
        say("failed: %s: %s" % (" ".join(error.cmd[:3]), (error.stderr or "").strip()))
        sys.exit(1)
