"""An agent's result in the OpenHands layout, so that collect, validate and the dashboard treat it like any other.

output.jsonl, metadata.json, eval_pilot2_output.jsonl, eval_outputs/ and llm_completions/{id}/*.json are as OpenHands writes
them. Beside them: agent.json (the result document, with ending and usage), transcript.jsonl (what happened, as it happened)
and lite/runs/ (the runner's own runs, one per judgement).
"""

import json

from layout import details_of, judged, report_of
from result import write


def write_result(ran, document, run, result, patch, history, started):
    """Write the outputs of a run that has ended; nothing of them holds the key."""
    task, agent, clean = ran.task, ran.agent, ran.agent.key.clean
    details = details_of(task, run, result)
    valid = judged(run, result)
    metadata = {
        "agent_class": "swebench_lite/" + agent.framework,
        "llm_config": {"model": agent.model.name, "base_url": agent.model.base_url, "model_id": agent.model.id},
        "max_iterations": agent.limits.turns,
        "limits": agent.limits.as_json(),
        "judge": agent.judge,
        "dataset": task.repo,
        "run": ran.number,
        "start_time": started,
        "image_id": result["image_id"],
        "sandbox": result["sandbox"],
    }
    record = {
        "instance_id": task.task_id,
        "test_result": {"git_patch": patch},
        "instruction": task.problem_statement,
        "metadata": metadata,
        "history": history,
        "metrics": _metrics(document),
        "error": document["error"] or (None if valid else "%(status)s in stage %(stage)s: %(reason)s" % result),
        "instance": {"instance_id": task.task_id, "repo": task.repo, "base_commit": task.ref},
    }

    def put(path, content):
        write(path, clean(content))

    output, folder = ran.directory, ran.directory / "eval_outputs" / task.task_id
    put(folder / "patch.diff", patch)
    put(folder / "test_output.txt", run.test_output or result["tail"])
    if valid:  # of an evaluation that did not take place there is nothing to report
        report = json.dumps({task.task_id: report_of(details, result, patch)}, indent=2)
        put(folder / "report.json", report)
        put(output / "eval_outputs" / "report.json", report)
    put(output / "metadata.json", json.dumps(metadata, indent=2))
    put(output / "agent.json", json.dumps(document, indent=2) + "\n")
    row = dict(record, resolved=details["resolved"], pilot2_eval_details=details)
    put(output / "eval_pilot2_output.jsonl", json.dumps(row) + "\n")
    put(output / "output.jsonl", json.dumps(record) + "\n")


def _metrics(document):
    """Return costs and tokens; null where even one call's usage is not known, because a part is not the sum."""
    usage = document["usage"] or {"calls": 0, "known": 0}
    whole = usage["calls"] and usage["calls"] == usage["known"]
    tokens = {name: usage[name] if whole else None for name in ("prompt_tokens", "completion_tokens")}
    return {
        "accumulated_cost": document["cost_usd"],
        "accumulated_token_usage": dict({"model": document["model"]}, **tokens),
    }
