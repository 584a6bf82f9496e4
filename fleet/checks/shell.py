"""The login shell of a non-interactive command is silent: rsync takes its first bytes for the protocol.

The agent's own answers are framed and survive such noise, so without this check the trouble would show after the eval.
"""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok
from fleet.model.names import plain

SAMPLE = 80


def judge(subject: Subject) -> Iterable[Said]:
    """Look at what came before the agent's answer; nothing is said about a host that was not listened to."""
    noise = subject.facts.noise
    if noise is None:
        return
    if noise.bytes == 0:
        yield ok("the login shell is silent")
        return
    yield fail(
        f"the login shell prints {noise.bytes} byte{'s' * (noise.bytes != 1)} of its own, so rsync cannot bring results: "
        f"{plain(' '.join(noise.sample.split()), SAMPLE)!r}",
        f"on {subject.host.name}: let .bashrc print only when interactive: case $- in *i*) echo …;; esac",
    )


CHECK = Check("shell", "setup", "the login shell prints nothing of its own, which rsync would choke on", judge)
