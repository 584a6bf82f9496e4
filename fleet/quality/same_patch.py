"""Whether the patch that was evaluated is the agent's: the harness may tidy it up, and may not change it.

OpenHands cuts off what stands before the first `diff --git` and blanks at the end, writes CRLF as LF, and can leave out binary
files, which `git apply` would refuse.
"""

from __future__ import annotations

import re

_FILE = re.compile(rb"(?m)^(?=diff --git )")
_BINARY = re.compile(rb"(?m)^(?:Binary files .* differ|GIT binary patch)$")


def left_out(agents: bytes, evaluated: bytes) -> int | None:
    """Return how many binary files the evaluated patch leaves out of the agent's; None when it is another patch."""
    if agents.rstrip(b"\n") == evaluated.rstrip(b"\n"):
        return 0
    agents, evaluated = _tidied(agents), _tidied(evaluated)
    if agents == evaluated:
        return 0
    kept = [part for part in _FILE.split(agents) if not _BINARY.search(part)]
    if not b"".join(kept) or b"".join(kept).rstrip() != evaluated:
        return None
    return len(_FILE.findall(agents)) - len(_FILE.findall(evaluated))


def _tidied(patch: bytes) -> bytes:
    first = _FILE.search(patch)
    return patch[first.start() if first else 0 :].replace(b"\r\n", b"\n").rstrip()
