"""Why the agent ended with an error: limit, runtime build, provider, runtime, output, other."""

from __future__ import annotations

import re

from fleet.model.verdict import Cause
from fleet.quality.diagnosis import ANOTHER_RUN, RETRY, Diagnosis, any_of

# First match wins: "Agent reached maximum iteration … 500" must not
# look like an HTTP status, and "rate limit" not like a limit.
AGENT_ERRORS: tuple[tuple[str, Cause, str, str, re.Pattern[str]], ...] = (
    (
        "limit",
        Cause.MODEL,
        "the agent used up its iterations",
        ANOTHER_RUN + " and a higher max_iterations",
        any_of(r"max(?:imum)?[_ ]?(?:number of )?iterations?\b", r"MaxIterations?", r"iteration limit", r"\ALimitsExceeded\b"),
    ),
    (
        "runtime-build",
        Cause.ENVIRONMENT,
        "the host's disk was full",
        "free disk on the host (fleet check HOST), then " + RETRY,
        any_of(r"No space left on device"),
    ),
    (
        "runtime-build",
        Cause.OPERATOR,
        "the image build failed in BuildKit: the fix in openhands/runtime/builder/docker.py is missing on the host",
        "fleet sync HOST, then " + RETRY,
        any_of(r"buildx", r"buildkit"),
    ),
    (
        "runtime-build",
        Cause.ENVIRONMENT,
        "the runtime image could not be built or started",
        "fleet check HOST, then " + RETRY,
        any_of(
            r"RuntimeBuildError",
            r"docker\.errors",
            r"(?:docker|image|runtime|container) build\b.{0,40}(?:fail|error)",
            r"fail\w* to (?:build|start|create) (?:the |a )?(?:docker |runtime |sandbox )?(?:image|container|runtime)",
            r"(?:build|building) (?:the |of )?(?:docker |runtime )?image\b.{0,40}fail",
            r"ImageNotFound",
            r"manifest unknown",
            r"No such image",
            r"tmux\b.{0,60}(?:not found|not installed|missing)",
            r"(?:not found|missing)\W{1,3}tmux",
            r"TmuxCommandNotFound",
            r"Command '\['(?:docker|podman)', '(?:run|create|pull|load)'",
            r"Cannot connect to the Docker daemon",
        ),
    ),
    (
        "runtime",
        Cause.ENVIRONMENT,
        "the agent lost its runtime",
        "fleet check HOST, then " + RETRY,
        any_of(
            r"execute_action",
            r"AgentRuntime\w*Error",
            r"runtime[ _](?:disconnected|crashed|not ready|unavailable)",
            r"UnixHTTPConnectionPool",
            r"container .{0,60}(?:exited|died|not running|killed)",
        ),
    ),
    (
        "provider",
        Cause.PROVIDER,
        "the model's provider refused the key",
        "check the provider's API key on the host, then " + RETRY,
        any_of(
            r"AuthenticationError",
            r"PermissionDeniedError",
            r"invalid[_ -](?:x-)?api[_ -]key",
            r"incorrect api key",
            r"\bunauthori[sz]ed\b",
            r"(?:status|code|http)\D{0,12}\b40[13]\b",
            r"\b40[13] (?:unauthori|forbidden)",
            r"authentication (?:failed|error)",
            r"LLM_AUTHENTICATION",
            r"credentials? (?:expired|invalid|not found)",
            r"ExpiredToken",
        ),
    ),
    (
        "provider",
        Cause.PROVIDER,
        "the model's provider limited the rate or the quota",
        RETRY + " later, or with fewer hosts",
        any_of(
            r"RateLimit",
            r"rate[_ -]?limit",
            r"too many requests",
            r"(?:status|code|http)\D{0,12}\b429\b",
            r"\b429\b.{0,20}too many",
            r"insufficient[_ ]quota",
            r"exceeded your current quota",
            r"quota exceeded",
            r"ThrottlingException",
            r"credit balance",
            r"out[_ ]of[_ ]credits",
            r"insufficient (?:credits?|balance|funds)",
            r"balance is (?:insufficient|too low)",
            r"(?:status|code|http)\D{0,12}\b402\b",
        ),
    ),
    (
        "limit",
        Cause.MODEL,
        "the agent ran out of context",
        "use a model with a larger context, or accept the failure",
        any_of(
            r"ContextWindowExceed",
            r"context window",
            r"maximum context length",
            r"prompt is too long",
            r"context_length_exceeded",
            r"input is too long",
            r"token count .{0,40}exceeds",
            r"request entity too large",
            r"request_too_large",
        ),
    ),
    (
        "provider",
        Cause.OPERATOR,
        "the model's settings do not fit its provider",
        "mend the model's section in config.toml on the host, then " + RETRY,
        any_of(
            r"unsupported parameter",
            r"not supported with this model",
            r"model\b.{0,80}does not exist",
            r"model_not_found|invalid model name",
            r"LLM Provider NOT provided",
        ),
    ),
    (
        "provider",
        Cause.PROVIDER,
        "the model's provider failed",
        RETRY,
        any_of(
            r"InternalServerError",
            r"Service_?Unavailable",
            r"ERROR_LLM_",
            r"BadGateway",
            r"bad gateway",
            r"gateway time-?out",
            r"overloaded",
            r"(?:status|(?<!exit )code|http)\D{0,12}\b5\d\d\b",
            r"\b50[0234] (?:internal|bad|service|gateway|server)",
            r"server_error",
            r"APIConnectionError",
            r"APITimeoutError",
            r"\bAPIError\b",
            r"litellm\.\w*(?:Timeout|Error)",
            r"openai\.\w*Error",
            r"anthropic\.\w*Error",
            r"LLMNoResponseError",
            r"ReadTimeout\b",
            r"ContentPolicyViolation",
        ),
    ),
    (
        "other",
        Cause.MODEL,
        "the model's answer was no action that the agent knows",
        "accept the failure, or " + RETRY,
        any_of(r"LLMMalformedAction", r"FunctionCall(?:Validation|Conversion|NotExists)Error", r"LLMNoAction"),
    ),
    (
        "limit",
        Cause.MODEL,
        "the agent used up its budget or got stuck",
        "raise the budget, then " + RETRY,
        any_of(
            r"budget",
            r"max_(?:cost|tokens|time)\b",
            r"StuckInLoop",
            r"stuck in a loop",
            r"cost limit",
            r"time limit",
            r"max turns",
            r"got stuck",
            r"\ATimeExceeded\b",
            r"\ARepeatedFormatError\b",
            r"EvalTimeout",
        ),
    ),
    (
        "output",
        Cause.HARNESS,
        "the harness did not find its own output",
        "fleet logs TASK",
        any_of(r"Could not find output\.jsonl"),
    ),
    (
        "runtime",
        Cause.ENVIRONMENT,
        "the agent lost the connection to its runtime",
        "fleet check HOST, then " + RETRY,
        any_of(r"connection (?:refused|reset|aborted)", r"server disconnected", r"network is unreachable"),
    ),
    (
        "other",
        Cause.OPERATOR,
        "the agent was interrupted",
        RETRY,
        any_of(r"\AKeyboardInterrupt\b", r"CancelledError", r"UserCancelled"),
    ),
)


def agent_error(error: str) -> Diagnosis:
    """Tell apart why the agent ended with an error."""
    text = error[:20_000]
    for kind, cause, words, fix, pattern in AGENT_ERRORS:
        if pattern.search(text):
            return Diagnosis(kind, cause, words, fix)
    return Diagnosis("other", Cause.HARNESS, "the agent ended with an error", "fleet logs TASK")
