"""What the documents show is true: examples parse with the real models, command lines exist, every key and link is there."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from fleet.checks.document import CheckDocument
from fleet.cli.documents import ErrorDocument, StatusDocument
from fleet.cli.main import COMMANDS, cli, run
from fleet.cli.options import FleetCommand
from fleet.collect.manifest import ResultManifest
from fleet.collect.outcome import Result
from fleet.collect.provenance import Provenance
from fleet.dashboard.export import COLUMNS
from fleet.dashboard.figures import Fate, Figures, Summary
from fleet.dispatch.files.journal import Journal
from fleet.inventory.hosts_file import DefaultFields, GroupFields, HostFields, HostsFile, JumpFields
from fleet.model.assignment import Entry, read_assignment
from fleet.model.base import parse
from fleet.model.dataset import read_dataset
from fleet.model.failures import FailureClass
from fleet.model.pipeline import FIELDS, Pipeline
from fleet.model.records import KNOWN_TYPES, AnyRecord, record_from
from fleet.model.states import AttemptState, Link, TaskState
from fleet.model.verdict import Facts, Reason, Verdict
from tests.support.batches import Batch, task

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "collected" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(r"^<!-- example: ([a-z-]+) -->\n```(?:json|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^```[^\n]*\n.*?^```$", re.DOTALL | re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    match = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text(page), re.DOTALL | re.MULTILINE)
    assert match is not None, f"docs/{page} has no section {title}"
    return match[1]


def words(markdown: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", markdown))


def examples(kind: str) -> list[str]:
    found = [match[2] for page in PAGES for match in EXAMPLE.finditer(page.read_text("utf-8")) if match[1] == kind]
    assert found, f"no example of {kind}"
    return found


# --- links


def anchor(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    plain = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(line.lstrip("#")) for line in FENCE.sub("", page.read_text("utf-8")).splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text("utf-8"))):
        if "://" in target:
            continue
        name, _, fragment = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            broken.append(target)
    assert broken == []


# --- examples


def test_examples_of_files_that_people_write_are_accepted() -> None:
    for example in examples("hosts"):
        parse(HostsFile, yaml.safe_load(example), "example")
    for example in examples("pipeline"):
        parse(Pipeline, yaml.safe_load(example), "example")
    for example in examples("assignment"):
        assert read_assignment(example.encode(), "example", "").entries
    for example in examples("dataset"):
        assert read_dataset(example.encode(), "example").fail_to_pass


def test_the_pipelines_that_are_shipped_are_accepted() -> None:
    for path in (ROOT / "remote_scripts").glob("*/pipeline.yaml"):
        assert parse(Pipeline, yaml.safe_load(path.read_text("utf-8")), str(path)).name == path.parent.name


def test_examples_of_what_fleet_writes_are_what_it_writes() -> None:
    for example in examples("journal"):
        for line in example.splitlines():
            document = json.loads(line)
            record = record_from(document)
            assert record is not None
            assert set(document) - {"v"} <= set(type(record).model_fields)
    for example in examples("manifest"):
        assert set(json.loads(example)) == keys(ResultManifest)
        ResultManifest.model_validate_json(example)
    for example in examples("check"):
        CheckDocument.model_validate_json(example)
    for example in examples("verdict"):
        document = json.loads(example)
        assert set(document) == {"schema", "results", "summary"}
        for result in document["results"]:
            assert Verdict.model_validate(result)
            assert set(result["facts"]) == set(Facts.model_fields)
            assert all(set(reason) == set(Reason.model_fields) for reason in result["reasons"])
    for example in examples("error"):
        ErrorDocument.model_validate_json(example)
    for example in examples("status"):
        StatusDocument.model_validate_json(example)


def test_the_examples_of_status_and_plan_have_the_keys_of_the_real_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "phase8"
    directory.mkdir()
    batch = Batch([task("1319603449576684")])
    batch.ready()
    batch.launch(batch.tasks[0])
    Journal(directory / "journal.jsonl").append(*batch.records)
    assert run(["status", "phase8", "--offline", "--json", "--collected", str(tmp_path)]) == 0
    same_shape(json.loads(capsys.readouterr().out), json.loads(examples("status")[0]))

    hosts = tmp_path / "hosts.yaml"
    hosts.write_text("hosts:\n" + "".join(f"  eval{number}: {{address: 192.0.2.{number}}}\n" for number in range(1, 5)))
    words = ["dispatch", str(ROOT / "assignments" / "phase8.json"), "--dry-run", "--json", "--hosts-file", str(hosts)]
    assert run([*words, "--collected", str(tmp_path / "none")]) == 0
    same_shape(json.loads(capsys.readouterr().out), json.loads(examples("dispatch-plan")[0]))


def same_shape(real: Any, shown: Any) -> None:
    """Compare keys; of a list its first item, and of a mapping by place its first value."""
    if isinstance(real, dict) and "eval1" in real:
        real, shown = real["eval1"], shown["eval1"]
    if isinstance(real, list):
        assert isinstance(shown, list)
        if real and shown:
            same_shape(real[0], shown[0])
    elif isinstance(real, dict):
        assert set(real) == set(shown)
        for key, value in real.items():
            same_shape(value, shown[key])


# --- command lines


def command_lines() -> Iterator[tuple[str, str]]:
    """Yield every `fleet …` line of the documents: those of code blocks, and those in backticks."""
    for page in PAGES:
        markdown = page.read_text("utf-8")
        where = page.relative_to(ROOT).as_posix()
        for block in re.findall(r"^```(?:console|sh|bash)\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                if line.startswith("$ fleet "):
                    yield where, line.removeprefix("$ ")
        for line in re.findall(r"`(fleet [^`\n]+)`", FENCE.sub("", markdown)):
            yield where, line


def complaint(line: str, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return what click has to say about a command line, or None; nothing is run."""
    parts = shlex.split(re.split(r" \| | > | && ", line.replace("[", "").replace("]", ""))[0], comments=True)[1:]
    parts = [part for part in parts if part not in ("…", "NAME/1")]
    flags = [part for part in parts if part.startswith("-")]
    if not parts or parts == flags:
        return None if all(flag in [name for option in cli.params for name in option.opts] for flag in flags) else "no option"
    name = next(part for part in parts if not part.startswith("-"))
    if name == "COMMAND":
        return None
    if name not in COMMANDS:
        return f"no command {name}"
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, FleetCommand)
    rest: list[str] = []
    # What the command makes of its words, before click looks at types and files.
    monkeypatch.setattr(click.Command, "parse_args", lambda self, ctx, args: rest.extend(args) or [])
    context = click.Context(command, info_name=name)
    command.parse_args(context, parts[parts.index(name) + 1 :])
    try:
        _, left, _ = command.make_parser(context).parse_args(rest)
    except click.UsageError as error:
        return error.format_message()
    return f"too many words: {left}" if left else None


def test_every_command_line_in_the_documents_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = list(command_lines())
    assert len(lines) > 100
    found = [(where, line, complaint(line, monkeypatch)) for where, line in lines]
    assert [item for item in found if item[2] is not None] == []


@pytest.mark.parametrize("line", ["fleet chekc", "fleet check --referense DIR", "fleet dashboard a b", "fleet --versoin"])
def test_a_command_line_that_cannot_be_typed_is_noticed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint(line, monkeypatch) is not None


# --- keys


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def dotted(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key of a model and of those inside it: `disk.min_free_gb`, `critical[].path`."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        nested = next((one for one in inner if issubclass(one, BaseModel)), None)
        if nested is None:
            yield key
        elif nested is field.annotation:
            yield from dotted(nested, f"{key}.")
        else:
            yield key
            yield from dotted(nested, f"{key}[].")


def test_every_key_of_hosts_yaml_is_explained() -> None:
    known = words(section("set-up-hosts.md", "hosts.yaml"))
    models = (HostFields, GroupFields, DefaultFields, JumpFields)
    assert set().union(*(keys(model) for model in models)) - known == set()
    assert keys(HostsFile) == {"defaults", "hosts", "groups"}


def test_every_key_of_pipeline_yaml_is_explained_with_its_place() -> None:
    known = words(section("formats.md", "pipeline.yaml"))
    assert set(dotted(Pipeline)) - known == set()
    assert {f"{{{name}}}" for name in FIELDS} - known == set()


def test_every_key_of_an_assignment_is_explained() -> None:
    assert keys(Entry) - words(section("formats.md", "assignment")) == set()


def test_every_journal_record_and_its_keys_are_explained() -> None:
    table = {
        cells[1].strip(" `"): words(cells[2])
        for line in section("formats.md", "journal.jsonl").splitlines()
        if len(cells := line.split("|")) == 5
    }
    assert KNOWN_TYPES - set(table) == set()
    for model in get_args(AnyRecord):
        shown = table[model.model_fields["type"].default]
        assert shown == set(TypeAdapter(model).json_schema()["properties"]) - {"t", "type"}
    assert {str(state) for state in AttemptState} - words(section("formats.md", "journal.jsonl")) == set()


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("fleet.json", keys(Provenance)),
        ("manifest.json", keys(ResultManifest)),
        ("summary.json", keys(Summary) | keys(Figures) | keys(Fate)),
        ("results.csv", set(COLUMNS)),
        ("Documents of commands", {field.name for field in fields(Result)} - {"bit"}),
    ],
)
def test_every_key_of_what_fleet_writes_is_explained(title: str, wanted: set[str]) -> None:
    assert wanted - words(section("formats.md", title)) == set()


def test_every_state_link_failure_and_schema_is_explained() -> None:
    page = words(text("when-things-go-wrong.md"))
    for members in (TaskState, Link, FailureClass):
        assert {str(member) for member in members} - page == set()
    schemas = {
        schema
        for path in (ROOT / "fleet" / "cli").glob("*.py")
        for schema in re.findall(r'"(fleet\.[a-z-]+/1)"', path.read_text("utf-8"))
    }
    assert schemas - words(text("formats.md")) == set()
