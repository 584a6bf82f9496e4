"""What a user can type or be shown is documented: every command, option, exit code, failure class, verdict code and check."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fleet.audit.document import CODES as AUDIT_CODES
from fleet.checks.registry import AGENT, CHECKS, GROUP_OF
from fleet.cli.help import ENVIRONMENT, TOPICS
from fleet.cli.main import COMMANDS, cli
from fleet.cli.options import GLOBAL_NAMES
from fleet.cli.schema import DOCUMENTS, schema_of
from fleet.model.exitcodes import MEANING, Exit
from fleet.model.failures import FAILURES
from fleet.model.verdict import Cause
from fleet.quality.causes import CONSEQUENCES
from fleet.quality.rules import RULES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def section(command: str) -> str:
    match = re.search(rf"^## fleet {command}$(.*?)(?=^## |^---$|\Z)", text("commands.md"), re.DOTALL | re.MULTILINE)
    assert match is not None, f"docs/commands.md has no section `## fleet {command}`"
    return match[1]


def rows(name: str) -> dict[str, list[str]]:
    """Return the table rows of a document by their first cell, without its backticks."""
    cells = [
        [cell.strip() for cell in line.strip("|\n").split("|")] for line in text(name).splitlines() if line.startswith("|")
    ]
    return {row[0].strip("`"): row for row in cells}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_documented(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    documented = section(name)
    assert f"fleet {name}" in documented
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in GLOBAL_NAMES and not parameter.hidden:
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert f"`{option}" in documented, f"fleet {name} {option} is not in docs/commands.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_documented_that_does_not_exist(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    table = [line for line in section(name).splitlines() if line.startswith("| `-")]
    documented = {option for line in table for option in re.findall(r"`(--?[a-z][a-z-]*)", line.split("|")[1])}
    assert documented <= known


def test_the_global_options_are_documented() -> None:
    documented = text("commands.md")
    options = [option for parameter in cli.params for option in parameter.opts]
    assert options
    assert [option for option in options if f"`{option}" not in documented] == []


def test_every_exit_code_is_documented_with_its_meaning() -> None:
    documented = rows("commands.md")
    for code, meaning in MEANING.items():
        first_words = " ".join(meaning.replace("`", "").split()[:3])
        assert documented[str(int(code))][1].replace("`", "").startswith(first_words)
    assert documented["130"][1] == "interrupted"
    assert set(MEANING) == set(Exit) | {Exit.OK}


def test_every_failure_class_is_documented_as_it_is() -> None:
    documented = rows("commands.md")
    for name, failure in FAILURES.items():
        _, blame, helps, line = documented[name]
        assert (blame, helps, line) == (failure.blame, "yes" if failure.retryable else "no", failure.line)


def test_every_check_is_documented_in_its_column() -> None:
    documented = rows("checks.md")
    for check in CHECKS:
        assert documented[check.name][1] == check.group
    assert AGENT in documented
    names = {name for name in documented if name not in ("check", "", AGENT) and not set(name) <= set("-")}
    assert names == set(GROUP_OF)


def test_every_verdict_code_is_documented() -> None:
    documented = text("verdicts.md")
    assert [rule.code for rule in RULES if f"\n### {rule.code}\n" not in documented] == []


def test_every_cause_is_documented_with_what_follows_from_it() -> None:
    documented = rows("verdicts.md")
    for cause, follows in CONSEQUENCES.items():
        said = [str(cause), "yes" if follows.retry else "no", "yes" if follows.grade else "no", follows.do]
        assert documented[str(cause)] == said
    assert set(CONSEQUENCES) == set(Cause)


def test_every_finding_about_a_batch_is_documented() -> None:
    documented = rows("verdicts.md")
    assert [code for code in AUDIT_CODES if code not in documented] == []


def test_every_help_topic_and_environment_variable_is_documented() -> None:
    documented = "".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *DOCS.glob("*.md")])
    assert [topic for topic in TOPICS if topic not in documented] == []
    assert [name for name, _ in ENVIRONMENT if name not in documented] == []


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_is_published_and_documented(name: str) -> None:
    schema = schema_of(name)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "properties" in schema or "oneOf" in schema or "anyOf" in schema
    assert f"`{name}`" in section("schema")


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path.name}: {target}"
        for path in [ROOT / "README.md", ROOT / "SECURITY.md", *DOCS.glob("*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


def test_the_tests_that_security_md_names_are_there() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).is_file()] == []
