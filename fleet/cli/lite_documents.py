"""The documents of `fleet lite` and `fleet validate-task`, for `fleet schema`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fleet.model.base import Strict

Status = Literal["pass", "fail", "error", "timeout"]


class LiteSplit(Strict):
    """Test ids that passed, and those that did not or are missing."""

    success: tuple[str, ...]
    failure: tuple[str, ...]


class LiteTests(Strict):
    """What pytest's own report says."""

    counts: dict[str, int]
    exit_code: int | None
    """Null where pytest was ended at its limit, or left no report."""
    fail_to_pass: LiteSplit = Field(alias="FAIL_TO_PASS")
    pass_to_pass: LiteSplit = Field(alias="PASS_TO_PASS")


class LiteBefore(LiteTests):
    """The same without the patch, and the end of what pytest printed."""

    tail: str


class LitePatch(Strict):
    """What became of the patch, by which way of applying it, and of the task's test patch."""

    state: Literal["none", "given", "refused", "unapplied", "applied"]
    way: str | None
    test_patch: Literal["applied", "unapplied"] | None


class LiteRunDocument(Strict):
    """`fleet lite run`, and result.json of every run."""

    schema_: Literal["fleet.lite-run/1"] = Field(alias="schema")
    task_id: str
    repo: str
    ref: str
    pytest_k: str
    status: Status
    stage: str | None
    """Where it failed or was ended; null with pass and fail."""
    reason: str | None
    resolved: bool | None
    """Null for a task without F2P."""
    duration_s: float
    stages: dict[str, float]
    patch: LitePatch
    tests: LiteTests | None
    before: LiteBefore | None
    sandbox: Literal["docker", "venv"]
    image_id: str | None
    environment: str | None
    """The image that keeps the installed project."""
    cached: bool
    """Whether the installed project was there from an earlier run."""
    tail: str
    directory: str = ""


class LiteUsage(Strict):
    """Tokens of the `known` calls; null when the provider told none of any."""

    calls: int
    known: int
    prompt_tokens: int | None
    completion_tokens: int | None


class LiteLimits(Strict):
    """What the agent might use up."""

    turns: int
    tokens: int
    minutes: float


class LiteAgentDocument(Strict):
    """`fleet lite agent`, and agent.json of every agent's run."""

    schema_: Literal["fleet.lite-agent/1"] = Field(alias="schema")
    task_id: str
    model: str
    model_id: str
    base_url: str
    framework: Literal["plain", "autogen"]
    judge: Literal["end", "patch"]
    """With `patch` the hidden tests were tried after each patch: not comparable with results that were judged at the end."""
    status: Status
    """Of the judgement, as in `run`."""
    resolved: bool | None
    ending: Literal[
        "solved", "submitted", "silent", "max-turns", "token-budget", "time-budget", "context",
        "provider", "sandbox", "framework",
    ]  # fmt: skip
    error: str | None
    turns: int
    """Answers of the model."""
    tool_calls: int
    usage: LiteUsage | None
    """Of all calls, also those that broke off; null where the project could not be prepared."""
    cost_usd: float | None
    """Null without a price, or where the usage of a call is not known."""
    limits: LiteLimits
    duration_s: float
    patch_bytes: int
    left_out: dict[str, str]
    """File → why its changes are not part of the patch."""
    run: LiteRunDocument
    """The judgement: a run of the patch in a fresh sandbox."""
    directory: str


class LiteRow(Strict):
    """One task of a batch."""

    task_id: str
    status: Status
    stage: str | None
    resolved: bool | None
    duration_s: float
    directory: str
    clone_s: float | None
    install_s: float | None
    tests_s: float | None


class LiteBatchDocument(Strict):
    """`fleet lite batch`."""

    schema_: Literal["fleet.lite-batch/1"] = Field(alias="schema")
    directory: str
    tasks: int
    passed: int
    failed: int
    errors: int
    timeouts: int
    pass_rate: float | None
    p50_s: float | None
    p95_s: float | None
    results: tuple[LiteRow, ...]


class LiteGradable(Strict):
    """Whether one task can be graded, and if not why and because of which tests."""

    task_id: str
    gradable: bool
    reason: str | None
    tests: tuple[str, ...]
    runs: int
    duration_s: float
    image_id: str | None
    sandbox: Literal["docker", "venv"]


class LiteValidateDocument(Strict):
    """`fleet lite validate` and `fleet validate-task`."""

    schema_: Literal["fleet.lite-validate/1"] = Field(alias="schema")
    tasks: tuple[LiteGradable, ...]
    gradable: int


class LiteImageDocument(Strict):
    """`fleet lite image`."""

    schema_: Literal["fleet.lite-image/1"] = Field(alias="schema")
    image: str
    image_id: str | None
    recipe: str
    built: bool
