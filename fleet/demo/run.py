"""Plays the demo: the same commands that an operator types, on hosts inside this process, one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.demo import scenario
from fleet.demo.docker import IMAGE, Engine, find_engine
from fleet.demo.embedded import EmbeddedHosts, server_library
from fleet.demo.shown import Played, Point, rates, read_batch, rehearsal_points, story_points
from fleet.errors import InputError
from fleet.inventory.pipelines import Pipelines
from fleet.model.exitcodes import INTERRUPTED
from fleet.model.states import TaskState

TOOLS = {"git": "git", "rsync": "rsync", "ssh": "openssh-client"}
FILES_PER_HOST = 16
"""Descriptors that one embedded host can need at once: both ends of its connection, and the pipes of its commands."""
STORY_WHY = """The main job: eight tasks, one eval per host at a time; a host that is not ready blocks its own tasks only.
It ends with the dashboard."""
REHEARSAL_WHY = """One eval per host, all of them on this machine: the repository and the environment are made once and shared.
It ends with the dashboard."""
Invoke = Callable[[Sequence[str]], int]
"""Runs one fleet command line in this process and returns its exit code."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """One command of the demo, as it was run."""

    command: str
    exit_code: int
    seconds: float


@dataclass
class Demo:
    """The stage: where everything is, and what has been run so far."""

    directory: Path
    invoke: Invoke
    say: Say
    engine: Engine | None = None
    """Docker, where the evals run in it."""
    steps: list[Step] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def collected(self) -> Path:
        """Where the results are."""
        return self.directory / "collected"

    @property
    def pipeline(self) -> str:
        """What the hosts run."""
        return scenario.DOCKER_PIPELINE if self.engine else scenario.PIPELINE

    @property
    def missing(self) -> list[Point]:
        """What should have been shown and was not."""
        return [point for point in self.points if not point.ok]

    @property
    def commands(self) -> list[str]:
        """What can be typed in the demo's directory afterwards, without hosts."""
        rejected = [f"fleet why {told.label}" for told in scenario.STORY if told.state is TaskState.REJECTED]
        named = {point.subject for point in self.points}
        return [
            f"fleet dashboard {scenario.BATCH}",
            *(command for command in rejected if command.split()[-1] in named),
            f"fleet validate collected/{scenario.BATCH}",
        ]

    def run(self, *words: str, why: str = "") -> Step:
        """Say why, show the command, run it."""
        shown = "fleet " + " ".join(self._shown(word) for word in words)
        self.say(f"\n{why}" if why else "")
        self.say(f"$ {shown}")
        begun = time.monotonic()
        code = self.invoke([*words, "--hosts-file", str(self.directory / "hosts.yaml"), "--collected", str(self.collected)])
        step = Step(shown, code, time.monotonic() - begun)
        self.steps.append(step)
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return step

    def _shown(self, word: str) -> str:
        """Show paths below the demo's directory as they look from inside it."""
        return word.removeprefix(f"{self.directory}/")


def require(hosts: int | None, keep: Path | None) -> None:
    """Raise InputError when this machine lacks a program, allows too few open files, or `keep` is neither new nor empty."""
    server_library()
    scenario.pytest_places()
    for tool, package in TOOLS.items():
        if shutil.which(tool) is None:
            raise InputError(f"the demo needs {tool}, which is not on PATH", hint=f"sudo apt install {package}")
    _allow_files(hosts or scenario.STORY_HOSTS)
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise InputError(f"{keep} is there and not empty", hint="fleet demo --keep ANOTHER_DIR")


def place_for(keep: Path | None) -> Path:
    """Return where the results will be: `keep`, or a new temporary directory."""
    return keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="fleet-demo-"))


def require_docker(invoke: Invoke, say: Say) -> Engine:
    """Return an engine that answers and has the image, built now where it is not there; else InputError says what to type."""
    engine = find_engine()
    if not engine.has_image():
        say(f"The evals run in the image {IMAGE}, which is not there yet; building it is done once:\n$ fleet lite image")
        code = invoke(["lite", "image"])
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if code != 0:
            hint = "without a registry: fleet lite image --base IMAGE (how to make one: docs/swebench-lite.md)"
            raise InputError(f"there is no image {IMAGE}, and it could not be built", hint=hint)
    return engine


def _allow_files(hosts: int) -> None:
    """Raise this process's limit of open files: client and server ends of all connections live in it."""
    wanted = 256 + hosts * FILES_PER_HOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            raise InputError(f"{hosts} hosts need {wanted} open files, and {hard} are allowed", hint=f"ulimit -Hn {wanted}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def play(demo: Demo, hosts: int | None) -> Played:
    """Play the story (None), or rehearse `hosts` hosts; fills `demo` and returns what the batch's journal tells."""
    begun = time.monotonic()
    demo.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    count = hosts or scenario.STORY_HOSTS
    with _homes() as stage, EmbeddedHosts(count, stage, pipeline=demo.pipeline, engine=demo.engine) as embedded:
        demo.say(f"{len(embedded.names)} SSH hosts are up on 127.0.0.1, each with its own port, host key and home")
        shutil.copyfile(embedded.hosts_file, demo.directory / "hosts.yaml")
        _spare_reserves(embedded)
        played = _story(demo, embedded) if hosts is None else _rehearsal(demo, embedded)
    demo.seconds = time.monotonic() - begun
    return played


def _story(demo: Demo, hosts: EmbeddedHosts) -> Played:
    assignment = _write_assignment(demo, scenario.story_assignment(_datasets(), demo.pipeline))
    demo.run("sync", "--yes", why="The hosts are empty: put the pipeline's scripts on them.")
    place = f".fleet/pipelines/{demo.pipeline}/{scenario.DRIFTED}"
    drifted = hosts.homes[scenario.NOT_READY] / place
    demo.say(f"\nSomebody edits {scenario.DRIFTED} on {scenario.NOT_READY}, and tells nobody:")
    demo.say(f"$ ssh {scenario.NOT_READY} 'echo \"{scenario.DRIFT.strip()}\" >> ~/{place}'")
    with contextlib.suppress(FileNotFoundError), drifted.open("a") as file:
        file.write(scenario.DRIFT)
    demo.run("check", why="Are the hosts ready, and are they all the same?")
    demo.run("dispatch", str(assignment), why=STORY_WHY)
    played = read_batch(demo.collected, scenario.BATCH)
    demo.points = story_points(played)
    return played


def _rehearsal(demo: Demo, hosts: EmbeddedHosts) -> Played:
    count = len(hosts.names)
    assignment = _write_assignment(demo, scenario.rehearsal_assignment(_datasets(), hosts.names, hosts.directory / "cache"))
    demo.run("sync", "--yes", "--quiet", why="Put the pipeline's scripts on the hosts.")
    check = demo.run("check", "--quiet", why="Check them all, one round trip each.")
    demo.run("dispatch", str(assignment), why=REHEARSAL_WHY)
    played = read_batch(demo.collected, scenario.BATCH)
    ready = Point(f"{count} hosts ready", "fleet check", check.exit_code == 0, f"exit {check.exit_code}")
    demo.points = [ready, *rehearsal_points(played, count)]
    demo.rates = rates(played, check.seconds, count)
    return played


def _write_assignment(demo: Demo, document: dict[str, Any]) -> Path:
    path = demo.directory / f"{scenario.BATCH}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def _datasets() -> Path:
    return Pipelines().folder(scenario.PIPELINE) / "datasets"


@contextlib.contextmanager
def _homes() -> Iterator[Path]:
    """A directory for the hosts' homes, gone afterwards: what matters has been collected.

    After an interruption an eval may still be writing there for a second.
    """
    directory = Path(tempfile.mkdtemp(prefix="fleet-demo-hosts-"))
    try:
        yield directory
    finally:
        deadline = time.monotonic() + 5.0
        shutil.rmtree(directory, ignore_errors=True)
        while directory.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
            shutil.rmtree(directory, ignore_errors=True)


def _spare_reserves(hosts: EmbeddedHosts) -> None:
    """Keep the agent from setting 32 MB aside per host: these hosts share one disk, and 200 of them would take 6 GB."""
    for home in hosts.homes.values():
        root = home / ".fleet"
        root.mkdir(mode=0o700, exist_ok=True)
        os.close(os.open(root / "reserve", os.O_CREAT | os.O_WRONLY, 0o600))
