"""What the controller takes of this machine, sampled, and how that changes over time."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path

WARM_UP_S = 20.0
WARM_UP_PER_HOST_S = 0.25
"""Connections are opened and modules loaded; what a controller takes in that time is no leak."""


@dataclass(frozen=True)
class Sample:
    """One look at a process: seconds, resident MB, threads, descriptors."""

    at: float
    rss_mb: float
    threads: int
    fds: int


@dataclass
class Watch:
    """The samples of every controller, by process."""

    hosts: int = 0
    by_pid: dict[int, list[Sample]] = field(default_factory=dict)

    def look(self, pid: int, now: float) -> None:
        """Take a sample; a process that has just ended gives none."""
        with contextlib.suppress(OSError, ValueError, KeyError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            words = dict(line.split(":", 1) for line in lines)
            rss, threads = float(words["VmRSS"].split()[0]) / 1024, int(words["Threads"])
            self.by_pid.setdefault(pid, []).append(Sample(now, rss, threads, len(os.listdir(f"/proc/{pid}/fd"))))

    @property
    def longest(self) -> list[Sample]:
        """The samples of the controller that lived longest, without its first seconds where it lived longer than those."""
        samples = max(self.by_pid.values(), key=lambda one: one[-1].at - one[0].at, default=[])
        warm_up_s = WARM_UP_S + WARM_UP_PER_HOST_S * self.hosts
        warm = [one for one in samples if one.at - samples[0].at >= warm_up_s]
        return warm if len(warm) >= 10 else samples

    def slope(self, name: str) -> float:
        """Return the change of a figure per minute in the longest life, by least squares."""
        samples = self.longest
        if len(samples) < 3:
            return 0.0
        times = [one.at / 60 for one in samples]
        values = [float(getattr(one, name)) for one in samples]
        middle, level = sum(times) / len(times), sum(values) / len(values)
        spread = sum((one - middle) ** 2 for one in times)
        return sum((at - middle) * (value - level) for at, value in zip(times, values, strict=True)) / spread if spread else 0.0

    def highest(self, name: str) -> float:
        """Return the highest value of a figure in any life."""
        return max((float(getattr(one, name)) for samples in self.by_pid.values() for one in samples), default=0.0)
