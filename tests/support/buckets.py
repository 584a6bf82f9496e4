"""Real S3 servers on loopback: moto's, which judges signatures and IAM policies, behind a front; and rclone's.

moto fails on a request without a signature once it judges signatures. The front gives such a request the signature of the IAM
user `everyone`, who may do nothing until a test allows it: what everybody may do is an IAM policy like any other. The front
also keeps what was asked, and lets a test answer in moto's stead.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

DEADLINE_S = 30.0
REGION = "us-east-1"
EVERYONE = "everyone"
Reply = tuple[int, bytes]


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: str
    signed: bool

    @property
    def changes(self) -> bool:
        """Whether a server that lets it through changes something: all but reading, and the completion of no upload."""
        return self.method not in ("GET", "HEAD") and not (self.method == "POST" and self.query.startswith("uploadId="))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def served(command: Sequence[str], port: int, log: Path) -> Iterator[str]:
    """Run a server until the block ends; yields its address once it accepts."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
            with socket.socket() as one:
                one.settimeout(1)
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def moto_server(directory: Path) -> Any:
    """Return moto's server as a context."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return served(command, port, directory / "moto.log")


def rclone_server(directory: Path, *, key: tuple[str, str] | None) -> Any:
    """Return rclone's server; buckets are the directories in `directory`, and without `key` everybody may do everything."""
    port = free_port()
    program = shutil.which("rclone", path=str(Path(sys.executable).parent))
    assert program is not None, "rclone is missing: make install"
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--vfs-cache-mode", "off", "--config", "/dev/null"]
    if key is not None:
        command += ["--auth-key", ",".join(key)]
    return served([*command, str(directory)], port, directory.parent / "rclone.log")


@dataclass
class Front:
    """What stands before moto: the address that fleet is given, what was asked, and what a test answers itself."""

    url: str
    behind: str
    users: dict[str, tuple[str, str]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    instead: Callable[[Asked], Reply | None] = lambda asked: None

    # --- who may what ---

    def client(self, service: str, user: str = "admin") -> Any:
        """Return a client of moto itself, past the front."""
        key, secret = self.users[user]
        return boto3.client(
            service, endpoint_url=self.behind, region_name=REGION, aws_access_key_id=key, aws_secret_access_key=secret
        )

    def user(self, name: str, *allowed: tuple[str | list[str], str | list[str]]) -> tuple[str, str]:
        """Make an IAM user, or take one, who may do exactly `allowed`: pairs of actions and resources. Returns the key."""
        iam = self.client("iam")
        if name not in self.users:
            iam.create_user(UserName=name)
            made = iam.create_access_key(UserName=name)["AccessKey"]
            self.users[name] = (made["AccessKeyId"], made["SecretAccessKey"])
        statements = [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in allowed]
        if statements:
            policy = {"Version": "2012-10-17", "Statement": statements}
            iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
        return self.users[name]

    def everyone_may(self, *allowed: tuple[str | list[str], str | list[str]]) -> None:
        """Let requests without a signature do this."""
        self.user(EVERYONE, *allowed)

    def reset(self) -> None:
        """Empty moto, and begin anew with an administrator and an everyone who may do nothing."""
        self._moto("reset-auth", b"inf")
        self._moto("reset", b"")
        self.users = {"admin": ("AKIAADMIN", "unused")}
        del self.asked[:]
        self.instead = lambda asked: None
        made = self.user("root", ("*", "*"))
        self.users["admin"] = made
        self.user(EVERYONE)
        self._moto("reset-auth", b"0")

    def _moto(self, action: str, body: bytes) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.behind}/moto-api/{action}", data=body, headers=headers, method="POST")
        urllib.request.urlopen(request, timeout=DEADLINE_S).close()

    # --- requests ---

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Pass a request on, signed for everyone where it is not signed."""
        parts = urlsplit(target)
        asked = Asked(method, parts.path, parts.query, "Authorization" in headers)
        self.asked.append(asked)
        own = self.instead(asked)
        if own is not None:
            return own[0], [("Content-Type", "application/xml")], own[1]
        passed = {name: value for name, value in headers.items() if name.lower() not in ("connection", "expect")}
        if not asked.signed:
            passed |= self._signature(method, target, passed, body)
        host = urlsplit(self.behind)
        connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=DEADLINE_S)
        try:
            connection.request(method, target, body or None, passed)
            found = connection.getresponse()
            return found.status, found.getheaders(), found.read()
        finally:
            connection.close()

    def _signature(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> dict[str, str]:
        request = AWSRequest(method, f"http://{headers['Host']}{target}", headers=dict(headers), data=body)
        S3SigV4Auth(Credentials(*self.users[EVERYONE]), "s3", REGION).add_auth(request)
        return dict(request.headers.items())


@contextmanager
def front_of(behind: str) -> Iterator[Front]:
    """Put a front before the moto server at `behind` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = front.answer(self.command, self.path, dict(self.headers.items()), body)
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("connection", "date", "server", "transfer-encoding"):
                    self.send_header(name, value)
            if not any(name.lower() == "content-length" for name, _ in headers):
                self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Stay silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Pass over a client that gave up waiting."""
            if not isinstance(sys.exc_info()[1], OSError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    front = Front(f"http://127.0.0.1:{server.server_port}", behind)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def error(code: str) -> bytes:
    """Return the body of an S3 error."""
    assert re.fullmatch(r"\w+", code)
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
