"""The environment's fault, shown by a line of the log: what a shell, a loader or Docker said when the tests could not run."""

from __future__ import annotations

import re

from fleet.model.verdict import Cause
from fleet.quality.diagnosis import RETRY, Diagnosis, any_of, numbered

# (what it is, words, fix, patterns that are proof by themselves, patterns that are proof only when no test ran)
ENVIRONMENT: tuple[tuple[str, str, str, re.Pattern[str] | None, re.Pattern[str] | None], ...] = (
    (
        "missing-image",
        "the image is missing",
        "load the image on the host, then " + RETRY,
        any_of(
            r"Unable to find image\b",
            r"No such image\b",
            r"manifest unknown",
            r"manifest for \S+ not found",
            r"pull access denied for",
        ),
        any_of(r"image \S+ (?:was )?not found"),
    ),
    (
        "docker",
        "the Docker daemon did not answer",
        "fleet check HOST",
        any_of(r"Cannot connect to the Docker daemon", r"^docker: Error response from daemon", r"^Error response from daemon"),
        None,
    ),
    (
        "shared-library",
        "a shared library is missing in the image",
        "rebuild the image of this instance, then " + RETRY,
        any_of(
            r"error while loading shared libraries",
            r"cannot open shared object file",
            r"version [`']GLIBC\w*_[\d.]+' not found",
        ),
        None,
    ),
    (
        "no-space",
        "the disk was full",
        "free disk on the host (fleet check HOST), then " + RETRY,
        any_of(r"No space left on device", r"Disk quota exceeded"),
        None,
    ),
    (
        "killed",
        "the test process was killed, as the kernel does when memory runs out",
        "check the host's memory (fleet check HOST), then " + RETRY,
        any_of(
            r"^(?:\S+: line \d+: +\d+ )?Killed(?:\s|$)",
            r"\bexit(?:ed)?(?: with)?(?: code| status)?[ :]+137\b",
            r"oom-kill",
            r"Cannot allocate memory",
            r"Out of memory: Kill",
        ),
        any_of(r"\bkilled\b", r"signal 9\b", r"SIGKILL"),
    ),
    (
        "command-not-found",
        "the test command or a tool that it needs is not installed",
        "rebuild the image of this instance",
        any_of(
            r"^(?:\S*/)?(?:ba|da|z|k)?sh: (?:line )?[\w: ]*\S+: (?:command )?not found\s*$",
            r"^\S+\.sh: (?:line )?\d+: \S+: (?:command )?not found",
            r"^zsh: command not found",
            r"executable file not found in \$PATH",
            r"No module named '?(?:pytest|unittest|nose|tox|coverage)'?\s*$",
        ),
        any_of(
            r"command not found",
            r": not found\s*$",
            r"not recognized as an internal or external command",
            r"EnvironmentNameNotFound",
        ),
    ),
    (
        "no-such-file",
        "a file or directory that the test command needs is not there",
        "rebuild the image of this instance",
        any_of(
            r"^(?:\S*/)?(?:ba|da|z|k)?sh: .{0,300}No such file or directory",
            r"^\S+\.sh: line \d+: .{0,300}No such file or directory",
            r"^(?:env|timeout|nohup|xargs|python[\d.]*|\S*/python[\d.]*|node|cd|make): .{0,300}No such file or directory",
            r"OCI runtime exec failed",
            r"^ERROR: file or directory not found",
        ),
        any_of(r"No such file or directory", r"file or directory not found", r"Cannot find module", r"no such file"),
    ),
    (
        "permission",
        "the test command may not be run",
        "rebuild the image of this instance",
        any_of(r"^(?:\S*/)?(?:ba|da|z|k)?sh: .{0,300}Permission denied"),
        None,
    ),
)
_HINTS = re.compile(
    r"image|docker|daemon|shared|GLIBC|space left|quota|kill|137|memory|found|module named|such file|denied|OCI|cannot find",
    re.I,
)


def environment_fault(text: str, *, no_test_ran: bool) -> Diagnosis | None:
    """Return the first line of a log that shows the environment at fault.

    Test programs print such words too, so where tests ran only a line that a shell, a loader or Docker wrote is proof.
    """
    for number, line in numbered(text):
        if not _HINTS.search(line):
            continue
        for kind, words, fix, proof, weak in ENVIRONMENT:
            if (proof and proof.search(line)) or (no_test_ran and weak and weak.search(line)):
                return Diagnosis(kind, Cause.ENVIRONMENT, words, fix, line, number)
    return None
