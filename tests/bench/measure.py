"""Whole processes measured from outside, in turn, and tables that say what was reached and what was not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Run:
    """One finished process with everything it waited for."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int


@dataclass(frozen=True)
class Series:
    """The medians of several runs; `spread` is the slowest wall time over the fastest."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    spread: float


def execute(argv: Sequence[str], *, env: Mapping[str, str] | None = None, output: Path | None = None) -> Run:
    """Run a program to its end; CPU and memory are the kernel's own account of it and its children."""
    with (output or Path(os.devnull)).open("wb") as sink:
        began = time.perf_counter()
        process = subprocess.Popen(argv, env=dict(env) if env else None, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, process.returncode)


def in_turn(runs: int, contestants: Mapping[str, Callable[[], Run]]) -> dict[str, Series]:
    """Run every contestant once to warm up, then A B A B …: a machine whose speed drifts treats both alike."""
    found: dict[str, list[Run]] = {name: [] for name in contestants}
    for number in range(runs + 1):
        for name, contestant in contestants.items():
            run = contestant()
            if run.code != 0:
                raise SystemExit(f"{name} ended with {run.code}: its number would mean nothing")
            if number:
                found[name].append(run)
    return {name: summarize(series) for name, series in found.items()}


def summarize(runs: Sequence[Run]) -> Series:
    """Return the medians."""
    walls = [run.wall_s for run in runs]
    return Series(median(walls), median(run.cpu_s for run in runs), max(run.peak_mb for run in runs), max(walls) / min(walls))


def fleet(*arguments: str) -> list[str]:
    """Return the command line of this checkout's fleet."""
    return [sys.executable, "-m", "fleet", *arguments]


@dataclass(frozen=True)
class Row:
    """One number beside its goal; `limit` is the largest that is good enough, None where there is no goal."""

    what: str
    value: float
    unit: str
    limit: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return None if self.limit is None else self.value <= self.limit

    def cells(self) -> list[str]:
        """The row as text."""
        mark = {True: "reached", False: "MISSED", None: ""}[self.reached]
        goal = "" if self.limit is None else f"≤ {shown(self.limit)} {self.unit}".rstrip()
        return [self.what, f"{shown(self.value)} {self.unit}".rstrip(), goal, mark, self.note]


def shown(number: float) -> str:
    """Return three significant digits without an exponent."""
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2 if abs(number) >= 0.1 else 3
    return f"{number:.{digits}f}"


def table(title: str, rows: Sequence[Row]) -> str:
    """Return a table that is also Markdown."""
    header = ["", "measured", "goal", "", ""]
    lines = [header, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    rule = ["-" * max(3, width) for width in widths]
    return "\n".join([f"## {title}", "", *("| " + " | ".join(line) + " |" for line in [text[0], rule, *text[1:]]), ""])
