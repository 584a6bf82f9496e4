"""A host of the real agent without SSH, whose evals are shell scripts that keep their own record of starts.

with agent_host(tmp_path / "eval1") as host:
    host.launch("sleep 1; exit 3")
    assert host.wait()["rc"] == 3
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.agent import AgentClient, spec_digest
from fleet.inventory.pipelines import agent_source
from fleet.testing import LocalConnector, LocalTransport, local_host

INSTANCE = "1319603449576684"
_RECORD = 'echo "$FLEET_ATTEMPT $$" >> ~/starts\n'


@dataclass
class AgentHost:
    """One HOME, the way to its agent, and what a test may look at behind the agent's back."""

    home: Path
    connector: LocalConnector
    transport: LocalTransport
    client: AgentClient
    source: bytes = field(repr=False)

    # What a controller does

    def launch(
        self,
        script: str,
        attempt: str = "a1",
        *,
        key: Mapping[str, Any] | None = None,
        after: Sequence[str] = (),
        **spec: Any,
    ) -> dict[str, Any]:
        """Launch `script`, recorded in ~/starts when it begins; every attempt is another task unless `key` says so."""
        return self.client.launch(
            attempt=attempt, key=key or self.key(attempt), spec=self.spec(script, **spec), after=after, batch="phase8"
        )

    @staticmethod
    def key(instance: str = INSTANCE, model: str = "gpt", run: int = 1) -> dict[str, Any]:
        """Return a task's key."""
        return {"instance_id": instance, "model": model, "run": run, "dataset_sha256": "0" * 64}

    @staticmethod
    def spec(script: str, **changes: Any) -> dict[str, Any]:
        """Return the specification of an eval that is `script`."""
        base = {
            "pipeline": "small",
            "workdir": "~/work",
            "argv": ["/bin/sh", "-c", _RECORD + script],
            "env": {},
            "timeout_s": 60,
            "outputs": {"root": "{output_dir}", "marker": "output.jsonl"},
            "cleanup": {"processes": "kill", "containers": "keep", "grace_s": 2},
        }
        return base | changes

    def wait(self, attempt: str = "a1", *, max_s: float = 20.0) -> dict[str, Any]:
        """Return the final status; fails when the attempt has not ended in time."""
        deadline = time.monotonic() + max_s
        while (left := deadline - time.monotonic()) > 0:
            # A stream that ends without a final answer was cut: a controller asks again.
            for status, final in self.client.wait(attempt, beat_s=5.0, max_s=left):
                if final:
                    return status
        raise AssertionError(f"{attempt} has not ended within {max_s} s")

    def state(self, attempt: str = "a1") -> str:
        """Return the state that the agent derives."""
        return str(self.status(attempt)["state"])

    def status(self, attempt: str = "a1") -> dict[str, Any]:
        """Return the attempt's status."""
        (status,) = self.client.status([attempt])["attempts"]
        return dict(status)

    def lock(self) -> dict[str, Any]:
        """Return what the agent says about the host lock."""
        return dict(self.client.status([])["lock"])

    # What the agent must not be asked about itself

    @property
    def fleet(self) -> Path:
        """The agent's directory."""
        return self.home / ".fleet"

    def dir(self, attempt: str = "a1") -> Path:
        """Return the attempt's directory."""
        return self.fleet / "attempts" / attempt

    def document(self, name: str, attempt: str = "a1") -> dict[str, Any]:
        """Return one of the attempt's files."""
        return dict(json.loads((self.dir(attempt) / name).read_text()))

    def starts(self, attempt: str | None = None) -> list[str]:
        """Return the attempts in the order in which their evals really began, from the evals' own record."""
        with contextlib.suppress(FileNotFoundError):
            begun = [line.split()[0] for line in (self.home / "starts").read_text().splitlines()]
            return [one for one in begun if attempt in (None, one)]
        return []

    def pids(self) -> dict[int, str]:
        """Return the processes of this host with their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if f"HOME={self.home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found

    def supervisor(self, attempt: str = "a1") -> int:
        """Return the supervisor's pid."""
        return int(self.document("started.json", attempt)["pid"])

    def runner(self, attempt: str = "a1") -> int:
        """Return the runner's pid: the supervisor's only child."""
        return only_child(self.supervisor(attempt))

    def evaluation(self, attempt: str = "a1") -> int:
        """Return the eval's pid."""
        return only_child(self.runner(attempt))

    def await_start(self, attempt: str = "a1", count: int = 1) -> None:
        """Return when the eval has really begun."""
        eventually(lambda: len(self.starts(attempt)) >= count, f"{attempt} has begun")

    def end_all(self) -> None:
        """Kill every process of this host."""
        deadline = time.monotonic() + 10
        while found := self.pids():
            for pid in found:
                kill(pid)
            assert time.monotonic() < deadline, found
            time.sleep(0.01)


@contextlib.contextmanager
def agent_host(home: Path, *, source: bytes | None = None, workdir: bool = True) -> Iterator[AgentHost]:
    """Yield a host whose HOME is `home`; everything that still runs there is ended on exit."""
    home.mkdir(parents=True, exist_ok=True)
    if workdir:
        (home / "work").mkdir(exist_ok=True)
    connector = LocalConnector({"eval1": home})
    transport = connector.open(local_host("eval1"))
    source = source or agent_source()
    host = AgentHost(home, connector, transport, AgentClient(transport, source), source)
    try:
        yield host
    finally:
        connector.close()
        host.end_all()
        for thread in threading.enumerate():
            if thread.name == "reap eval1":
                thread.join(10)


def only_child(pid: int) -> int:
    """Return the pid of the only child of `pid`, once it has one."""
    found: list[str] = []

    def one() -> bool:
        found[:] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return len(found) == 1

    eventually(one, f"process {pid} has one child")
    return int(found[0])


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def eventually(true: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    """Return when `true` answers yes; fails with `what` after the time is up."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.01)


__all__ = ["INSTANCE", "AgentHost", "agent_host", "eventually", "gone", "kill", "only_child", "spec_digest"]
