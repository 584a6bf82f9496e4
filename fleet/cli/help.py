"""`fleet help [TOPIC]`: a command's help, or one of the topics that belong to no single command."""

from __future__ import annotations

import click

from fleet.cli.options import Context, fleet_command
from fleet.errors import InputError
from fleet.model.exitcodes import INTERRUPTED, MEANING

TOPICS = ("exit-codes", "environment", "host-patterns")

ENVIRONMENT = (
    ("FLEET_HOSTS_FILE", "the inventory, when --hosts-file is not given"),
    ("FLEET_COLLECTED", "where results are, when --collected is not given"),
    ("FLEET_REMOTE_SCRIPTS", "a directory of pipelines that is searched first"),
    ("NO_COLOR", "no colour when set and not empty"),
    ("_FLEET_COMPLETE", "bash_source, zsh_source or fish_source prints the shell completion"),
)

PATTERNS = (
    ("eval1", "the host of that name"),
    ("eval*", "every host whose name matches"),
    ("eval[1-6]", "a range"),
    ("@gpu", "every host of a group"),
    ("!eval3", "not this one"),
)


@fleet_command("help", example="fleet help exit-codes\nfleet help dispatch")
@click.argument("topic", required=False)
def help_command(_ctx: Context, topic: str | None) -> int:
    """Show help about a command, or about exit-codes, environment or host-patterns."""
    click_context = click.get_current_context()
    root = click_context.find_root()
    group = root.command
    assert isinstance(group, click.Group)
    if topic is None:
        click.echo(group.get_help(root))
    elif topic == "exit-codes":
        rows = [(str(int(code)), meaning) for code, meaning in MEANING.items()]
        _topic("Exit codes; all but 0, 1 and 130 are bits that add up (6 = 2 + 4)", [*rows, (str(INTERRUPTED), "interrupted")])
    elif topic == "environment":
        _topic("Environment variables", list(ENVIRONMENT))
    elif topic == "host-patterns":
        _topic("HOST patterns; several are united, exclusions are taken away", list(PATTERNS))
    elif topic in group.list_commands(root):
        command = group.get_command(root, topic)
        assert command is not None
        with command.context_class(command, info_name=topic, parent=root) as context:
            click.echo(command.get_help(context))
    else:
        from difflib import get_close_matches

        close = get_close_matches(topic, [*TOPICS, *group.list_commands(root)], n=1)
        raise InputError(
            f"no help about {topic!r}" + (f", did you mean {close[0]!r}?" if close else ""),
            hint=f"fleet help {{{','.join(TOPICS)}}}, or fleet COMMAND --help",
        )
    return 0


def _topic(title: str, rows: list[tuple[str, str]]) -> None:
    formatter = click.HelpFormatter(max_width=120)
    with formatter.section(title):
        formatter.write_dl(rows)
    click.echo(formatter.getvalue(), nl=False)
