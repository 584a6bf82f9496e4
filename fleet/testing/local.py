"""Hosts that are directories of this machine: the same commands and the same rsync, without SSH between."""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from fleet.errors import NoAnswer, Unreachable
from fleet.model.hosts import Hop, Host
from fleet.transport.limits import STDERR_TAIL
from fleet.transport.protocol import PullRequest, PullResult

_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"
"""What sshd gives a command on Debian; a test that passes with more would fail on a real host."""


def local_host(name: str, **fields: object) -> Host:
    """Return a Host for a LocalConnector; `fields` override those of Host."""
    hop = Hop(address="127.0.0.1", user=getpass.getuser(), host_key_alias=name)
    return Host.model_validate({"name": name, "hop": hop, "origin": "local", **fields})


class LocalConnector:
    """A Connector whose hosts are the directories `homes`, by host name; each is its host's HOME."""

    def __init__(self, homes: Mapping[str, Path]) -> None:
        self.homes = dict(homes)
        self.down: set[str] = set()
        """Names of hosts that cannot be reached for now."""
        self._open: list[LocalTransport] = []
        self._lock = threading.Lock()

    def open(self, host: Host) -> LocalTransport:
        """Return a transport; raises Unreachable for a host that is `down` or has no home."""
        if host.name in self.down or host.name not in self.homes:
            raise Unreachable(f"{host.name}: is not reachable (test)", hint="-", host=host.name)
        transport = LocalTransport(host, self.homes[host.name])
        with self._lock:
            self._open.append(transport)
        return transport

    def close(self) -> None:
        """Close every transport."""
        with self._lock:
            transports, self._open = self._open, []
        for transport in transports:
            transport.close()


class LocalTransport:
    """One "connection"; closing it ends its sessions' pipes and leaves the processes alone, as sshd does."""

    dead_after_s = 15.0

    def __init__(self, host: Host, home: Path) -> None:
        self.host = host
        self.home = home
        self._sessions: list[LocalSession] = []
        self._closed = False

    def start(self, command: str) -> LocalSession:
        """Run `sh -c command` with HOME and the working directory of the host."""
        if self._closed:
            raise Unreachable(f"{self.host.name}: the connection is lost", host=self.host.name)
        session = LocalSession(command, self.home, self.host.name)
        self._sessions.append(session)
        return session

    def alive(self, timeout_s: float) -> bool:  # noqa: ARG002
        """Tell whether the transport is open."""
        return not self._closed

    def pull(self, request: PullRequest) -> PullResult:
        """Copy with the real rsync and the real checks."""
        from fleet.transport.rsync import pull_locally

        return pull_locally(self.host.name, request)

    def close(self) -> None:
        """Close all sessions."""
        self._closed = True
        for session in self._sessions:
            session.close()


class LocalSession:
    """One local process behaving like a remote command."""

    def __init__(self, command: str, home: Path, host: str) -> None:
        self._host = host
        user = getpass.getuser()
        environment = {"HOME": str(home), "USER": user, "LOGNAME": user, "PATH": _PATH, "SHELL": "/bin/sh"}
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._closed = False
        self._ended = False
        self._tail = bytearray()
        # The pipe's end wakes `receive` when the session is closed by another thread.
        self._wake_read, self._wake_write = os.pipe()
        self._drain = threading.Thread(target=self._keep_stderr, daemon=True, name=f"stderr {host}")
        self._drain.start()

    def send(self, data: bytes) -> None:
        """Write to stdin; raises NoAnswer when the process is gone or the session closed."""
        stdin = self._process.stdin
        try:
            if stdin is None or self._closed:
                raise BrokenPipeError
            stdin.write(data)
            stdin.flush()
        except (OSError, ValueError):
            raise NoAnswer(f"{self._host}: the connection was lost while sending", host=self._host) from None

    def receive(self, timeout_s: float) -> bytes | None:
        """Return the next chunk of stdout, b"" at its end or when closed, None when nothing came in time."""
        stdout = self._process.stdout
        if stdout is None or self._closed or self._ended:
            return b""
        ready, _, _ = select.select([stdout.fileno(), self._wake_read], [], [], max(0.0, timeout_s))
        if self._closed or self._wake_read in ready:
            return b""
        if not ready:
            return None
        data = os.read(stdout.fileno(), 256 * 1024)
        self._ended = not data
        return data

    def stderr_tail(self) -> bytes:
        """Return the last 8 KiB of stderr."""
        if self._process.poll() is not None:
            self._drain.join(1.0)
        return bytes(self._tail)

    def exit_status(self, timeout_s: float) -> int | None:
        """Return the exit status; None when it is not known in time or a signal ended the process."""
        if self._closed:
            return None
        end = time.monotonic() + timeout_s
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.01, end - time.monotonic()))
        code = self._process.returncode
        return code if code is not None and code >= 0 else None

    def close(self) -> None:
        """Close the pipes; the process is not killed."""
        if self._closed:
            return
        self._closed = True
        os.write(self._wake_write, b"x")
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        # A reaper waits for the process, so that neither a zombie nor an open pipe outlives a test.
        threading.Thread(target=self._reap, daemon=True, name=f"reap {self._host}").start()

    def _reap(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdout is not None:
                self._process.stdout.close()
        self._process.wait()
        self._drain.join()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _keep_stderr(self) -> None:
        stream = self._process.stderr
        if stream is None:
            return
        with stream:
            while chunk := os.read(stream.fileno(), 65536):
                self._tail += chunk
                del self._tail[:-STDERR_TAIL]
