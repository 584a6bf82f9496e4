"""Notices what happened to time while nobody looked: this process stood still, or the wall clock was set.

Deadlines run on the monotonic clock, so neither makes one come due by itself. But a timer that ran on while we were
suspended says nothing about a host, and times in the journal from before and after a jump cannot be compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

LOOK_EVERY_S = 5.0
"""The controller looks at least this often."""
GAP_S = 10.0
"""Beyond that, a look that comes so late means that we were suspended, or the machine asleep."""
JUMP_S = 5.0
"""A wall clock that moves so much against the others was set; time services correct less in smaller steps."""


def boottime() -> float:
    """Return a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True)
class Noticed:
    """What was noticed since the last look, in seconds."""

    stood_still_s: float = 0.0
    wall_set_by_s: float = 0.0
    """Negative when it was set back."""


class ClockWatch:
    """Compares two clocks from look to look."""

    def __init__(self, steady: Callable[[], float] = boottime, wall: Callable[[], float] = time.time) -> None:
        self._steady, self._wall = steady, wall
        self._last = (steady(), wall())

    def look(self) -> Noticed:
        """Return what happened since the last look."""
        (then, wall_then), (now, wall_now) = self._last, (self._steady(), self._wall())
        self._last = (now, wall_now)
        passed, set_by = now - then, (wall_now - wall_then) - (now - then)
        return Noticed(
            stood_still_s=passed if passed > LOOK_EVERY_S + GAP_S else 0.0,
            wall_set_by_s=set_by if abs(set_by) > JUMP_S else 0.0,
        )
