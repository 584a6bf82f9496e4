"""The host agent's verbs as typed calls: one session each, answers as plain dicts, refusals as AgentError."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from fleet.agent import wire
from fleet.agent.wire import Exchange
from fleet.errors import AgentError, InputError, NoAnswer
from fleet.model.hosts import Host
from fleet.transport import Connector, Session, Transport

Kind = TypeVar("Kind")
ANSWER_S = 60.0
"""A short question's deadline: ops.lock may take 10 s, docker 10 s, a readiness command up to its own limit."""

_BURST, _PER_SECOND = 200, 10
"""An agent speaks when something changes, and every few seconds; each change becomes a line of the journal."""
_SHORT = frozenset({"probe", "status", "logs", "manifest", "ack"})


@dataclass(frozen=True)
class SyncFile:
    """A file to be put below a root: its relative path, content and mode."""

    path: str
    body: bytes
    mode: int = 0o644

    @property
    def sha256(self) -> str:
        """Digest of the content."""
        return hashlib.sha256(self.body).hexdigest()


@dataclass(frozen=True)
class LogPiece:
    """Bytes of a log from `offset` on; `next` is where to go on."""

    offset: int
    data: bytes
    next: int
    size: int
    state: str


def spec_digest(spec: Mapping[str, Any]) -> str:
    """Return the sha256 of a launch specification: the same work has the same digest on every controller."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@cache
def _require_protocol(source: bytes) -> None:
    """Refuse an agent of another version than the controller: the host would refuse every request of ours."""
    found = re.search(rb"^PROTOCOL = (\d+)$", source, re.MULTILINE)
    if found is not None and int(found[1]) != wire.PROTOCOL:
        raise InputError(
            f"the host agent of this installation speaks protocol {int(found[1])}, fleet itself {wire.PROTOCOL}",
            hint="reinstall fleet: its remote_scripts/ are of another version",
        )


@contextmanager
def agent_on(connector: Connector, host: Host, source: bytes, host_uid: str) -> Iterator[AgentClient]:
    """Open a connection for the calls inside, and close it again whatever happens.

    `host_uid` is the identity that the host is known by; nothing is done by a machine with another one. Empty when none is
    known, or when the question is which machine this is.
    """
    transport = connector.open(host)
    try:
        yield AgentClient(transport, source, host_uid)
    finally:
        transport.close()


class AgentClient:
    """Calls of the host agent over one transport; `source` is the agent's own file.

    With a `host_uid`, a host that has another identity in its `~/.fleet` refuses everything: AnotherMachine.
    """

    def __init__(self, transport: Transport, source: bytes, host_uid: str = "") -> None:
        self.transport = transport
        _require_protocol(source)
        self._source = source
        self._envelope = {"host_uid": host_uid} if host_uid else {}
        self._sha = hashlib.sha256(source).hexdigest()
        self._talking = False
        self._noise = b""
        self._kept: Session | None = None

    @contextmanager
    def conversation(self) -> Iterator[None]:
        """Let one remote process answer the short questions asked inside: starting one costs the host 20 ms of CPU each time.

        For one thread. Launching, cancelling, waiting and sending files keep processes of their own.
        """
        nested, self._talking = self._talking, True
        try:
            yield
        finally:
            self._talking = nested
            kept, self._kept = (self._kept, None) if not nested else (None, self._kept)
            if kept is not None:
                kept.close()

    def probe(self, questions: Mapping[str, Any], deadline_s: float = 120.0) -> dict[str, Any]:
        """Return the host's facts for all `questions` in one round trip."""
        facts = self._part(self._ask({"verb": "probe", "questions": dict(questions)}, deadline_s), "facts", dict)
        noise = self._noise
        return {**facts, "noise": {"bytes": len(noise), "sample": noise.decode("utf-8", "replace")}}

    def stage(self, files: Mapping[str, tuple[str, bytes]]) -> dict[str, str]:
        """Store input files, sha256 → (name, body), and return sha256 → absolute path on the host."""
        offered = [{"sha256": sha, "name": name, "size": len(body)} for sha, (name, body) in files.items()]
        answer = self._ask({"verb": "stage", "files": offered}, 300.0, {sha: body for sha, (_, body) in files.items()})
        return {str(sha): str(path) for sha, path in self._part(answer, "paths", dict).items()}

    def sync(self, root: str, files: Sequence[SyncFile], *, dry_run: bool, processes: Sequence[str] = ()) -> dict[str, Any]:
        """Bring `files` below `root`; refused with code `busy` while an eval runs."""
        offered = [{"path": one.path, "sha256": one.sha256, "size": len(one.body), "mode": one.mode} for one in files]
        request = {"verb": "sync", "root": root, "files": offered, "dry_run": dry_run, "processes": list(processes)}
        return self._ask(request, 300.0, {one.sha256: one.body for one in files})

    def rollback(self, root: str, backup: str | None = None, processes: Sequence[str] = ()) -> dict[str, Any]:
        """Put back what the named, or the last, sync below `root` replaced."""
        return self._ask({"verb": "rollback", "root": root, "backup": backup, "processes": list(processes)}, ANSWER_S)

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
        """Have the attempt taken and started, at most once; sending it again gives `already`."""
        request = {
            "verb": "launch",
            "attempt": attempt,
            "key": dict(key),
            "spec": dict(spec),
            "spec_sha256": spec_digest(spec),
            "after": list(after),
            "batch": batch,
            "controller": controller,
        }
        return self._ask(request, ANSWER_S)

    def withdraw(self, attempt: str, reason: str) -> dict[str, Any]:
        """Have the host settle that an attempt which has not started never will; return its status, which says which is true.

        The state `refused` means that no copy of its launch can start it, not one that is still on its way either.
        """
        return self._part(self._ask({"verb": "withdraw", "attempt": attempt, "reason": reason}, ANSWER_S), "status", dict)

    def wait(
        self, attempt: str, *, beat_s: float = 30.0, max_s: float = 900.0, progress_s: float = 60.0
    ) -> Iterator[tuple[dict[str, Any], bool]]:
        """Yield (status, final) at once, on every change and every beat; the host blocks in its kernel in between.

        The log's part of `progress` is that of the beat; CPU times and containers are counted anew every `progress_s`.
        """
        request = {"verb": "wait", "attempt": attempt, "beat_s": beat_s, "max_s": max_s, "progress_s": progress_s}
        exchange = self._exchange(request)
        final = False
        with closing(exchange):
            begun = time.monotonic()
            for number, frame in enumerate(exchange.frames(quiet_s=2 * beat_s + 10.0)):
                if number > _BURST + _PER_SECOND * (time.monotonic() - begun):
                    host = self.transport.host.name
                    raise AgentError(f"{host} tells of changes too often to be followed", code="protocol", host=host)
                final = bool(frame.get("final"))
                yield self._part(frame, "status", dict), final
            if not final:
                # After `max_s` the host ends it; a link that was cut looks the same up to here.
                exchange.require_end()

    def status(self, attempts: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the named attempts, or all unacknowledged ones, with the lock and the disk."""
        return self._listed(self._ask({"verb": "status", "attempts": None if attempts is None else list(attempts)}, ANSWER_S))

    def every_attempt(self) -> dict[str, Any]:
        """Return the status of all attempts that the host has ever taken; waits for a launch in progress, and may be `busy`."""
        return self._listed(self._ask({"verb": "status", "every": True}, ANSWER_S))

    def logs(self, attempt: str, offset: int = 0, max_bytes: int = 65_536, wait_s: float = 0.0) -> LogPiece:
        """Return a piece of the log; with `wait_s`, block until there is more or the eval has ended."""
        request = {"verb": "logs", "attempt": attempt, "offset": offset, "max_bytes": max_bytes, "wait_s": wait_s}
        answer = self._ask(request, ANSWER_S + wait_s)
        try:
            data = base64.b64decode(self._part(answer, "data", str))
        except ValueError:
            raise self._nonsense("data") from None
        return LogPiece(
            offset=self._part(answer, "offset", int),
            data=data,
            next=self._part(answer, "next", int),
            size=self._part(answer, "size", int),
            state=str(answer.get("state")),
        )

    def cancel(self, attempt: str, epoch: int | None, grace_s: float = 30.0) -> dict[str, Any]:
        """End the attempt's processes and containers, verified; AgentError `held` when something is left."""
        request = {"verb": "cancel", "attempt": attempt, "epoch": epoch, "grace_s": grace_s}
        return self._ask(request, grace_s + 120.0)

    def evidence(self, attempt: str) -> dict[str, Any]:
        """Return {manifest, status, intent} of an ended attempt; hashing large outputs may take minutes."""
        return self._ask({"verb": "manifest", "attempt": attempt}, 900.0)

    def manifest(self, attempt: str) -> dict[str, Any]:
        """Return the sealed manifest of an ended attempt."""
        return self._part(self.evidence(attempt), "manifest", dict)

    def find(self, root: str, instance_ids: Sequence[str], marker: str = "output.jsonl") -> list[dict[str, Any]]:
        """Return directories below `root` whose marker file names one of the instances (all when none is given)."""
        request = {"verb": "find", "root": root, "marker": marker, "instance_ids": list(instance_ids)}
        found = self._part(self._ask(request, 600.0), "found", list)
        return [one for one in found if isinstance(one, dict)]

    def manifest_of(self, root: str, limits: Mapping[str, Any]) -> dict[str, Any]:
        """Return the manifest of a directory that fleet did not write."""
        answer = self._ask({"verb": "manifest_of", "root": root, "limits": dict(limits)}, 900.0)
        return self._part(answer, "manifest", dict)

    def ack(self, attempt: str, epoch: int | None, verdict: str | None = None) -> None:
        """Tell the host that a verified copy is here, and what became of it."""
        self._ask({"verb": "ack", "attempt": attempt, "epoch": epoch, "verdict": verdict}, ANSWER_S)

    def quarantine(
        self, reason: str, tasks: Sequence[str], batch: str = "", controller: str = "", epoch: int | None = None
    ) -> bool:
        """Have the host take no new attempt from anybody; the first reason stands.

        `epoch` is that of the last attempt that speaks against it. False when a person has released the host after that one.
        """
        request = {"verb": "quarantine", "reason": reason, "tasks": list(tasks), "batch": batch, "controller": controller}
        return self._ask(request | {"epoch": epoch}, ANSWER_S).get("quarantine") is not None

    def release(self) -> dict[str, Any] | None:
        """Lift the host's quarantine; return what it was, None when there was none."""
        released = self._ask({"verb": "release"}, ANSWER_S).get("released")
        return released if isinstance(released, dict) else None

    def _listed(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Return an answer whose `attempts` is the list of objects that it must be."""
        attempts = self._part(answer, "attempts", list)
        return {**answer, "attempts": [one for one in attempts if isinstance(one, dict)]}

    def _part(self, answer: Mapping[str, Any], name: str, kind: type[Kind]) -> Kind:
        """Return a part of an answer, which is a host's and may be anything."""
        part = answer.get(name)
        if not isinstance(part, kind):
            raise self._nonsense(name)
        return part

    def _nonsense(self, name: str) -> AgentError:
        host = self.transport.host.name
        return AgentError(f"the answer of {host} has no usable {name!r}", code="protocol", host=host)

    def _exchange(self, request: Mapping[str, Any], bodies: Mapping[str, bytes] | None = None) -> Exchange:
        return Exchange(self.transport, self._source, self._sha, {**request, **self._envelope}, bodies)

    def _ask(self, request: Mapping[str, Any], deadline_s: float, bodies: Mapping[str, bytes] | None = None) -> dict[str, Any]:
        if self._talking and bodies is None and request["verb"] in _SHORT:
            return self._talk(request, deadline_s)
        exchange = self._exchange(request, bodies)
        with closing(exchange):
            for frame in exchange.frames(quiet_s=deadline_s, total_s=deadline_s):
                self._noise = exchange.noise
                return frame
        raise NoAnswer(f"{self.transport.host.name} gave no answer", host=self.transport.host.name)

    def _talk(self, request: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        """Ask the agent of the conversation; whatever goes wrong, the next question has a fresh one."""
        kept, self._kept = self._kept, None
        exchange = Exchange(self.transport, self._source, self._sha, {**request, **self._envelope}, kept=kept, more=True)
        try:
            frame = next(exchange.frames(quiet_s=deadline_s, total_s=deadline_s))
        except BaseException:
            exchange.close()
            raise
        self._kept = exchange.keep()
        self._noise = exchange.noise
        return frame
