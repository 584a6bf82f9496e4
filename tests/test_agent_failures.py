"""Why an agent, or the pipeline around it, ended without a result: told by its error, and by the end of the eval's own log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause
from fleet.quality import judge
from fleet.quality.agent_errors import agent_error
from tests.support.results import INSTANCE

AGENT_ERRORS = [
    ("RuntimeError: Agent reached maximum iteration in headless mode. Current iteration: 200", "limit", Cause.MODEL),
    ("Conversation run failed for id=5a: Remote conversation got stuck", "limit", Cause.MODEL),
    ("LLMContextWindowExceedError", "limit", Cause.MODEL),
    ("VertexAIException - The input token count (1054432) exceeds the maximum number of tokens", "limit", Cause.MODEL),
    ("API request failed with status code 413: Request Entity Too Large", "limit", Cause.MODEL),
    ("EvalTimeoutException: Function timed out after 3600 seconds", "limit", Cause.MODEL),
    ("STATUS$ERROR_LLM_AUTHENTICATION", "provider", Cause.PROVIDER),
    ("STATUS$ERROR_LLM_SERVICE_UNAVAILABLE", "provider", Cause.PROVIDER),
    ("STATUS$ERROR_LLM_OUT_OF_CREDITS", "provider", Cause.PROVIDER),
    ("Error code: 402 - add more credits", "provider", Cause.PROVIDER),
    ("httpx.ReadTimeout: The read operation timed out", "provider", Cause.PROVIDER),
    ("litellm.InternalServerError: Server disconnected without sending a response.", "provider", Cause.PROVIDER),
    ("litellm.BadRequestError: OpenAIException - Unsupported parameter: 'stop'", "provider", Cause.OPERATOR),
    ("litellm.NotFoundError: The model `gpt-9` does not exist or you do not have access to it.", "provider", Cause.OPERATOR),
    ("STATUS$ERROR_RUNTIME_DISCONNECTED", "runtime", Cause.ENVIRONMENT),
    ("httpx.ConnectError: [Errno 111] Connection refused", "runtime", Cause.ENVIRONMENT),
    ("UnixHTTPConnectionPool(host='localhost', port=None): Read timed out.", "runtime", Cause.ENVIRONMENT),
    ("Command '['docker', 'buildx', 'build']' returned non-zero exit status 1.", "runtime-build", Cause.OPERATOR),
    ("docker buildx build failed: write /var/lib/docker: no space left on device", "runtime-build", Cause.ENVIRONMENT),
    ("libtmux.exc.TmuxCommandNotFound", "runtime-build", Cause.ENVIRONMENT),
    ("LLMMalformedActionError: Malformed action", "other", Cause.MODEL),
    ("KeyboardInterrupt", "other", Cause.OPERATOR),
    ("ValueError: nobody knows", "other", Cause.HARNESS),
]


@pytest.mark.parametrize(("error", "kind", "cause"), AGENT_ERRORS, ids=[error[:40] for error, _, _ in AGENT_ERRORS])
def test_an_agents_error_has_its_kind_and_cause(error: str, kind: str, cause: Cause) -> None:
    found = agent_error(error)
    assert (found.kind, found.cause) == (kind, cause)


NOT_FOUND = "ERROR: Could not find output.jsonl!\n"
# The end of an eval's log that left no output → whose fault that was.
EVAL_LOGS = {
    "BuildKit": (
        f"Command '['docker', 'buildx', 'build', '/x']' returned non-zero exit status 1.\n{NOT_FOUND}",
        Cause.OPERATOR,
    ),
    "no tmux": (f"libtmux.exc.TmuxCommandNotFound\n{NOT_FOUND}", Cause.ENVIRONMENT),
    "tmux only warned of": ("WARNING: tmux installation failed, continuing anyway\n", Cause.HARNESS),
    "no such model": (f"ValueError: Could not find LLM config: --llm_config llm.gpt\n{NOT_FOUND}", Cause.OPERATOR),
    "no script": ("bash: ./scripts/run_full_eval_with_s3.sh: No such file or directory\n", Cause.OPERATOR),
    "no archive": ("An error occurred (404) when calling the HeadObject operation: Not Found\n", Cause.OPERATOR),
    "no key": (f"litellm.AuthenticationError: OpenAIException - wrong key\n{NOT_FOUND}", Cause.PROVIDER),
    "nothing found": (NOT_FOUND, Cause.HARNESS),
    "no word": ("bye\n", Cause.HARNESS),
}


@pytest.mark.parametrize("name", EVAL_LOGS)
def test_a_known_failure_of_the_pipeline_is_named_where_no_output_is(name: str, tmp_path: Path) -> None:
    log, cause = EVAL_LOGS[name]
    (tmp_path / "fleet.json").write_text(json.dumps({"task": {"instance_id": INSTANCE, "model": "gpt"}, "host": "eval1"}))
    (tmp_path / "fleet.log").write_text(log)
    verdict = judge(tmp_path, None, Quality())
    assert verdict.reasons[0].code == "output-missing"
    assert verdict.cause is cause
    if cause is Cause.OPERATOR:
        assert "eval1" in verdict.reasons[0].fix or "config.toml" in verdict.reasons[0].fix
