"""The house stays the house: arrows go down only, foreign libraries stay in their rooms, files stay short and portable."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
AGENT = "remote_scripts/fleet_host.py"

FLOORS = (
    {"__main__"},
    {"cli", "testing"},
    {"demo"},
    {"audit", "compare", "dashboard"},
    {"dispatch"},
    {"collect", "plan", "sync"},
    {"checks"},
    {"agent", "quality"},
    {"transport", "inventory"},
    {"aws"},
    {"model", "errors", "__init__"},
)
"""From the top down. A room imports from floors below its own; the ground floor's rooms may also use one another."""

NARROW = {
    ("dashboard", "dispatch"): {"files.batch", "files.journal", "answers.images", "answers.resume", "state"},
    ("audit", "dispatch"): {"state"},
    ("compare", "dispatch"): {"files.batch", "state"},
}
"""Where only some modules of a room may be used."""

DISPATCH_FLOORS = ({"recovery"}, {""}, {"answers"}, {"files", "rules"}, {"state"})
"""The rooms inside `dispatch`, from the top down; its own files are on the floor without a name."""

HOMES = {
    "paramiko": ("transport/",),
    "fabric": ("transport/",),
    "invoke": ("transport/",),
    "boto3": ("aws/",),
    "botocore": ("aws/",),
    "asyncssh": ("demo/",),
    "click": ("cli/",),
    "numpy": ("compare/statistics",),
    "scipy": ("compare/statistics",),
    "statsmodels": ("compare/statistics",),
    "rich": ("cli/", "dashboard/terminal", "dashboard/live"),
}
"""The rooms, or files, that may import a library."""

MAX_LINES = 400


@cache
def tracked(pattern: str = "*") -> tuple[Path, ...]:
    """Return the files that git tracks and that are there."""
    names = subprocess.run(["git", "ls-files", pattern], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(ROOT / name for name in names.splitlines() if (ROOT / name).is_file())


@cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """Return the dotted names that a file imports, wherever in it, and the line."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(found)


def fleet_imports() -> Iterator[tuple[str, str, int]]:
    """Yield (file below fleet/, imported dotted name, line)."""
    for path in tracked("fleet/**.py"):
        for name, line in imports(path):
            yield path.relative_to(ROOT / "fleet").as_posix(), name, line


def room_of(file: str) -> str:
    """Return the room of a file below fleet/."""
    return file.split("/")[0].removesuffix(".py")


def floor_of(room: str) -> int:
    """Return how far from the top a room is."""
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def wrong_arrow(file: str, name: str) -> bool:
    """Tell whether an import of ours goes up or sideways."""
    parts = name.split(".")
    if parts[0] != "fleet" or parts[1:2] in ([], ["__version__"]) or parts[1] == room_of(file):
        return False
    here, there = room_of(file), parts[1]
    if (here, there) in NARROW:
        return not NARROW[here, there] & {parts[2], ".".join(parts[2:4])}
    ground = len(FLOORS) - 1
    return floor_of(there) <= floor_of(here) and not floor_of(there) == floor_of(here) == ground


def room_in_dispatch(parts: list[str]) -> str:
    """Return the room inside `dispatch` of a module, "" for its own files."""
    return parts[0] if (ROOT / "fleet" / "dispatch" / parts[0]).is_dir() else ""


def wrong_arrow_in_dispatch(file: str, name: str) -> bool:
    """Tell whether an import inside `dispatch` goes up or sideways."""
    parts = name.split(".")
    if not file.startswith("dispatch/") or parts[:2] != ["fleet", "dispatch"]:
        return False
    here, there = (
        next(number for number, rooms in enumerate(DISPATCH_FLOORS) if room_in_dispatch(place) in rooms)
        for place in (file.split("/")[1:], parts[2:])
    )
    return there < here or (there == here and room_in_dispatch(file.split("/")[1:]) != room_in_dispatch(parts[2:]))


def test_every_room_is_on_a_floor() -> None:
    rooms = {room_of(path.relative_to(ROOT / "fleet").as_posix()) for path in tracked("fleet/**.py")}
    assert rooms <= set().union(*FLOORS)
    inside = {
        room_in_dispatch([path.name, *path.parts]) for path in (ROOT / "fleet" / "dispatch").iterdir() if path.name[0] != "_"
    }
    assert inside == set().union(*DISPATCH_FLOORS)


def test_arrows_go_down_only() -> None:
    wrong = [
        f"fleet/{file}:{line}: {name}"
        for file, name, line in fleet_imports()
        if wrong_arrow(file, name) or wrong_arrow_in_dispatch(file, name)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model/task.py", "fleet.transport.Connector"),
        ("transport/ssh.py", "fleet.cli.main.main"),
        ("inventory/a.py", "fleet.transport.Connector"),
        ("collect/pull.py", "fleet.dispatch.files.journal.Journal"),
        ("dashboard/web.py", "fleet.dispatch.runner.run"),
        ("dashboard/web.py", "fleet.dispatch.files.collected.known"),
        ("dispatch/state/views.py", "fleet.dispatch.rules.scheduler.decide"),
        ("dispatch/rules/scheduler.py", "fleet.dispatch.files.journal.Journal"),
        ("dispatch/controller.py", "fleet.dispatch.recovery.recover.recover"),
    ],
)
def test_an_arrow_that_goes_up_or_sideways_is_noticed(file: str, name: str) -> None:
    assert wrong_arrow(file, name) or wrong_arrow_in_dispatch(file, name)


@pytest.mark.parametrize("library", sorted(HOMES))
def test_a_library_is_imported_only_in_its_room(library: str) -> None:
    strays = [
        f"fleet/{file}:{line}"
        for file, name, line in fleet_imports()
        if name.split(".")[0] == library and not file.startswith(HOMES[library])
    ]
    assert strays == []


def test_the_ground_floor_does_no_input_or_output() -> None:
    outside = {"subprocess", "socket", "threading", "urllib", "http", "asyncio"}
    strays = [(file, name) for file, name, _ in fleet_imports() if room_of(file) == "model" and name.split(".")[0] in outside]
    assert strays == []


def test_what_runs_on_a_host_needs_the_standard_library_of_python_3_8_alone() -> None:
    agent = ROOT / AGENT
    ast.parse(agent.read_text(), feature_version=(3, 8))
    assert [name for name, _ in imports(agent) if name.split(".")[0] not in sys.stdlib_module_names] == []


def test_no_file_grows_past_its_room() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.read_text().count("\n") for path in tracked("*.py")}
    assert {name: lines for name, lines in sizes.items() if lines > MAX_LINES and name != AGENT} == {}


FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.~-])/(work|farm|root|Users|home/(?!ubuntu/)[a-z]+)/",
            r"pypi\.org/simple|files\.pythonhosted|registry\.npmjs|deb\.debian|archive\.ubuntu|registry-1\.docker|ghcr\.io|quay\.io",
        ]
    )
)
UNFINISHED = re.compile("|".join([r"\bTO" + "DO\\b", r"\bFIX" + "ME\\b", "NotImplemented" + "Error", r"pytest\.sk" + "ip\\("]))


def lines_with(pattern: re.Pattern[str], *folders: str) -> list[str]:
    """Return the places in tracked text files (below `folders`) where a pattern is found."""
    found = []
    for path in tracked():
        name = path.relative_to(ROOT).as_posix()
        data = path.read_bytes()
        if path == Path(__file__).resolve() or b"\0" in data or (folders and not name.startswith(folders)):
            continue
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name}:{number}: {line.strip()[:120]}")
    return found


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    assert lines_with(FOREIGN) == []


def test_nothing_is_left_unfinished_or_skipped() -> None:
    assert lines_with(UNFINISHED, "fleet/", "remote_scripts/", "tests/") == []


def test_whoever_talks_to_an_agent_says_which_machine_is_meant() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in tracked("fleet/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AgentClient"
    }
    assert makers == {"fleet/agent/client.py", "fleet/dispatch/executor.py"}, "use agent_on, with_client or Context.agent"
