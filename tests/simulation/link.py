"""The way to a simulated host: what may happen to each request, and the agent's verbs as the executor calls them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from random import Random
from typing import Any

from fleet.agent.client import spec_digest
from fleet.errors import AgentError, NoAnswer, Unreachable
from tests.simulation.agent import AGENT, SEAT
from tests.simulation.bugs import Bug
from tests.simulation.machine import Machine


class Fate(Enum):
    """What becomes of one request."""

    ARRIVES = "arrives"
    DROP_REQUEST = "drop request"
    DROP_ANSWER = "drop answer"
    LATE = "arrives after its sender gave up"
    TWICE = "arrives twice"
    STALLS = "its agent stops in the middle, for now"
    AGENT_KILLED = "the answering process is killed on the way"
    POWER_FAILS = "the host loses power on the way"


class Network:
    """Decides the fate of every request from the history's own randomness, and tells the history."""

    def __init__(self, random: Random, tell: Any) -> None:
        self.random, self.tell = random, tell
        self.trouble = 0.0
        """Share of requests that do not simply arrive."""
        self.fates: tuple[Fate, ...] = tuple(Fate)[1:]
        self.moved: Counter[str] = Counter()
        """Attempt → how much its eval has printed; one that prints nothing stands still."""
        self.met: Counter[str] = Counter()
        """What went wrong so far, by kind."""

    def exchange(self, machine: Machine, request: dict[str, Any], *, late: bool = True) -> list[dict[str, Any]]:
        """Return the answer's frames; NoAnswer and Unreachable say as little as they do in life."""
        said = f"{machine.name}: {request['verb']} {request.get('attempt', '')}"
        if not machine.up:
            self.tell(f"{said}: unreachable")
            raise Unreachable(f"{machine.name} cannot be reached", host=machine.name)
        fate = Fate.ARRIVES
        if self.random.random() < self.trouble:
            fate = self.random.choice(self.fates)
            if request["verb"] == "launch" and Fate.LATE in self.fates and self.random.random() < 0.5:
                # Copies of a launch that outlive what was decided since: the ones that could do harm.
                fate = Fate.LATE
            if fate in (Fate.LATE, Fate.STALLS) and not late:
                fate = Fate.DROP_REQUEST
        self.met[fate.value] += fate is not Fate.ARRIVES
        frames = None
        if fate is Fate.LATE:
            machine.late.append(request)
        elif fate is Fate.STALLS:
            machine.stall(request, self.random.randrange(12))
        elif fate is not Fate.DROP_REQUEST:
            if fate in (Fate.AGENT_KILLED, Fate.POWER_FAILS):
                machine.disk.fuse, machine.power = self.random.randrange(12), fate is Fate.POWER_FAILS
            frames = machine.call(request)
            machine.power = False
        if fate is Fate.TWICE:
            machine.late.append(request)
        short = frames[-1].get("outcome") or (frames[-1].get("error") or {}).get("code") or "ok" if frames else "nothing"
        self.tell(f"{said}: {fate.value} → {short}")
        if frames is None or fate is Fate.DROP_ANSWER:
            raise NoAnswer(f"{machine.name} gave no answer", host=machine.name)
        for frame in frames:
            if frame.get("ok") is False:
                error = frame["error"]
                raise AgentError(error["message"], code=error["code"], detail=error["detail"], host=machine.name)
        return frames


class SimulatedClient:
    """The agent's verbs over a simulated link, with the signatures of fleet.agent.AgentClient."""

    def __init__(self, machine: Machine, network: Network) -> None:
        self._machine, self._network = machine, network

    def _ask(self, **request: Any) -> dict[str, Any]:
        return self._network.exchange(self._machine, {"nonce": "0", **request})[-1]

    def stage(self, files: Mapping[str, tuple[str, bytes]]) -> dict[str, str]:
        """Ask, and be answered; inputs as such are not simulated."""
        self._network.exchange(self._machine, {"verb": "status", "attempts": []}, late=False)
        return {sha: name for sha, (name, _) in files.items()}

    def launch(
        self,
        *,
        attempt: str,
        key: Mapping[str, Any],
        spec: Mapping[str, Any],
        after: Sequence[str] = (),
        batch: str = "",
        controller: str = "",
    ) -> dict[str, Any]:
        return self._ask(
            verb="launch",
            attempt=attempt,
            key=dict(key),
            spec=dict(spec),
            spec_sha256=spec_digest(spec),
            after=list(after),
            batch=batch,
            controller=controller,
        )

    def wait(self, attempt: str, *, beat_s: float = 30.0, max_s: float = 900.0) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield what one look at the attempt gives; the controller then waits anew, as after max_s."""
        request = {"verb": "wait", "attempt": attempt, "nonce": "0", "beat_s": 1.0, "max_s": 1.0}
        frames = self._network.exchange(self._machine, request, late=False)
        SEAT.machine = self._machine
        told, true = frames[-1]["status"]["state"], AGENT.derive(attempt)[0]
        if told != true:
            self._machine.violate(f"{self._machine.name}: who waits for {attempt} is told {told}, and it is {true}")
        for frame in frames:
            signs = {"log_bytes": self._network.moved[attempt], "cpu_s": 0.0, "containers": 0, "containers_cpu_s": 0.0}
            yield {**frame["status"], "progress": signs}, bool(frame.get("final"))

    def evidence(self, attempt: str) -> dict[str, Any]:
        return self._ask(verb="manifest", attempt=attempt)

    def status(self, attempts: Sequence[str] | None = None) -> dict[str, Any]:
        named = None if attempts is None else list(attempts)
        return self._network.exchange(self._machine, {"verb": "status", "attempts": named}, late=False)[-1]

    def withdraw(self, attempt: str, reason: str) -> dict[str, Any]:
        if self._machine.bug is Bug.REFUSAL_NOT_NOTED:
            found = self.status([attempt])["attempts"][0]
            return {} if found["state"] == "accepted" else dict(found)
        return dict(self._ask(verb="withdraw", attempt=attempt, reason=reason)["status"])

    def cancel(self, attempt: str, epoch: int | None, grace_s: float = 30.0) -> dict[str, Any]:
        return self._ask(verb="cancel", attempt=attempt, epoch=epoch, grace_s=grace_s)

    def quarantine(
        self, reason: str, tasks: Sequence[str], batch: str = "", controller: str = "", epoch: int | None = None
    ) -> bool:
        asked = {"reason": reason, "tasks": list(tasks), "batch": batch, "controller": controller, "epoch": epoch}
        return self._ask(verb="quarantine", **asked)["quarantine"] is not None

    def release(self) -> None:
        self._ask(verb="release")

    def ack(self, attempt: str, epoch: int | None, verdict: str | None = None) -> None:
        self._ask(verb="ack", attempt=attempt, epoch=epoch, verdict=verdict)
