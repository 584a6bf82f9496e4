"""Known failures of a pipeline's own steps, recognised by name at the end of the eval's log; the result is then missing."""

from __future__ import annotations

import re

from fleet.model.verdict import Cause
from fleet.quality.diagnosis import RETRY, Diagnosis, any_of, numbered

# The first row that is anywhere in the log counts: "Could not find output.jsonl" is what all the others end in.
_FAULTS: tuple[tuple[str, Cause, str, str, re.Pattern[str]], ...] = (
    (
        "buildx",
        Cause.OPERATOR,
        "the image build failed in BuildKit: the fix in openhands/runtime/builder/docker.py is missing on the host",
        "fleet sync HOST, then " + RETRY,
        any_of(
            r"'docker', 'buildx', 'build'",
            r"buildx build\b.{0,400}(?:fail|error|non-zero)",
            r"'buildx' is not a docker command",
        ),
    ),
    (
        "tmux",
        Cause.ENVIRONMENT,
        "tmux is missing in the image",
        "rebuild the image of this instance with tmux, then " + RETRY,
        any_of(r"TmuxCommandNotFound", r"tmux: (?:command )?not found"),
    ),
    (
        "model-settings",
        Cause.OPERATOR,
        "the model is not in the host's config.toml",
        "add the model's section to config.toml on the host, then " + RETRY,
        any_of(r"Could not find LLM config"),
    ),
    (
        "harness-code",
        Cause.OPERATOR,
        "the harness is not whole on the host",
        "fleet sync HOST, then " + RETRY,
        any_of(
            r"Evaluation script not found",
            r"\.(?:sh|py)['\"]?: (?:\[Errno 2\] )?No such file or directory",
            r"poetry: (?:command )?not found",
            r"No module named '(?:openhands|evaluation)\b",
        ),
    ),
    (
        "image-archive",
        Cause.OPERATOR,
        "the image archive could not be downloaded",
        "fleet check HOST, then " + RETRY,
        any_of(
            r"An error occurred \(\w+\) when calling the \w+ operation",
            r"Unable to locate credentials",
            r"(?:the specified key does not exist|NoSuchKey|NoSuchBucket)",
        ),
    ),
    (
        "provider",
        Cause.PROVIDER,
        "the model's provider refused or failed the agent",
        "check the provider's key and limits, then " + RETRY,
        any_of(
            r"\b(?:litellm|openai|anthropic)\.(?:exceptions\.)?\w*(?:Authentication|PermissionDenied|RateLimit|InternalServer"
            r"|ServiceUnavailable|APIConnection)Error"
        ),
    ),
    (
        "output",
        Cause.HARNESS,
        "the harness did not find its own output",
        "fleet logs TASK",
        any_of(r"Could not find output\.jsonl"),
    ),
)


def pipeline_fault(tail: str) -> Diagnosis | None:
    """Return the gravest known failure in the log's end, None where it tells of none."""
    lines = list(numbered(tail))
    for kind, cause, words, fix, pattern in _FAULTS:
        for number, line in lines:
            if pattern.search(line):
                return Diagnosis(kind, cause, words, fix, line, number)
    return None
