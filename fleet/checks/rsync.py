"""Results come back by rsync, so the host needs one."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, shown, warn

MINIMUM = (3, 1)
"""3.1 brought protocol 31; what is older lacks options of the hardened pull."""


def judge(subject: Subject) -> Iterable[Said]:
    """Look for rsync on PATH and at its version."""
    path = subject.facts.tools.get("rsync")
    name = subject.host.name
    if not path:
        yield fail("rsync is not installed, so no result could be brought back", f"on {name}: sudo apt install -y rsync")
        return
    version = subject.facts.rsync_version
    match = re.match(r"(\d{1,3})\.(\d{1,3})", version or "")
    if match is None:
        yield warn(f"{shown(path)} does not tell its version; openrsync and wrappers are not supported",
                   f"on {name}: rsync --version")  # fmt: skip
    elif (int(match[1]), int(match[2])) < MINIMUM:
        yield fail(
            f"rsync {shown(version, 20)} is too old, 3.1 is the oldest that works", f"on {name}: sudo apt install -y rsync"
        )
    else:
        yield ok(f"rsync {shown(version, 20)}")


CHECK = Check("rsync", "setup", "rsync 3.1 or newer is there", judge, lambda _host, _pipeline: {"tools": ["rsync"]})
