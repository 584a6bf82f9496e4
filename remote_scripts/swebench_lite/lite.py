#!/usr/bin/env python3
"""The command line of the runner; standard library only, Python 3.8 and later.

    lite.py run TASKFILE [--task-id ID] [--patch FILE | --gold | --null] [--before | --no-before]
    lite.py batch TASKFILE [--gold | --null] [--parallel N] [--before | --no-before]
    lite.py validate TASKFILE... [--task-id ID] [--times N]
    lite.py pipeline DATASET MODEL RUN OUTPUT_DIR
    lite.py image [--base IMAGE]
    lite.py agent TASKFILE --model M [--task-id ID]
    lite.py agent-pipeline DATASET MODEL RUN OUTPUT_DIR
    lite.py agent-setup [--framework autogen] [--wheels DIR]
    lite.py agent-ready python|key

stdout is one JSON document, stderr is talk. Exit code: 0 pass (or gradable), 2 not, 1 input, 32 results cannot be written.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from errors import InputError, StageError
from run import IMAGE, Run, Settings
from source import check
from task import find_task, read_tasks

AGENT = ("agent", "agent-pipeline", "agent-setup", "agent-ready")
MAX_PATCH_FILE = 4 * 1024 * 1024
MARK = "lite.py: "
"""Begins the line that says why there is no document; all else on stderr is progress. `fleet lite` reads it."""


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise InputError(message)


def main(argv):
    # A run that is told to end, or whose terminal is closed, leaves nothing behind.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        options = _parser(argv).parse_args(argv)
        document, code = globals()["command_" + options.command.replace("-", "_")](options)
    except InputError as error:
        print("%s%s" % (MARK, error), file=sys.stderr)
        return 1
    except OSError as error:  # what went wrong with git or Docker is a result; this is the place where results are kept
        print("%sresults cannot be written: %s" % (MARK, error), file=sys.stderr)
        return 32
    if document is not None:
        print(json.dumps(document))
    return code


def command_run(options):
    task = find_task(options.tasks, options.task_id)
    check([task])
    result = Run(task, _settings(options), _patch(options, task)).execute()
    return result, 0 if result["status"] == "pass" else 2


def command_batch(options):
    from batch import run_batch

    chosen = read_tasks(options.tasks)
    check(chosen)
    document = run_batch(chosen, _settings(options), lambda task: _patch(options, task), options.parallel, _say)
    return document, 0 if document["passed"] == document["tasks"] else 2


def command_validate(options):
    from validation import validate

    chosen = [find_task(path, options.task_id) for path in options.tasks] if options.task_id else []
    chosen = chosen or [task for path in options.tasks for task in read_tasks(path)]
    check(chosen)
    rows = [validate(task, _settings(options), options.times, _say) for task in chosen]
    document = {"schema": "fleet.lite-validate/1", "tasks": rows, "gradable": sum(row["gradable"] for row in rows)}
    return document, 0 if document["gradable"] == len(rows) else 2


def command_pipeline(options):
    from layout import run_pipeline

    task = find_task(options.tasks)
    check([task])
    return None, run_pipeline(task, options.model, options.number, Path(options.output), _settings(options), _tell)


def command_image(options):
    from image import build

    return build(options.image, options.base, Path(__file__).resolve().parent, _say), 0


def command_agent(options):
    from agent_setup import use

    task, settings = find_task(options.tasks, options.task_id), _settings(options)
    use(settings.cache, options.framework)
    from agent import AgentRun
    from agent_options import agent_of

    document = AgentRun(task, settings, agent_of(options, _say), say=_say).execute()
    return document, 0 if document["status"] == "pass" else 2


def command_agent_pipeline(options):
    from agent_setup import use

    settings = _settings(options)
    use(settings.cache, options.framework)
    from agent import AgentRun
    from agent_options import agent_of
    from ending import FAILURES

    document = AgentRun(
        find_task(options.tasks), settings, agent_of(options, _tell), Path(options.output), _tell, int(options.number)
    ).execute()
    return None, 2 if document["ending"] in FAILURES else 0


def command_agent_setup(options):
    from agent_setup import set_up

    return set_up(_settings(options).cache, options.framework, options.wheels, _say), 0


def command_agent_ready(options):
    """Say by the exit code whether an agent has its packages, or a key; never which."""
    from agent_setup import ready
    from key import find_key

    if options.what == "python":
        missing = ready(_settings(options).cache, options.framework)
        if missing:
            raise InputError(missing)
    else:
        find_key(options.base_url, options.key_file)
    return None, 0


def _settings(options):
    return Settings(options.directory, options.sandbox, options.image, _before(options))


def _before(options):
    """Tell whether the tests are run without the patch too: where there is a patch, unless it was said otherwise."""
    given = getattr(options, "before", None)
    return bool(getattr(options, "patch", None) or getattr(options, "gold", False)) if given is None else given


def _patch(options, task):
    if options.gold:
        if not task.gold_patch:
            raise InputError("%s has no gold patch" % task.task_id)
        return task.gold_patch
    if getattr(options, "patch", None):
        path = Path(options.patch)
        try:
            if path.stat().st_size > MAX_PATCH_FILE:
                raise InputError("%s is larger than %d bytes" % (path, MAX_PATCH_FILE))
            return path.read_bytes().decode("utf-8", "surrogateescape")
        except OSError as error:
            raise InputError("%s: %s" % (path, error.strerror)) from None
    return None


def _say(text):
    print(text, file=sys.stderr, flush=True)


def _tell(text):
    print(text, flush=True)


def _parser(argv):
    parser = _Parser(prog="lite.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "batch", "validate", "pipeline", "image", *AGENT):
        one = commands.add_parser(name, allow_abbrev=False)
        one.add_argument("--directory", default="sandbox", help="where runs are kept")
        one.add_argument("--sandbox", choices=("docker", "venv"), default="docker", help="venv does not isolate")
        one.add_argument("--image", default=IMAGE)
        if name not in ("image", "agent-setup", "agent-ready"):
            one.add_argument("tasks", **({"nargs": "+"} if name == "validate" else {}))
        if name in ("run", "validate", "agent"):
            one.add_argument("--task-id")
        if name in ("run", "batch"):
            which = one.add_mutually_exclusive_group()
            which.add_argument("--gold", action="store_true", help="apply the task's own solution")
            which.add_argument("--null", action="store_true", help="apply nothing (the default)")
            if name == "run":
                which.add_argument("--patch", metavar="FILE")
            both = one.add_mutually_exclusive_group()
            both.add_argument("--before", action="store_true", default=None, help="run the tests without the patch too")
            both.add_argument("--no-before", action="store_false", dest="before", help="run them with the patch alone")
    commands.choices["batch"].add_argument("--parallel", type=int, default=1)
    commands.choices["validate"].add_argument("--times", type=int, default=1)
    commands.choices["image"].add_argument("--base", default="")
    for name in ("model", "number", "output"):
        commands.choices["pipeline"].add_argument(name)
        commands.choices["agent-pipeline"].add_argument(name)
    if argv[:1] and argv[0] in AGENT:  # what an agent needs is not imported for a run without one
        from agent_options import add_options

        add_options(commands.choices[argv[0]])
    commands.choices["agent"].add_argument("--model", required=True)
    commands.choices["agent-setup"].add_argument("--wheels", metavar="DIR", help="take packages from here, not from an index")
    commands.choices["agent-ready"].add_argument("what", choices=("python", "key"))
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except StageError as error:
        output = error.output[-2000:].strip()
        print((output + "\n" if output else "") + "%s%s: %s" % (MARK, error.stage, error), file=sys.stderr)
        sys.exit(2)
