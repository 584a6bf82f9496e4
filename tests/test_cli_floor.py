"""The command line: fast help, suggestions, global options anywhere, one envelope for errors, exit codes that add up."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from fleet.cli import main as main_module
from fleet.cli.main import COMMANDS, cli, run
from fleet.cli.options import GLOBAL_NAMES, Context, FleetCommand, fleet_command
from fleet.errors import AgentError, FleetError, HostKeyChanged, InputError, OwnedElsewhere, StorageError, Unreachable
from fleet.model.exitcodes import MEANING
from tests.support.catalogue import attack

HEAVY = ("pydantic", "paramiko", "rich", "yaml", "boto3", "asyncssh", "tenacity", "fleet.inventory", "fleet.transport")


def fleet(*words: str, **settings: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "fleet", *words], capture_output=True, text=True, timeout=30, env=environment, check=False
    )


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["chek"], ["help", "exit-codes"], ["check", "--help"]])
def test_help_and_suggestions_import_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fleet", *words], capture_output=True, text=True, timeout=30, check=False
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "click" in imported
    assert not [name for name in imported if name.startswith(HEAVY)]


def test_help_is_there_before_a_person_notices() -> None:
    def seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], capture_output=True, timeout=30, check=True)
        return time.perf_counter() - started

    bare = min(seconds("-c", "pass") for _ in range(5))
    helped = min(seconds("-m", "fleet", "--help") for _ in range(5))
    assert helped < max(0.150, 12 * bare)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_what_its_name_says_and_shows_an_example(name: str) -> None:
    module = COMMANDS[name][0].split(":")[0]
    assert importlib.util.find_spec(module) is not None
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, FleetCommand)
    assert command.name == name
    assert command.help
    assert command.example.startswith(f"fleet {name}")
    own = {parameter.name for parameter in command.params}
    assert own >= set(GLOBAL_NAMES)


@pytest.mark.parametrize(("typed", "meant"), [("chek", "check"), ("dispach", "dispatch"), ("dashbord", "dashboard")])
def test_a_typo_is_answered_with_the_command_that_was_meant(typed: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([typed]) == 1
    assert f"'{meant}'" in capsys.readouterr().err


def test_a_mistyped_option_is_answered_with_the_one_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema", "--jsn"]) == 1
    assert "--json" in capsys.readouterr().err


def test_no_words_show_the_help_and_so_does_dash_h(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == run(["-h"]) == run(["help"]) == 0
    texts = capsys.readouterr().out.split("Usage: fleet")
    assert len(texts) == 4
    assert all("dispatch" in text for text in texts[1:])


def test_the_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--help"], ["help", "exit-codes"]):
        assert run(words) == 0
        shown = capsys.readouterr().out
        assert all(f"\n  {int(code)} " in shown for code in MEANING)
        assert "\n  130 " in shown


def test_help_about_something_unknown_suggests(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["help", "exit-code"]) == 1
    assert "did you mean 'exit-codes'" in capsys.readouterr().err
    assert run(["help", "schema"]) == 0
    assert "JSON Schema" in capsys.readouterr().out


# --- commands of our own, put into the table for one test


Install = Callable[..., FleetCommand]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def put(function: Callable[[Context], int]) -> FleetCommand:
        command = fleet_command("probe", example="fleet probe")(function)
        monkeypatch.setattr(main_module, "probe_for_tests", command, raising=False)
        monkeypatch.setitem(COMMANDS, "probe", ("fleet.cli.main:probe_for_tests", "A command of a test."))
        return command

    return put


def test_global_options_count_before_and_after_the_command(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Context] = []
    install(lambda ctx: seen.append(ctx) or 0)
    monkeypatch.setenv("FLEET_HOSTS_FILE", "env.yaml")
    for words in (["--json", "--collected", "c", "probe"], ["probe", "--json", "--collected", "c"]):
        assert run(words) == 0
        assert (seen[-1].json, seen[-1].quiet, str(seen[-1].collected)) == (True, False, "c")
        assert seen[-1].hosts_file == Path("env.yaml")
    assert run(["--hosts-file", "a.yaml", "probe", "--hosts-file", "b.yaml", "-q"]) == 0
    assert seen[-1].hosts_file == Path("b.yaml")
    assert seen[-1].quiet
    monkeypatch.delenv("FLEET_HOSTS_FILE")
    assert run(["probe"]) == 0
    assert (seen[-1].hosts_file, seen[-1].collected) == (Path("hosts.yaml"), Path("collected"))


def test_the_returned_int_is_the_exit_code(install: Install) -> None:
    install(lambda _ctx: 6)
    assert run(["probe"]) == 6


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [
        (InputError("x"), "input", 1),
        (Unreachable("x", host="eval1"), "unreachable", 4),
        (HostKeyChanged("x", host="eval1"), "host-key-changed", 16),
        (AgentError("x", code="busy"), "agent-busy", 4),
        (StorageError("x"), "storage", 32),
        (OwnedElsewhere("x"), "owned-elsewhere", 64),
    ],
)
def test_an_error_has_one_envelope_and_its_own_exit_bit(
    error: FleetError, code: str, exit_code: int, install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_ctx: Context) -> int:
        raise error

    error.hint = "fleet check"
    install(fail)
    assert run(["probe", "--json"]) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err) == {
        "schema": "fleet.error/1",
        "code": code,
        "message": "x",
        "hint": "fleet check",
        "host": error.host,
    }
    assert run(["probe"]) == exit_code
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "  → fleet check"
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("words", [["--json", "chek"], ["schema", "--nope", "--json"], ["--json", "logs"]])
def test_a_usage_error_is_enveloped_too(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["code"] == "usage"


def test_an_unforeseen_error_is_one_sentence_and_a_traceback_only_when_asked(
    install: Install, capsys: pytest.CaptureFixture[str]
) -> None:
    install(lambda _ctx: 1 // 0)
    assert run(["probe"]) == 4
    captured = capsys.readouterr().err
    assert "internal error: ZeroDivisionError" in captured
    assert "Traceback" not in captured
    assert run(["probe", "--debug"]) == 4
    assert "Traceback" in capsys.readouterr().err


def test_an_error_of_this_machines_disk_is_local(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(lambda _ctx: len(Path("/nowhere/at/all").read_bytes()))
    assert run(["probe"]) == 32
    assert "/nowhere/at/all" in capsys.readouterr().err


def test_an_interruption_is_130(install: Install) -> None:
    def interrupt(_ctx: Context) -> int:
        raise KeyboardInterrupt

    install(interrupt)
    assert run(["probe"]) == 130


@attack("S12")
def test_foreign_text_in_an_error_cannot_drive_the_terminal(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(_ctx: Context) -> int:
        raise InputError("bad \x1b]0;owned\x07 name\nsecond line", hint="\x1b[2J")

    install(fail)
    assert run(["probe"]) == 1
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "second line" in shown


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m fleet schema journal | head -c 1 >/dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() in ("0", "141")
    assert done.stderr == ""


def test_json_is_one_document_and_quiet_is_silent(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    def say(ctx: Context) -> int:
        ctx.talk("talk")
        ctx.emit("fleet.probe/1", {"text": "é\ud800", "number": float("nan")}, lambda console: console.print("table"))
        return 0

    install(say)
    assert run(["probe", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"schema": "fleet.probe/1", "text": "é\ud800", "number": None}
    assert captured.err == ""
    assert run(["probe", "-q"]) == 0
    assert capsys.readouterr() == ("", "")
    assert run(["probe"]) == 0
    assert capsys.readouterr() == ("table\n", "talk\n")


def test_python_dash_m_is_the_same_command() -> None:
    done = fleet("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "fleet")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    environment = {**os.environ, "_FLEET_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [sys.executable, "-m", "fleet"], capture_output=True, text=True, timeout=30, env=environment, check=False
    )
    assert done.returncode == 0
    assert "_FLEET_COMPLETE" in done.stdout
