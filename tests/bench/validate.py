"""`fleet validate` of a batch against reading the same files with a fast JSON parser, on one core and nothing else done."""

from __future__ import annotations

import functools
import random
import string
import sys
from pathlib import Path

from tests.bench.measure import Row, Run, execute, fleet, in_turn
from tests.support.results import build_result

FAST = """
import orjson, pathlib, sys
for path in pathlib.Path(sys.argv[1]).rglob("*"):
    if path.is_file():
        data = path.read_bytes()
        if path.suffix in (".json", ".jsonl"):
            for line in data.split(b"\\n"):
                if line:
                    orjson.loads(line)
"""
EVENTS, EVENT_BYTES = 80, 22_000
"""A history is in two files of a result, which so has about 4 MB."""


def validate(directory: Path, results: int, runs: int) -> list[Row]:
    """Judge `results` directories of about 4 MB; the goal is half the parser's speed, on all cores that there are."""
    size = _write(directory, results)
    found = in_turn(
        runs,
        {
            "parser": functools.partial(execute, [sys.executable, "-c", FAST, str(directory)]),
            "validate": functools.partial(_accepted, directory),
        },
    )
    ours, theirs = found["validate"], found["parser"]
    note = f"{size / 1e9:.2f} GB; {size / 1e6 / ours.wall_s:.0f} and {size / 1e6 / theirs.wall_s:.0f} MB/s"
    return [
        Row(f"fleet validate, {results} results, over orjson on one core", ours.wall_s / theirs.wall_s, "×", 2.0, note),
        Row("memory of the largest of its processes", ours.peak_mb, "MB", 300.0 / 3, "three processes share 300 MB"),
    ]


def _accepted(directory: Path) -> Run:
    return execute([*fleet("validate", str(directory), "--json", "--no-write")])


def _write(directory: Path, results: int) -> int:
    random.seed(4)
    words = ["".join(random.choices(string.ascii_lowercase, k=random.randint(2, 12))) for _ in range(4000)]
    texts = [_text(words) for _ in range(400)]
    for number in range(results):
        history = [
            {"id": event, "source": "agent", "action": "run", "args": {"command": "pytest"}, "content": random.choice(texts)}
            for event in range(EVENTS)
        ]
        build_result(directory / f"i-{number}", f"i-{number}", history=history)
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _text(words: list[str]) -> str:
    """Return text as tools print it: words, line ends, quotes and the odd character beyond ASCII."""
    parts: list[str] = []
    while sum(map(len, parts)) < EVENT_BYTES:
        parts.append(" ".join(random.choices(words, k=9)) + random.choice(["\n", '"\n', "\t→\n", "()\n"]))
    return "".join(parts)
