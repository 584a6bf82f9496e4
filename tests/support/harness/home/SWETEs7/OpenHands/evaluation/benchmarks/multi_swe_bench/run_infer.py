"""Stand-in for the trajectory phase: writes output.jsonl, metadata.json and llm_completions, and takes its time.

Its name matters: a process called run_infer is how an eval that fleet did not start is recognised.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import time

from harness_standin import Switches, be_stubborn, container, load_dataset, model_of, output_dir

HISTORY = 28


def main():
    """Produce one trajectory."""
    parser = argparse.ArgumentParser()
    for name in ("agent-cls", "llm-config", "max-iterations", "eval-n-limit", "eval-num-workers", "dataset", "split"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    dataset = load_dataset(args.dataset)
    model = model_of(args.llm_config)
    switches = Switches(dataset, model)
    be_stubborn(switches)
    instance = str(dataset["instance_id"])
    directory = output_dir(args.dataset, dataset, switches, model, args.max_iterations)
    directory.mkdir(parents=True, exist_ok=True)
    if not switches.has("no-metadata"):
        write_metadata(directory, dataset, args, model)
    print(f"Starting evaluation for instance {instance}", flush=True)
    if switches.has("huge-log"):
        line = "DEBUG openhands: " + "x" * 1006 + "\n"
        for _ in range(int(switches.log_mb * 1024)):
            sys.stdout.write(line)
        sys.stdout.flush()
    container(f"openhands-runtime-{instance}", switches.seconds * 0.6)
    output = directory / "output.jsonl"
    if switches.has("empty-output"):
        output.touch()
    if switches.has("crash-phase-1", "empty-output"):
        raise RuntimeError("litellm.InternalServerError: the provider closed the connection")
    if not switches.has("no-metadata"):
        write_completions(directory, instance, model)
    patch = "" if switches.has("no-patch-exit-0") else make_patch(dataset)
    record = make_record(dataset, args, model, patch, switches)
    with open(output, "a" if switches.has("shared-dir") else "w") as file:
        file.write(json.dumps(record) + "\n")
    print(f"Finished evaluation for instance {instance}: {len(record['history'])} history entries", flush=True)


def make_patch(dataset):
    """Return the dataset's own fix when it has one, else a unified diff of more than 1 KB that parses."""
    known = dataset.get("patch") or dataset.get("functional_patch")
    if known and len(known) > 1024:
        return known
    path = f"{dataset['repo'].split('/')[-1].replace('-', '_')}/core.py"
    note = f"    # {dataset['instance_id']}: count from the left edge\n    return value"
    before = [f"def step_{number}(value):\n    return value + {number}\n\n\n" for number in range(48)]
    after = [text if number % 4 else text.replace("    return value", note) for number, text in enumerate(before)]
    old, new = "".join(before).splitlines(keepends=True), "".join(after).splitlines(keepends=True)
    body = "".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}"))
    return f"diff --git a/{path} b/{path}\nindex 3b18e51..9f2c1aa 100644\n{body}"


def make_record(dataset, args, model, patch, switches):
    """Return one line of output.jsonl."""
    instance = "another-instance" if switches.has("wrong-instance") else str(dataset["instance_id"])
    statement = dataset.get("problem_statement") or dataset.get("issue_statement") or ""
    public = {key: value for key, value in dataset.items() if key not in ("f2p", "p2p", "harness_switches")}
    return {
        "instance_id": instance,
        "test_result": {"git_patch": patch},
        "instruction": f"<uploaded_files>\n/workspace/{dataset['repo']}\n</uploaded_files>\n\n{statement}",
        "metadata": metadata_of(dataset, args, model),
        "history": make_history(statement),
        "metrics": {
            "accumulated_cost": 0.4183,
            "accumulated_token_usage": {
                "model": model, "prompt_tokens": 182_344, "completion_tokens": 5_127, "cache_read_tokens": 120_411,
                "cache_write_tokens": 0, "context_window": 200_000, "per_turn_token": 14_204, "response_id": "",
            },
            "costs": [{"model": model, "cost": 0.2091, "timestamp": time.time()}] * 2,
            "response_latencies": [{"model": model, "latency": 2.1, "response_id": "r1"}],
        },
        "error": "RuntimeError: Agent reached maximum iteration. Current iteration: 200, max iteration: 200"
        if switches.has("agent-error")
        else None,
        "instance": public,
    }  # fmt: skip


def make_history(statement):
    """Return the events of a trajectory: the task, then actions and observations in turn."""
    events = [{"id": 0, "source": "user", "message": statement, "action": "message", "args": {"content": statement}}]
    for number in range(1, HISTORY, 2):
        command = f"sed -n {number},{number + 20}p core.py"
        events.append({
            "id": number, "source": "agent", "message": f"Running command: {command}", "action": "run",
            "args": {"command": command, "is_input": False, "thought": f"Step {number}: look at the next part."},
        })  # fmt: skip
        events.append({
            "id": number + 1, "source": "agent", "cause": number, "observation": "run", "content": "    return value\n" * 12,
            "extras": {"command": command, "metadata": {"exit_code": 0}}, "message": f"Command `{command}` executed.",
        })  # fmt: skip
    for event in events:
        event["timestamp"] = "2026-01-01T00:00:00.000000"
    return events


def metadata_of(dataset, args, model):
    """Return what the harness says about the run."""
    return {
        "agent_class": args.agent_cls,
        "llm_config": {"model": f"provider/{model}", "temperature": 0.0, "api_key": "**********"},
        "max_iterations": int(args.max_iterations),
        "eval_output_dir": "evaluation/evaluation_outputs/outputs",
        "start_time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "git_commit": "0" * 40,
        "dataset": str(args.dataset),
        "data_split": args.split,
        "details": {"mode": "swe", "repo": dataset["repo"]},
    }


def write_metadata(directory, dataset, args, model):
    """Write metadata.json."""
    (directory / "metadata.json").write_text(json.dumps(metadata_of(dataset, args, model), indent=2))


def write_completions(directory, instance, model):
    """Write the provider's answers as the harness logs them, one file each."""
    folder = directory / "llm_completions" / instance
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        answer = {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Fix the bug. " * 40}]}],
            "response": {"id": f"r{number}", "model": model, "choices": [{"message": {"role": "assistant", "content": "…"}}]},
            "cost": 0.1394,
            "timestamp": time.time(),
        }
        (folder / f"provider__{model}-{time.time():.6f}-{number}.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
