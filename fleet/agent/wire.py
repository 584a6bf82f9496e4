"""How a request reaches the host agent and how its answer is told from noise.

The remote command is a constant: it reads one line of Python, the bootstrap below, and runs it. Everything else travels on
stdin, so nothing from an assignment ever meets a shell:

    line 1   the bootstrap, as a Python string literal
    line 2   the request, one JSON line with a fresh nonce and the agent's sha256
    then     the agent's source and file bodies, only when the host asks for them; the next request when this one had `more`

Answers are lines `<<NONCE {json}>>`. Whatever a .bashrc, a banner or a dying connection prints is not a frame.
"""

from __future__ import annotations

import json
import math
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fleet.errors import AgentError, AnotherMachine, NoAnswer
from fleet.model.names import plain
from fleet.transport import Session, Transport

PROTOCOL = 1
COMMAND = 'exec python3 -I -S -c "import sys;exec(eval(sys.stdin.buffer.readline()))"'
_PLAIN_PROGRAM = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*\Z")
_DIGITS = 20
_CODE = re.compile(r"[a-z][a-z-]{0,39}\Z")
MAX_FRAME = 64 * 1024 * 1024
MAX_NOISE = 16 * 1024 * 1024
MAX_SAMPLE = 256
SILENCE_SHARE = 0.73
"""Of `dead_after`, how long a host may be silent before it is asked for a sign of life, which then has the rest.

With 15 s it is asked after 11: a waiting host speaks every 10 s by itself.
"""

_BOOTSTRAP = """
import gc
gc.disable()
import hashlib, json, os, stat, sys
umask = os.umask(0o077)
stdin = sys.stdin.buffer
request = json.loads(stdin.readline(1 << 20))
request["umask"] = umask
root = os.path.join(os.path.expanduser("~"), ".fleet")
folder = os.path.join(root, "agent-" + request["agent"])
path = os.path.join(folder, "fleet_host.py")
def say(document):
    sys.stdout.write("<<%s %s>>\\n" % (request["nonce"], json.dumps(document)))
    sys.stdout.flush()
def refuse(message):
    say({"ok": False, "error": {"code": "refused", "message": message, "detail": {}}})
    sys.exit(0)
def installed():
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == request["agent"]
    except OSError:
        return False
try:
    if sys.version_info < (3, 8):
        refuse("python3 is %d.%d; the agent needs 3.8" % sys.version_info[:2])
    os.makedirs(root, 0o700, exist_ok=True)
    info = os.lstat(root)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        refuse(root + " is not a directory owned by this user")
    if not installed():
        say({"need": "agent"})
        source = stdin.read(request["agent_size"])
        if hashlib.sha256(source).hexdigest() != request["agent"]:
            refuse("the agent did not arrive whole")
        os.makedirs(folder, 0o700, exist_ok=True)
        fresh = "%s.%d" % (path, os.getpid())
        with open(fresh, "wb") as file:
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        os.rename(fresh, path)
except OSError as error:
    refuse("cannot install the agent: %s" % error)
sys.path.insert(0, folder)
import fleet_host
while request:
    more = request.pop("more", False)
    fleet_host.main(request, stdin)
    line = stdin.readline(1 << 20) if more else b""
    request = dict(json.loads(line), umask=umask) if line else None
os._exit(0)
"""
# No garbage is collected and the interpreter is not taken apart: a request is over in 20 ms, and both would take 4 of them.
_PREAMBLE = repr(_BOOTSTRAP).encode() + b"\n"


def _whole(text: str) -> int:
    """Read an integer that the rest of fleet can divide, add and print; Python would take one of 4,000 digits."""
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a number")
    return value


def command_for(python: str) -> str:
    """Return the remote command for an interpreter from hosts.yaml: a plain program name or path, nothing a shell reads."""
    if not _PLAIN_PROGRAM.match(python):
        raise AgentError(f"{python!r} is not a plain program name", code="bad-request")
    return COMMAND.replace("python3", python, 1)


class Exchange:
    """One request on one session: sends it, serves what the host asks for, yields the answers."""

    def __init__(
        self,
        transport: Transport,
        agent: bytes,
        agent_sha: str,
        request: Mapping[str, Any],
        bodies: Mapping[str, bytes] | None = None,
        *,
        kept: Session | None = None,
        more: bool = False,
    ) -> None:
        """Send `request` to a fresh agent, or to the one that an earlier request with `more` left waiting in `kept`."""
        self._transport = transport
        self._host = transport.host.name
        self._agent = agent
        self._bodies = bodies or {}
        nonce = secrets.token_hex(16)
        self._begin = b"<<" + nonce.encode() + b" "
        self._buffer = bytearray()
        self._searched = 0
        """How far the buffer was looked through; looking again from its start would make a long answer cost its square."""
        self._skipped = 0
        self._sent: set[str] = set()
        document = {**request, "protocol": PROTOCOL, "nonce": nonce, "agent": agent_sha, "agent_size": len(agent)}
        line = json.dumps({**document, "more": True} if more else document).encode() + b"\n"
        if len(line) > 1 << 20:
            raise AgentError("the request is larger than 1 MB", code="bad-request", host=self._host)
        self.noise = b""
        """What came beside the frames, at most MAX_SAMPLE bytes: a login shell that talks."""
        self._session: Session = kept or transport.start(command_for(transport.host.python))
        try:
            self._send(line if kept else _PREAMBLE + line)
        except BaseException:
            self._session.close()
            raise

    def keep(self) -> Session:
        """Return the session of an answered request with `more`; its agent reads the next one."""
        return self._session

    def close(self) -> None:
        """End the session; a waiting agent sees its stdin close and goes."""
        self._session.close()

    def frames(self, quiet_s: float, total_s: float | None = None) -> Iterator[dict[str, Any]]:
        """Yield answers until the host ends the session; NoAnswer after `quiet_s` of silence or a cut link.

        `total_s` bounds the whole exchange. A refusal is raised as AgentError.
        """
        deadline = None if total_s is None else time.monotonic() + total_s
        answered = False
        while True:
            frame = self._next_frame(quiet_s, deadline)
            if frame is None:
                if not answered:
                    raise self._silence()
                return
            need = frame.get("need")
            if need == "agent":
                self._once("agent")
                self._send(self._agent)
            elif isinstance(need, list):
                # One by one: a host that names a large file a million times must not have them all in memory here.
                for item in need:
                    self._send(self._body(item))
            elif frame.get("ok") is True:
                answered = True
                yield frame
            else:
                raise self._refusal(frame)

    def require_end(self) -> None:
        """Raise NoAnswer when the answers did not end because the agent had: without its exit status, the link did."""
        if self._session.exit_status(2.0) != 0:
            raise self._silence()

    def _send(self, data: bytes) -> None:
        """Send, and when the remote command had ended before it read all, say so instead of blaming the link."""
        try:
            self._session.send(data)
        except NoAnswer:
            if self._session.exit_status(2.0) is None:
                raise
            raise self._silence() from None

    def _body(self, item: Any) -> bytes:
        sha = item.get("sha256") if isinstance(item, dict) else None
        if not isinstance(sha, str) or sha not in self._bodies:
            raise AgentError("the host asks for a file that it was not offered", code="protocol", host=self._host)
        self._once(sha)
        return self._bodies[sha]

    def _once(self, what: str) -> None:
        if what in self._sent:
            raise AgentError("the host asks for the same file again and again", code="protocol", host=self._host)
        self._sent.add(what)

    def _next_frame(self, quiet_s: float, deadline: float | None) -> dict[str, Any] | None:
        """Return the next frame, or None when the host has ended its output."""
        while True:
            frame = self._cut_frame()
            if frame is not None:
                return frame
            chunk = self._next_chunk(quiet_s if deadline is None else min(quiet_s, deadline - time.monotonic()))
            if chunk == b"":
                return None
            self._buffer += chunk

    def _next_chunk(self, patience_s: float) -> bytes:
        """Return the next output; in a long silence, see now and then whether the host is still there.

        The kernel notices a dead peer by itself, but behind a jump host its peer is the jump host.
        """
        give_up = time.monotonic() + patience_s
        dead_after_s = self._transport.dead_after_s
        silence_s = dead_after_s * SILENCE_SHARE
        while True:
            left = give_up - time.monotonic()
            if left <= 0:
                raise NoAnswer(f"{self._host} gave no answer in time", hint=f"fleet check {self._host}", host=self._host)
            chunk = self._session.receive(min(left, silence_s))
            if chunk is not None:
                return chunk
            if left > silence_s and not self._transport.alive(dead_after_s - silence_s):
                raise NoAnswer(f"the connection to {self._host} is dead", hint=f"fleet check {self._host}", host=self._host)

    def _cut_frame(self) -> dict[str, Any] | None:
        if not self._buffer.startswith(self._begin) and not self._skip_noise():
            return None
        end = self._buffer.find(b">>\n", self._searched)
        if end < 0:
            if len(self._buffer) > MAX_FRAME:
                raise AgentError(f"the answer of {self._host} is larger than 64 MB", code="protocol", host=self._host)
            self._searched = max(len(self._begin), len(self._buffer) - 2)
            return None
        raw = bytes(self._buffer[len(self._begin) : end])
        del self._buffer[: end + 3]
        self._searched = 0
        try:
            frame = json.loads(raw, parse_int=_whole, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            frame = None
        if not isinstance(frame, dict):
            raise AgentError(f"the answer of {self._host} is not a JSON object", code="protocol", host=self._host)
        return frame

    def _skip_noise(self) -> bool:
        """Drop what stands before the next frame, and tell whether one begins."""
        start = self._buffer.find(self._begin)
        # Without a frame, the end of the buffer may be the beginning of one.
        noise = start if start >= 0 else max(0, len(self._buffer) - len(self._begin))
        self.noise += bytes(self._buffer[: min(noise, MAX_SAMPLE - len(self.noise))])
        self._skipped += noise
        if self._skipped > MAX_NOISE:
            text = f"{self._host} prints without end and gives no answer"
            raise AgentError(text, code="protocol", hint="does the account's .bashrc print?", host=self._host)
        del self._buffer[:noise]
        return start >= 0

    def _refusal(self, frame: Mapping[str, Any]) -> AgentError | AnotherMachine:
        error = frame.get("error")
        error = error if isinstance(error, dict) else {}
        detail, code = error.get("detail"), error.get("code")
        if code == "another-machine":
            return AnotherMachine(
                f"{self._host}: another machine answers under this name, or its ~/.fleet was deleted; nothing was started",
                hint=f"bring the right machine back, then run the command again; fleet why {self._host}",
                host=self._host,
            )
        return AgentError(
            plain(str(error.get("message", "refused without a reason")), 2000),
            code=code if isinstance(code, str) and _CODE.match(code) else "internal",
            detail=detail if isinstance(detail, dict) else {},
            host=self._host,
        )

    def _silence(self) -> NoAnswer | AgentError:
        """Explain an output without a frame by the exit status and what stderr said."""
        status = self._session.exit_status(2.0)
        said = (
            plain(self._session.stderr_tail().decode("utf-8", "replace").strip().splitlines()[-1:][0], 300)
            if (self._session.stderr_tail().strip())
            else ""
        )
        python = self._transport.host.python
        if status == 127 or (python in said and "not found" in said):
            where = "" if python.startswith("/") else " on the PATH of a non-interactive shell"
            return AgentError(
                f"{self._host} has no {python}{where}",
                code="not-ready",
                hint="install Python 3.8 or newer on the host, or name the one it has: python: in hosts.yaml",
                host=self._host,
            )
        if status is None:
            text = f"the connection to {self._host} ended before an answer"
            return NoAnswer(text, hint="run the command again", host=self._host)
        detail = f": {said}" if said else ""
        return NoAnswer(
            f"{self._host} ended with status {status} and no answer{detail}",
            hint="does the account's .bashrc end or replace the shell? try: "
            f"ssh {self._transport.host.hop.address} {python} --version",
            host=self._host,
        )
