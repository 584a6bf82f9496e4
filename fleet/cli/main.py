"""The `fleet` command: a lazy group whose help imports nothing heavy, and the one place where errors become exit codes.

Only the module of the command that is run is imported; its name and one-line summary are known here, so `fleet --help`,
`--version` and "did you mean" stay fast.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from fleet import __version__
from fleet.cli.options import GLOBAL_NAMES, global_options, remember_globals
from fleet.cli.output import show_error
from fleet.errors import FleetError, InputError, OutOfThreads, StorageError
from fleet.model.exitcodes import INTERRUPTED, MEANING, Exit

BROKEN_PIPE = 141
"""What a shell reports for a program that SIGPIPE ended; `fleet status | head -1` is not an error."""

# Name → (where the command lives, its line in the help). In the order of a working day, not of the alphabet.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("fleet.cli.demo:demo", "Run the whole job on embedded SSH hosts: no account, no Docker, no root."),
    "hosts": ("fleet.cli.hosts:hosts", "Show the inventory as resolved."),
    "trust": ("fleet.cli.trust:trust", "Show and pin an unknown host key; nothing is accepted silently."),
    "check": ("fleet.cli.check:check", "Check consistency and readiness of the hosts, one round trip each."),
    "sync": ("fleet.cli.sync:sync", "Put the critical files and scripts on the hosts, with backup and rollback."),
    "plan": ("fleet.cli.plan:plan", "Write an assignment: datasets x models x runs, minus what is already accepted."),
    "images": ("fleet.cli.images:images", "Check that the image archives are in S3, and who else can get at them."),
    "dispatch": ("fleet.cli.dispatch:dispatch", "Run every task of an assignment, one eval per host; again = resume."),
    "status": ("fleet.cli.status:status", "Show hosts and tasks as they are now."),
    "logs": ("fleet.cli.logs:logs", "Show or follow the log of a task's eval."),
    "cancel": ("fleet.cli.cancel:cancel", "End a task's processes and containers, and verify that they are gone."),
    "retry": ("fleet.cli.retry:retry", "Allow a new attempt of tasks that ended, beside the old one."),
    "release": ("fleet.cli.release:release", "Lift the quarantine of hosts, once they are repaired."),
    "collect": ("fleet.cli.collect:collect", "Bring back everything finished and not yet here, and validate it."),
    "recover": ("fleet.cli.recover:recover", "Rebuild a lost or damaged journal from the hosts and the results."),
    "validate": ("fleet.cli.validate:validate", "Judge result directories offline: accepted, flagged or rejected."),
    "validate-task": ("fleet.cli.validate_task:validate_task", "Tell whether tasks can be graded at all, by running them."),
    "lite": ("fleet.cli.lite:lite", "Run SWE-bench-style tasks on this machine, in seconds each."),
    "dashboard": ("fleet.cli.dashboard:dashboard", "Show the numbers of a batch."),
    "compare": ("fleet.cli.compare:compare", "Compare models or batches on the instances that they share."),
    "why": ("fleet.cli.why:why", "Explain a host or a task in one sentence, with the next command to type."),
    "schema": ("fleet.cli.schema:schema", "Print the JSON Schema of a document that fleet reads or writes."),
    "help": ("fleet.cli.help:help_command", "Show help about a command or topic, e.g. fleet help exit-codes."),
}

EXTRAS = {"demo": "demo", "compare": "stats"}
"""Commands that need more than the plain installation, and the extra that brings it."""


class LazyGroup(click.Group):
    """A group that imports a command only when it is run, and still knows all names for help and suggestions."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return all names without importing anything."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import and return the command, or None for a name that does not exist."""
        if cmd_name not in COMMANDS:
            return None
        module_name, attribute = COMMANDS[cmd_name][0].split(":")
        try:
            command = getattr(importlib.import_module(module_name), attribute)
        except ModuleNotFoundError as error:
            missing = error.name or module_name
            if missing.startswith("fleet"):
                raise InputError(f"fleet {cmd_name} is not part of this installation ({missing} is missing)") from error
            raise InputError(
                f"fleet {cmd_name} needs the Python package {missing!r}, which is not installed",
                hint=f"pip install 'fleet-evals[{EXTRAS[cmd_name]}]'" if cmd_name in EXTRAS else "pip install fleet-evals",
            ) from error
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown name with suggestions; click itself only suggests commands that it has imported."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS and not ctx.resilient_parsing:
            raise click.exceptions.NoSuchCommand(args[0], possibilities=self.list_commands(ctx), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the static table; click's own version would import every one of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the exit codes."""
        with formatter.section("Exit codes (they add up, 6 = 2 + 4)"):
            rows = [(str(int(code)), meaning) for code, meaning in MEANING.items()]
            formatter.write_dl([*rows, (str(INTERRUPTED), "interrupted")])


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        click.echo(f"fleet {__version__}")
        ctx.exit()


@click.command(
    "fleet",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    params=[
        click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version."
        ),
        *global_options(),
    ],
)
@click.pass_context
def cli(ctx: click.Context, /, **values: object) -> None:
    """Run exactly one eval per SSH host, never twice, and trust every result.

    \b
      fleet demo                             see the whole job on this machine, in a minute
      fleet check                            are the hosts ready?
      fleet dispatch assignments/phase8.json the main job; the same command again resumes
      fleet dashboard                        what came out
    """
    remember_globals(ctx, {name: values[name] for name in GLOBAL_NAMES})


def run(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; every error is shown here and nowhere else."""
    words = list(sys.argv[1:] if args is None else args)
    options = words[: words.index("--")] if "--" in words else words
    as_json, debug = "--json" in options, "--debug" in options
    try:
        try:
            code = _invoke(words)
            sys.stdout.flush()
        except FleetError as error:
            if debug:
                _traceback()
            show_error(error, as_json=as_json)
            return int(error.bit)
        except click.UsageError as error:
            show_error(_usage(error), as_json=as_json, code="usage")
            return int(Exit.INPUT)
        except click.ClickException as error:
            show_error(InputError(error.format_message()), as_json=as_json)
            return int(Exit.INPUT)
    except (KeyboardInterrupt, click.Abort, EOFError):
        with contextlib.suppress(OSError):
            click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of the pipe has gone; whatever is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if debug:
            _traceback()
        show_error(StorageError(str(error), hint="the same command with --debug shows where"), as_json=as_json)
        return int(Exit.LOCAL)
    except RuntimeError as error:
        if "start new thread" not in str(error):
            return _internal(error, as_json=as_json, debug=debug)
        show_error(OutOfThreads(), as_json=as_json)
        return int(Exit.LOCAL)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person gets a sentence, not a traceback
        return _internal(error, as_json=as_json, debug=debug)
    return code


def _internal(error: Exception, *, as_json: bool, debug: bool) -> int:
    if debug:
        _traceback()
    message = f"internal error: {type(error).__name__}: {error}"
    show_error(FleetError(message, hint="the same command with --debug shows where"), as_json=as_json, code="internal")
    return int(Exit.INCOMPLETE)


def _invoke(words: list[str]) -> int:
    if "_FLEET_COMPLETE" in os.environ:
        cli.main(args=words, prog_name="fleet", complete_var="_FLEET_COMPLETE")
    if not words:
        words = ["--help"]
    try:
        with cli.make_context("fleet", words) as ctx:
            result = cli.invoke(ctx)
    except click.exceptions.Exit as error:
        return error.exit_code
    return int(result or 0)


def _usage(error: click.UsageError) -> InputError:
    where = error.ctx.command_path if error.ctx is not None else "fleet"
    return InputError(error.format_message(), hint=f"{where} --help")


def _traceback() -> None:
    import traceback

    from fleet.model.names import plain

    # An exception may quote what a host sent: escapes for the terminal, or a key.
    for line in traceback.format_exc().split("\n"):
        click.echo(plain(line), err=True)


def _open_streams() -> None:
    """Give a process that was started without stdin, stdout or stderr the null device for them.

    Else the next file or connection gets such a number, and what is said goes into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            with contextlib.suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "w" if number else "r"))


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code.

    The process ends at once instead of tearing the interpreter down: commands close what they opened, a thread that still
    waits for a dead host must not delay the prompt, and the teardown is a fifth of a short command's time.
    """
    # Modules are made of long-lived objects: looking through them for garbage while 400 of them load is 4 % of a small check.
    gc.set_threshold(20_000, 20, 50)
    _open_streams()
    code = run(args)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
