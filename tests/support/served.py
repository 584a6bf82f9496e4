"""The web dashboard as a process, and requests to it that no browser would send.

What the tests take for granted of it, in one place:

    fleet dashboard BATCH --serve --listen 127.0.0.1:PORT --json
        its first line on stdout is an object with `url` and `token_file`; it serves until it gets SIGINT
    token_file
        below $XDG_STATE_HOME/fleet, 0600; the token goes into `Authorization: Bearer TOKEN`, or into the cookie that
        POST /login with that header sets
    GET /, GET /logs/TASK
        the page; a log as text/plain
    fleet dashboard BATCH --html FILE
        the same page in one file, without a server
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.operator import Operator, finish


class ServerMissing(AssertionError):
    """`fleet dashboard` does not know the option: there is no web dashboard yet."""


@dataclass(frozen=True)
class Answer:
    """Status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    """A running server."""

    port: int
    token: str
    token_file: Path
    pid: int

    def ask(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        token: str | None = "",
        body: bytes = b"",
    ) -> Answer:
        """Send a request with the token (None sends none) and exactly these headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        sent = {"Host": f"127.0.0.1:{self.port}", **(headers or {})}
        if token is not None:
            sent.setdefault("Authorization", f"Bearer {token or self.token}")
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def served(operator: Operator, batch: str, *, listen: str = "127.0.0.1") -> Iterator[Served]:
    """Yield the web dashboard of a batch; ServerMissing when this fleet has none."""
    port = free_port()
    process = operator.start("dashboard", batch, "--serve", "--listen", f"{listen}:{port}", "--json")
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], 20)
        line = process.stdout.readline() if ready else ""
        if not line:
            said = finish(process, 20)
            if "No such option" in said.err:
                raise ServerMissing(said.err)
            raise AssertionError(said.err)
        told: dict[str, Any] = json.loads(line)
        token_file = Path(told["token_file"])
        yield Served(port, token_file.read_text().strip(), token_file, process.pid)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            finish(process, 20)


def page_in_a_file(operator: Operator, batch: str, path: Path) -> bytes:
    """Return the page that `--html` writes; ServerMissing when this fleet writes none."""
    said = operator.run("dashboard", batch, "--html", path)
    if "No such option" in said.err:
        raise ServerMissing(said.err)
    assert said.code == 0, said.err
    assert os.stat(path).st_mode & 0o077 == 0
    return path.read_bytes()
