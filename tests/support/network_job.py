"""A small batch whose controller reaches its hosts over links that can fail, with deadlines that a test can wait for."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.netns import NetnsFarm
from tests.support.operator import Said, finish, wait_until
from tests.support.small_job import SmallJob

FAST = {"connect_timeout": 1.5, "banner_timeout": 1.5, "auth_timeout": 3, "dead_after": 3}
DETECTED_S = FAST["dead_after"] + 1.0
"""A dead link is noticed within `dead_after`; a second more for a machine that is busy."""


class NetworkJob(SmallJob):
    """A batch of one instance per host, unless said otherwise; its commands run in the controller's namespace."""

    def __init__(
        self,
        directory: Path,
        farm: NetnsFarm,
        tasks: Mapping[str, Sequence[str]],
        *,
        seconds: float = 0.05,
        padding: int = 0,
        defaults: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(directory, farm, tasks, seconds=seconds, padding=padding, defaults={**FAST, **(defaults or {})})
        self.command = (*farm.prefix, *self.command)

    def dispatch(self, patience_s: float = 60.0) -> Said:
        """Run the batch to its end."""
        return finish(self.begin(patience_s))

    def begin(self, patience_s: float = 60.0) -> subprocess.Popen[str]:
        """Start the batch; the caller ends it."""
        return self.start("dispatch", self.assignment, "--patience", str(patience_s))

    def links(self, host: str) -> list[tuple[str, str]]:
        """Return what the journal says of a host's link, in order: (link, error)."""
        return [(one["link"], one.get("error", "")) for one in self.journal() if one["type"] == "link" and one["host"] == host]

    def attempts(self, host: str) -> list[str]:
        """Return the ids of the attempts that the host knows."""
        return sorted(path.name for path in (self.farm.homes[host] / ".fleet" / "attempts").glob("*") if path.is_dir())

    def await_starts(self, number: int) -> None:
        """Return when so many evals run and the controller knows it."""
        wait_until(lambda: sum(one["type"] == "started" for one in self.journal()) >= number)
        wait_until(lambda: self.starts().total() >= number)

    def await_link(self, host: str, link: str, timeout_s: float = 30.0) -> float:
        """Return the seconds until the journal's last word on a host's link is this."""
        began = time.monotonic()
        wait_until(lambda: self.links(host)[-1:] and self.links(host)[-1][0] == link, timeout_s)
        return time.monotonic() - began
