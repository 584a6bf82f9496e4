"""What every command shares: the global options, and the Context through which it reaches the rest of fleet.

The heavy rooms (inventory, transport) are imported when a command first asks for them, never at import time of this module.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleet.cli import output

if TYPE_CHECKING:
    from rich.console import Console

    from fleet.agent import AgentClient
    from fleet.inventory import Inventory
    from fleet.inventory.pipelines import Pipelines
    from fleet.model.hosts import Host
    from fleet.transport import Connector

HOSTS_FILE = "hosts.yaml"
COLLECTED = "collected"
GLOBAL_NAMES = ("json", "quiet", "hosts_file", "collected", "debug", "no_color")
_KEY = "fleet.globals"


def global_options() -> list[click.Option]:
    """Return the options that every command takes, before or after its name."""
    return [
        click.Option(["--json", "json"], is_flag=True, help="One JSON document (or JSON lines) on stdout."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Say nothing but errors; the exit code tells."),
        click.Option(["--hosts-file"], metavar="FILE", help=f"The inventory; else $FLEET_HOSTS_FILE, else {HOSTS_FILE}."),
        click.Option(["--collected"], metavar="DIR", help=f"Where results are; else $FLEET_COLLECTED, else {COLLECTED}."),
        click.Option(["--no-color"], is_flag=True, help="No colour; so does NO_COLOR."),
        click.Option(["--debug"], is_flag=True, help="Show a traceback with an error."),
    ]


def remember_globals(ctx: click.Context, values: Mapping[str, Any]) -> None:
    """Keep what was given before the command's name: `fleet --json check` is `fleet check --json`."""
    ctx.meta[_KEY] = dict(values)


class Context:
    """What a command gets: where things are, how to speak, and lazily the inventory, the pipelines and the connections."""

    def __init__(self, values: Mapping[str, Any], on_close: Callable[[Callable[[], object]], object] | None = None) -> None:
        self.json: bool = bool(values.get("json"))
        self.quiet: bool = bool(values.get("quiet"))
        self.debug: bool = bool(values.get("debug"))
        self.no_color: bool = bool(values.get("no_color"))
        self.hosts_file = Path(values.get("hosts_file") or os.environ.get("FLEET_HOSTS_FILE") or HOSTS_FILE)
        self.collected = Path(values.get("collected") or os.environ.get("FLEET_COLLECTED") or COLLECTED)
        self._on_close = on_close
        self._inventory: Inventory | None = None
        self._pipelines: Pipelines | None = None
        self._connector: Connector | None = None

    @property
    def interactive(self) -> bool:
        """Whether a person is watching: both streams are a terminal and the answer is not for a program."""
        return not self.json and not self.quiet and sys.stdout.isatty() and sys.stderr.isatty()

    def inventory(self) -> Inventory:
        """Return the inventory of `hosts_file`; read once."""
        if self._inventory is None:
            from fleet.inventory import load_inventory

            self._inventory = load_inventory(self.hosts_file)
        return self._inventory

    def pipelines(self) -> Pipelines:
        """Return the pipelines found beside the work directory and the package."""
        if self._pipelines is None:
            from fleet.inventory.pipelines import Pipelines, default_roots

            self._pipelines = Pipelines(default_roots())
        return self._pipelines

    def connector(self) -> Connector:
        """Return the SSH connector; whatever it opened is closed when the command ends."""
        if self._connector is None:
            from fleet.transport import SshConnector

            self._connector = SshConnector(self.inventory().defaults)
            if self._on_close is not None:
                self._on_close(self._connector.close)
        return self._connector

    def agent(self, host: Host, host_uid: str) -> AbstractContextManager[AgentClient]:
        """Return the calls of a host's agent over a connection of their own, refused by any machine but the known one.

        Commands have no other way to an agent, so that none forgets to say whom it means; see fleet.dispatch.files.machines.
        """
        from fleet.agent import agent_on
        from fleet.inventory.pipelines import agent_source

        return agent_on(self.connector(), host, agent_source(), host_uid)

    def emit(self, schema: str, body: Mapping[str, Any], render: Callable[[Console], None]) -> None:
        """Write the command's answer to stdout: one JSON document, nothing, or what `render` prints."""
        if self.json:
            output.write_json({"schema": schema, **body})
        elif not self.quiet:
            render(self.console())

    def emit_text(self, schema: str, body: Mapping[str, Any], text: Callable[[], str]) -> None:
        """Write the command's answer like `emit`, for commands that format their own text and spare the import of rich."""
        if self.json:
            output.write_json({"schema": schema, **body})
        elif not self.quiet:
            output.write_text(text())

    def emit_line(self, body: Mapping[str, Any], text: str) -> None:
        """Write one line of a stream to stdout, as JSON or as text, and flush it."""
        if self.json:
            output.write_json(body)
        elif not self.quiet:
            output.write_text(text)

    def talk(self, text: str) -> None:
        """Say something on stderr; silent with --quiet and --json."""
        if not self.quiet and not self.json:
            click.echo(output.harmless(text), err=True)

    def console(self, *, stderr: bool = False) -> Console:
        """Return a rich console; plain and wide when the stream is not a terminal."""
        return output.console(stderr=stderr, no_color=self.no_color)

    def style(self, *, stderr: bool = False) -> output.Style:
        """Return the colours of a stream: none when it is not a terminal, with NO_COLOR or with --no-color."""
        return output.Style(output.wants_color(sys.stderr if stderr else sys.stdout, no_color=self.no_color))


class FleetCommand(click.Command):
    """A command that shows its example, and the global options in a section of their own."""

    def __init__(self, *args: Any, example: str, greedy: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.greedy = greedy
        """Options that take every word up to the next option: a shell expands `--datasets data/*.json` to many words."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat a greedy option before each of its words, then parse as usual."""
        words: list[str] = []
        option: str | None = None
        for word in args:
            if word.startswith("-") and word != "-":
                option = word if word in self.greedy else None
                words += [] if option else [word]
            else:
                words += [option, word] if option else [word]
        return super().parse_args(ctx, words)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then the global ones."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and (record[1] or isinstance(parameter, click.Option)):
                (shared if parameter.name in GLOBAL_NAMES or parameter.name == "help" else own).append(record)
        for title, rows in (("Options", own), ("Global options", shared)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the example as it is typed."""
        with formatter.section("Example" if "\n" not in self.example else "Examples"):
            for line in self.example.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")


def fleet_command(name: str, *, example: str, **settings: Any) -> Callable[[Callable[..., int]], FleetCommand]:
    """Make a command of a function `(ctx: Context, …) -> int`; the returned int is the exit code.

    Put it above the `@click.argument` and `@click.option` decorators; the docstring is the help.
    """

    def decorate(function: Callable[..., int]) -> FleetCommand:
        def callback(**values: Any) -> int:
            click_context = click.get_current_context()
            outer: dict[str, Any] = click_context.meta.get(_KEY, {})
            merged = {option: values.pop(option) or outer.get(option) for option in GLOBAL_NAMES}
            return int(function(Context(merged, click_context.call_on_close), **values))

        own: list[click.Parameter] = list(reversed(getattr(function, "__click_params__", [])))
        return FleetCommand(
            name,
            callback=callback,
            params=[*own, *global_options()],
            help=function.__doc__,
            example=example,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
            **settings,
        )

    return decorate
