"""`fleet lite`: the swebench_lite runner on this machine, without a fleet. It runs the pipeline folder's own program."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fleet.cli.options import Context, fleet_command
from fleet.cli.output import table
from fleet.errors import FleetError, InputError, StorageError
from fleet.model.exitcodes import Exit

PIPELINE = "swebench_lite"
MARK = "lite.py: "
"""Begins the line in which the program says why it has no document."""
SAID = 3
"""Last lines that are shown of what a stage said that could not do its work."""
DEADLINE_S = 3600.0
JUDGED_S = 600.0
"""What an agent's project and the judgement may take beside its own minutes."""
GRACE_S = 20.0
"""A runner that is told to end first removes its container."""


class RunnerFailed(FleetError):
    """The runner ended without an answer."""

    bit = Exit.FAILED


@fleet_command(
    "lite",
    example="fleet lite image\nfleet lite run --task-id tabulate-0.9.0\nfleet lite run task.json --patch fix.diff --json\n"
    "fleet lite batch tasks.jsonl --parallel 2\nfleet lite agent task.json --model deepseek-ai/DeepSeek-V3 --max-turns 30",
)
@click.argument("action", type=click.Choice(["run", "batch", "validate", "agent", "image"]))
@click.argument("tasks", nargs=-1, metavar="[TASKS]")
@click.option("--task-id", metavar="ID", help="run, validate, agent: this task of the file.")
@click.option("--patch", type=click.Path(dir_okay=False), metavar="FILE", help="run: apply this patch.")
@click.option("--gold", is_flag=True, help="run, batch: apply the task's own solution.")
@click.option("--null", is_flag=True, help="run, batch: apply nothing; the default.")
@click.option("--before/--no-before", default=None, help="run, batch: also run the tests without the patch; if there is one.")
@click.option("--parallel", type=click.IntRange(1, 64), metavar="N", help="batch: so many at a time; 1 when not given.")
@click.option("--times", type=click.IntRange(1, 20), metavar="N", help="validate: so many runs, which must agree.")
@click.option("--directory", type=click.Path(file_okay=False), metavar="DIR", help="Where runs are kept; else sandbox.")
@click.option("--sandbox", type=click.Choice(["docker", "venv"]), help="venv needs no Docker, and does not isolate.")
@click.option("--base", metavar="IMAGE", help="image: build on this image.")
@click.option("--model", metavar="M", help="agent: the model, as its provider calls it.")
@click.option("--base-url", metavar="URL", help="agent: the provider; any that speaks like OpenAI. Else Chutes.")
@click.option("--key-file", type=click.Path(dir_okay=False), metavar="FILE", help="agent: the key, readable by you alone.")
@click.option("--framework", type=click.Choice(["plain", "autogen"]), help="agent: what drives the model; plain by default.")
@click.option("--judge", type=click.Choice(["end", "patch"]), help="agent: try hidden tests at the end, or after each patch.")
@click.option("--price", metavar="IN,OUT", help="agent: USD per million tokens; without it no cost is told.")
@click.option("--max-turns", type=click.IntRange(1), metavar="N", help="agent: calls of the model; 50 when not given.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="agent: of all calls; 1000000 when not given.")
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), metavar="N", help="agent: 20 when not given.")
@click.option("--no-stream", is_flag=True, help="agent: ask for whole answers.")
@click.option(
    "--deadline", default=DEADLINE_S, show_default=True, type=click.FloatRange(1), metavar="SECONDS", help="End it then."
)
def lite(ctx: Context, action: str, tasks: tuple[str, ...], deadline: float, **options: Any) -> int:
    """Run SWE-bench-style tasks on this machine, in seconds each: clone, install, patch, pytest in one container.

    TASKS is a file of tasks; without it, those that come with fleet. ACTION is run (one task), batch (all of the file),
    validate (can the tasks be graded at all?), agent (let a model solve one task) or image (build what they run in, once).
    The provider's key comes from LITE_API_KEY, or CHUTES_API_KEY or OPENAI_API_KEY for these, or from a file.

    Exit code: 0 passed, or gradable; 2 not; 32 results cannot be written.
    """
    if action == "agent" and not options["model"]:
        raise InputError("agent: which model? --model M", hint="fleet lite agent --help")
    if options["max_minutes"]:
        deadline = max(deadline, 60 * options["max_minutes"] + JUDGED_S)
    words = [*(tasks or _shipped(ctx, action)), *_options(options)]
    document, code = run_lite(ctx, action, words, deadline)
    body = {key: value for key, value in document.items() if key != "schema"}
    ctx.emit_text(str(document["schema"]), body, lambda: _page(ctx, action, document))
    return code


def run_lite(
    ctx: Context, action: str, words: Sequence[str], deadline_s: float, *, command: str = ""
) -> tuple[dict[str, Any], int]:
    """Run the runner's program; return its document and exit code (0 or 2). InputError in its own words.

    `command` is what the user typed where it is not `lite ACTION`: an error names its help.
    """
    program = ctx.pipelines().folder(PIPELINE) / "lite.py"
    argv = [sys.executable, "-B", str(program), action, *words]
    with tempfile.TemporaryFile() as answer:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.PIPE, text=True)
        late = threading.Event()

        def end() -> None:
            late.set()
            process.terminate()

        timer = threading.Timer(deadline_s, end)
        timer.start()
        said: list[str] = []
        reason = ""
        try:
            assert process.stderr is not None
            for line in process.stderr:
                reason = line.rstrip().removeprefix(MARK) if line.startswith(MARK) else reason
                said = [*said[-20:], line.rstrip().removeprefix(MARK)]
                if action != "run" and not line.startswith(MARK):
                    ctx.talk(line.rstrip())
            code = process.wait()
        finally:
            timer.cancel()
            _end(process)
        answer.seek(0)
        text = answer.read().decode("utf-8", "replace")
    if late.is_set():
        raise RunnerFailed(f"fleet lite {action} was ended after {deadline_s:g} s", hint="--deadline SECONDS gives it more")
    if code == 1:
        raise InputError(reason or f"lite.py {action} refused its input", hint=f"fleet {command or f'lite {action}'} --help")
    if code == Exit.LOCAL:
        raise StorageError(reason or "results cannot be written", hint="free space there, or --directory DIR")
    try:
        document = json.loads(text)
    except ValueError:
        words_said = reason or "\n".join(said[-10:]) or f"lite.py {action} ended with {code} and without an answer"
        raise RunnerFailed(words_said, hint="docker ps") from None
    return document, code


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stderr is not None:
        process.stderr.close()


def _shipped(ctx: Context, action: str) -> tuple[str, ...]:
    if action == "image":
        return ()
    return (str(Path(ctx.pipelines().folder(PIPELINE)) / "seed_tasks.jsonl"),)


def _options(options: Mapping[str, Any]) -> list[str]:
    """Return the options that were given, as words; the program refuses those that its action does not have."""
    words: list[str] = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if value is True:
            words.append(option)
        elif name == "before" and value is False:
            words.append("--no-before")
        elif value:
            words.append(f"{option}={value}")
    return words


def _page(ctx: Context, action: str, document: Mapping[str, Any]) -> str:
    if action == "run":
        return run_text(document)
    if action == "agent":
        return agent_text(document)
    if action == "image":
        return f"{document['image']}  {document['image_id']}" + ("" if document["built"] else "  (already there)")
    if action == "validate":
        return gradable_text(document)
    rows = [(row["task_id"], row["status"], f"{row['duration_s']:.1f} s", row["directory"]) for row in document["results"]]
    rate = f"{document['passed']} of {document['tasks']} passed, p50 {document['p50_s']} s, p95 {document['p95_s']} s"
    return "\n\n".join([table(("task", "status", "time", "directory"), rows, ctx.style()), rate])


def run_text(document: Mapping[str, Any]) -> str:
    """Return what a person reads of one run: the status, why, the stages, and where the rest is."""
    stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in document["stages"].items())
    head = f"{document['task_id']}: {document['status']}"
    lines = [head + (f" in stage {document['stage']}: {document['reason']}" if document["stage"] else "")]
    if document["stage"]:
        said = document["tail"].strip().splitlines()[-SAID:]
        lines += [f"    {line}" for line in said if line not in document["reason"]]
    tests = document["tests"]
    if tests:
        lines.append("  " + ", ".join(f"{number} {outcome}" for outcome, number in tests["counts"].items() if number))
        for name in ("FAIL_TO_PASS", "PASS_TO_PASS"):
            good, bad = tests[name]["success"], tests[name]["failure"]
            if good or bad:
                lines.append(f"  {name}: {len(good)} of {len(good) + len(bad)}" + "".join(f"\n    ✗ {one}" for one in bad[:10]))
    return "\n".join([*lines, *([f"  {stages}"] if stages else []), f"  {document['directory']}"])


def agent_text(document: Mapping[str, Any]) -> str:
    """Return what a person reads of an agent's run: how it ended, what was judged, what it used."""
    usage, cost = document["usage"], document["cost_usd"]
    used = f"{document['turns']} turns, {document['tool_calls']} tool calls"
    if usage and usage["known"]:
        # Of some calls the provider may have told nothing: then the numbers are a lower bound.
        least = "" if usage["known"] == usage["calls"] else "at least "
        used += f", {least}{usage['prompt_tokens']:,} + {usage['completion_tokens']:,} tokens"
    else:
        used += ", tokens not told by the provider"
    ended = f"  the agent ended: {document['ending']}" + (f", {document['error']}" if document["error"] else "")
    left = [f"  not part of the patch: {path}, {why}" for path, why in document["left_out"].items()]
    head = [f"{document['task_id']} by {document['model']}: {document['status']}", ended, *left]
    money = f", {cost:.4f} USD" if cost is not None else ""
    spent = f"  {used}, {document['duration_s']:.1f} s{money}"
    kept = f"  transcript: {document['directory']}/transcript.jsonl"
    return "\n".join([*head, spent, kept, run_text(document["run"])])


def gradable_text(document: Mapping[str, Any]) -> str:
    """Return one line per task, and for those that cannot be graded why, with the tests that it is about."""
    lines = []
    for row in document["tasks"]:
        if row["gradable"]:
            lines.append(
                f"✓ {row['task_id']}: gradable ({row['runs']} runs)" if row["runs"] > 1 else f"✓ {row['task_id']}: gradable"
            )
        else:
            lines.append(f"✗ {row['task_id']}: {row['reason']}")
            lines += [f"    {test}" for test in row["tests"][:10]]
            if len(row["tests"]) > 10:
                lines.append(f"    and {len(row['tests']) - 10} more")
    return "\n".join(lines)
