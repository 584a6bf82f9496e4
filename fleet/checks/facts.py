"""What a host answered to a probe, typed. Every byte of it comes from the host and is believed only as far as its shape goes.

A part that was not asked, or not answered, is None. Sizes are bytes, times are seconds.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fleet.model.names import visible

MAX_ITEMS = 10_000


class _Fact(BaseModel):
    """Unknown keys are ignored: a newer agent may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class HomeFacts(_Fact):
    """The home directory, which holds `~/.fleet`."""

    path: str = ""
    fstype: str | None = None
    writable: bool = False
    error: str | None = None


class FileFacts(_Fact):
    """One file that was asked for; digests are there when it could be read."""

    exists: bool = False
    size: int | None = None
    mode: int | None = None
    sha256: str | None = None
    md5: str | None = None
    error: str | None = None


class CommandFacts(_Fact):
    """How a readiness command ended; `rc` is None when it could not run or was stopped."""

    rc: int | None = None
    seconds: float | None = None
    timed_out: bool = False
    tail: str = ""
    error: str | None = None


class DiskFacts(_Fact):
    """The filesystem of the work directory, counted like `df`: free is what the user may still write."""

    path: str = ""
    total: int | None = None
    free: int | None = None
    used_percent: float | None = None
    inodes_free: int | None = None
    error: str | None = None


class MemoryFacts(_Fact):
    """The kernel's own estimate of what can be used without swapping."""

    total: int | None = None
    available: int | None = None


class ContainerFacts(_Fact):
    """One container that matches a busy pattern or belongs to an attempt of fleet."""

    id: str = ""
    name: str = ""
    image: str = ""
    state: str = ""
    created: float | None = None
    leftover_of: str | None = None
    matched: str | None = None


class DockerFacts(_Fact):
    """Whether the Docker engine answers, and the containers that concern us."""

    ok: bool = False
    error: str | None = None
    disk: DiskFacts | None = None
    """Where the engine keeps images, when that is another file system than the work directory's."""
    containers: tuple[ContainerFacts, ...] = Field(default=(), max_length=MAX_ITEMS)


class ProcessFacts(_Fact):
    """One process that matches a busy pattern and does not belong to fleet."""

    pid: int
    user: str = "?"
    command: str = ""
    pattern: str = ""
    elapsed_s: float | None = None


class LogindFacts(_Fact):
    """Whether an eval would outlive the SSH session that started it."""

    kill_user_processes: bool | None = None
    linger: bool | None = None
    systemd_run: bool = False


class NoiseFacts(_Fact):
    """What the login shell printed before the agent spoke: how many bytes, and the first of them."""

    bytes: int = Field(default=0, ge=0)
    sample: str = ""


class AccountFacts(_Fact):
    """Another account of the machine that runs an eval of fleet."""

    uid: int
    user: str = ""
    pid: int | None = None


class LockFacts(_Fact):
    """The host lock of fleet, and the second guard that survives the deletion of the lock file."""

    state: str = "free"
    guard: str = "free"
    attempt: str | None = None
    since: str | None = None
    batch: str | None = None
    task: str | None = None
    accounts: tuple[AccountFacts, ...] = ()


class QuarantineFacts(_Fact):
    """Why the host takes no new attempt until a person releases it."""

    at: str | None = None
    reason: str | None = None
    tasks: tuple[str, ...] = Field(default=(), max_length=MAX_ITEMS)
    batch: str | None = None
    controller: str | None = None


class AttemptFacts(_Fact):
    """An attempt that is active, or ended and not yet acknowledged."""

    attempt: str = ""
    state: str = "unknown"
    reason: str | None = None
    batch: str | None = None
    key: dict[str, Any] = Field(default_factory=dict)
    acked: bool = False

    @property
    def task(self) -> str:
        """The attempt's task as users type it, or the attempt's id when the host does not say."""
        parts = [self.key.get(name) for name in ("instance_id", "model", "run")]
        if any(part is None for part in parts):
            return visible(self.attempt, 80)
        return visible(f"{parts[0]}/{parts[1]}/run{parts[2]}", 200)


class HostFacts(_Fact):
    """The whole answer of one host."""

    time: float | None = None
    python: str | None = None
    host_uid: str = Field(default="", max_length=64)
    user: str | None = None
    home: HomeFacts | None = None
    files: dict[str, FileFacts] = Field(default_factory=dict, max_length=MAX_ITEMS)
    commands: dict[str, CommandFacts] = Field(default_factory=dict, max_length=MAX_ITEMS)
    disk: DiskFacts | None = None
    memory: MemoryFacts | None = None
    tools: dict[str, str | None] = Field(default_factory=dict, max_length=MAX_ITEMS)
    rsync_version: str | None = None
    docker: DockerFacts | None = None
    processes: tuple[ProcessFacts, ...] = Field(default=(), max_length=MAX_ITEMS)
    logind: LogindFacts | None = None
    noise: NoiseFacts | None = None
    lock: LockFacts | None = None
    quarantine: QuarantineFacts | None = None
    attempts: tuple[AttemptFacts, ...] = Field(default=(), max_length=MAX_ITEMS)


def read_facts(answer: Any) -> HostFacts | str:
    """Return the answer as facts, or one line that says what is wrong with its shape."""
    try:
        return HostFacts.model_validate(answer)
    except ValidationError as error:
        first = error.errors()[0]
        return visible(f"{'.'.join(map(str, first['loc'])) or 'answer'}: {first['msg']}", 300)
