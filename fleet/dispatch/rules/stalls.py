"""Whether a running eval moves: successive signs of life compared, by the controller's own monotonic clock. Pure.

Something moves when the log or the number of containers changes, or when processes and containers together use at least
a second of CPU within a minute: an eval that hangs still wakes up now and then, and one that works uses far more.
A gap between two signs (a laptop that slept, a link that was down) is no evidence: the time starts anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

CPU_FLOOR_S = 1.0
"""CPU seconds within CPU_WINDOW_S below which nothing is called work: 1.7 % of one core."""
CPU_WINDOW_S = 60.0
MAX_GAP_S = 90.0
"""Signs of life come every 10 s; a longer silence says nothing about the eval."""


class StallRule(NamedTuple):
    """What a pipeline says of evals that stand still."""

    after_s: float = 900.0
    """0 = never."""
    cancel: bool = False
    containers: bool = False
    """Whether its evals use containers, which are then a sign of life too."""


@dataclass(frozen=True)
class Signs:
    """The signs of life in one status; None = the host does not tell."""

    log: int | None = None
    cpu_s: float | None = None
    containers: int | None = None
    containers_cpu_s: float | None = None

    def unknown(self, rule: StallRule) -> tuple[str, ...]:
        """Return the names of those that are not told and that the rule needs."""
        needed = ("log", "cpu_s", *(("containers", "containers_cpu_s") if rule.containers else ()))
        return tuple(name for name in needed if getattr(self, name) is None)

    @property
    def work_s(self) -> float | None:
        """CPU seconds of processes and containers together."""
        known = [value for value in (self.cpu_s, self.containers_cpu_s) if value is not None]
        return sum(known) if known else None


def signs_of(status: Mapping[str, Any]) -> Signs:
    """Return the signs of life in a host's status, of which no byte is trusted."""
    told = status.get("progress")
    told = told if isinstance(told, dict) else {}
    log = told.get("log_bytes", status.get("log_size"))
    return Signs(
        log=log if type(log) is int else None,
        cpu_s=_seconds(told.get("cpu_s")),
        containers=told.get("containers") if type(told.get("containers")) is int else None,
        containers_cpu_s=_seconds(told.get("containers_cpu_s")),
    )


def _seconds(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
    return float(value) if usable else None


class Watch:
    """One attempt's signs of life so far."""

    def __init__(self, attempt: str) -> None:
        self.attempt = attempt
        self.signs = Signs()
        self._moved_at: float | None = None
        self._seen_at = 0.0
        self._work: tuple[float, float] | None = None
        """CPU seconds at the beginning of the present window, and when that was."""

    def idle_s(self, now: float) -> float:
        """Return how long nothing has moved."""
        return 0.0 if self._moved_at is None else now - self._moved_at

    def look(self, signs: Signs, now: float) -> bool:
        """Take in the signs of this moment; tell whether something has moved since the last ones."""
        first = self._moved_at is None
        gap = not first and now - self._seen_at > MAX_GAP_S
        before, self.signs, self._seen_at = self.signs, signs, now
        if first or gap:
            self._moved_at, self._work = now, None
        worked = self._worked(signs.work_s, now)
        moved = not first and (worked or _changed(before, signs))
        if moved:
            self._moved_at = now
        return moved

    def _worked(self, work_s: float | None, now: float) -> bool:
        if work_s is None:
            self._work = None
            return False
        if self._work is None:
            self._work = (work_s, now)
            return False
        since, begun = self._work
        # Less than before: something that had used CPU has ended, which is movement too.
        moved = abs(work_s - since) >= CPU_FLOOR_S
        if moved or now - begun >= CPU_WINDOW_S:
            self._work = (work_s, now)
        return moved


def _changed(before: Signs, after: Signs) -> bool:
    pairs = ((before.log, after.log), (before.containers, after.containers))
    return any(old is not None and new is not None and old != new for old, new in pairs)
