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
        "the Docker daemon did not answer or did not start the container",
        "fleet check HOST",
        any_of(r"Cannot connect to the Docker daemon", r"^docker: Error response from daemon", r"^Error response from daemon"),
        any_of(
            r"failed to start container",
            r"error (?:building image|creating container)",
            r"(?:Client|Server) Error for http\+docker",
            r"Command '\['docker'.{0,300}(?:timed out|non-zero)",
        ),
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
        any_of(r"Read-only file system"),
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
        any_of(r"\bkilled\b", r"signal 9\b", r"SIGKILL", r"heap out of memory", r"Bus error", r"fork: .{0,60}unavailable"),
    ),
    (
        "wrong-machine",
        "the image or a program in it was built for another machine",
        "load an image for this host's architecture, then " + RETRY,
        None,
        any_of(r"exec format error", r"cannot execute binary file", r"Illegal instruction"),
    ),
    (
        "command-not-found",
        "the test command or a tool that it needs is not installed",
        "rebuild the image of this instance, then " + RETRY,
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
            r"JAVA_HOME.{0,40}(?:not defined|not set|invalid)",
            r"Missing script: ",
            r"Could not open input file: ",
        ),
    ),
    (
        "no-such-file",
        "a file or directory that the test command needs is not there",
        "rebuild the image of this instance, then " + RETRY,
        any_of(
            r"^(?:\S*/)?(?:ba|da|z|k)?sh: .{0,300}No such file or directory",
            r"^\S+\.sh: line \d+: .{0,300}No such file or directory",
            r"^(?:env|timeout|nohup|xargs|python[\d.]*|\S*/python[\d.]*|node|cd|make): .{0,300}No such file or directory",
            r"OCI runtime exec failed",
            r"^ERROR: file or directory not found",
        ),
        any_of(r"No such file or directory", r"file or directory not found", r"no such file"),
    ),
    (
        "permission",
        "the test command may not be run",
        "rebuild the image of this instance, then " + RETRY,
        any_of(r"^(?:\S*/)?(?:ba|da|z|k)?sh: .{0,300}Permission denied"),
        None,
    ),
    (
        "network",
        "the tests wanted something from a network that is not there",
        "rebuild the image of this instance with its dependencies, then " + RETRY,
        None,
        any_of(
            r"(?:failure|error) in name resolution",
            r"could(?: not|n't) resolve host",
            r"\bno such host\b",
            r"\b(?:EAI_AGAIN|ENOTFOUND|ENETUNREACH)\b",
            r"network is unreachable",
        ),
    ),
    (
        "missing-dependency",
        "a library or plug-in that the tests need is missing in the image, or has another version",
        "rebuild the image of this instance, then " + RETRY,
        None,
        any_of(
            r"(?:ModuleNotFoundError|ImportError): No module named ",
            r"ImportError: cannot import name .{0,300}\((?:unknown location|.{0,200}(?:site|dist)-packages/)",
            r"Cannot find (?:module|package) ['\"](?!\.)",
            r"could not resolve dependencies",
            r"no matching distribution found|could not find a version that satisfies",
            r"GemNotFound|Could not find (?:gem )?\S+ in (?:any of the sources|locally installed gems)",
            r"\berror: unrecognized arguments: ",
            r"is incompatible with this module",
            r"errors parsing go\.mod|go\.mod requires go",
            r"(?:missing|undeclared|unlinked) crate",
            r"no required module provides package|cannot find package",
        ),
    ),
    (
        "shell",
        "the shell could not run the test command",
        "rebuild the image of this instance, then " + RETRY,
        None,
        # Whatever the language of its words: a shell names itself when it complains.
        any_of(r"^(?:\S*/)?(?:ba|da|z|k)?sh: (?!warning\b|no job control|cannot set terminal).{1,300}[:：] ?\S"),
    ),
)
_SETUP = re.compile(
    r"^(?:\S*/)?(?:ba|da|z|k)?sh: .{0,200}(?:/conda\.sh|/activate|/nvm\.sh|/ENV|rc|profile|conda|nvm): "
    r".{0,80}(?:not found|No such file)"
)
"""A shell that misses a set-up script goes on without it: no proof where tests ran, and the last resort where none did."""


WORDS = (
    "image", "manifest", "pull access", "docker", "daemon", "container", "shared", "glibc", "space left", "quota",
    "read-only file", "kill", "137", "allocate", "signal 9", "heap out", "bus error", "fork:", "exec format", "binary file",
    "illegal instruction", "not found", "no module named", "not recognized", "namenotfound", "java_home", "missing script",
    "open input file", "such file", "oci runtime", "permission", "name resolution", "resolve host", "such host", "eai_again",
    "enotfound", "enetunreach", "unreachable", "import name", "cannot find", "dependencies", "distribution", "could not find",
    "gemnotfound", "unrecognized arguments", "incompatible", "go.mod", "crate", "provides package", "sh: ",
)  # fmt: skip
"""Of each pattern a part that stands in every line that it matches: most lines of most logs have none of them."""


def environment_fault(text: str, *, no_test_ran: bool) -> Diagnosis | None:
    """Return the first line of a log that shows the environment at fault.

    Test programs print such words too, so where tests ran only a line that a shell, a loader or Docker wrote is proof.
    """
    small = text.lower()
    words = tuple(word for word in WORDS if word in small)
    spare = None
    for number, line in numbered(text) if words else ():
        small = line.lower()
        if not any(word in small for word in words):
            continue
        for kind, said, fix, proof, weak in ENVIRONMENT:
            if (proof and proof.search(line)) or (no_test_ran and weak and weak.search(line)):
                found = Diagnosis(kind, Cause.ENVIRONMENT, said, fix, line, number)
                if not _SETUP.search(line):
                    return found
                spare = spare or found
                break
    return spare if no_test_ran else None
