"""Embedded SSH hosts: real SSH on loopback ports, each host with a HOME and a host key of its own.

For the demo and for fast tests; the suites that must prove something about OpenSSH use OpenSSH. All hosts share this
machine's kernel and process table, which is why a demo pipeline declares no busy patterns.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar

import yaml

from fleet.demo.docker import Engine
from fleet.demo.machine import end_processes, tool_directories, write_tools
from fleet.demo.session import Session
from fleet.errors import InputError

T = TypeVar("T")
LOOPBACK = "127.0.0.1"
"""The only loopback address that every system has; hosts differ by port."""
GRACE_S = 1.0


def server_library() -> ModuleType:
    """Return asyncssh, or raise InputError that says how to get it."""
    try:
        import asyncssh
    except ImportError:
        raise InputError("the demo needs asyncssh, which is not installed", hint="pip install 'fleet-evals[demo]'") from None
    return asyncssh


class EmbeddedHosts:
    """`count` SSH hosts below `directory`, up while the context is open.

    `hosts_file`, `known_hosts` and `client_key` are what a controller needs; `homes` maps host name to HOME. Names are
    `demo1` to `demoN` (zero-padded to equal width). With an `engine` they have Docker.
    """

    def __init__(
        self, count: int, directory: Path, *, prefix: str = "demo", pipeline: str = "demo", engine: Engine | None = None
    ) -> None:
        width = len(str(count))
        self.names = tuple(f"{prefix}{number:0{width}d}" for number in range(1, count + 1))
        self.directory = directory
        self.pipeline = pipeline
        self.engine = engine
        self.hosts_file = directory / "hosts.yaml"
        self.known_hosts = directory / "known_hosts"
        self.client_key = directory / "client_key"
        self.homes = {name: directory / "homes" / name for name in self.names}
        self.ports: dict[str, int] = {}
        self.user = "demo"
        self.errors: list[str] = []
        """What went wrong inside the servers themselves; empty unless there is a bug."""
        self._ssh = server_library()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._note)
        self._thread = threading.Thread(target=self._loop.run_forever, name="embedded-hosts", daemon=True)
        self._listeners: dict[str, Any] = {}
        self._connections: dict[str, set[Any]] = {name: set() for name in self.names}
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> EmbeddedHosts:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, home in self.homes.items():
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            (home / "tmp").mkdir(exist_ok=True)
            write_tools(home / "bin", self.engine.view(self.directory, name) if self.engine else None)
        self._thread.start()
        try:
            self._wait(self._start())
            self._write_files()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def disconnect(self, name: str) -> None:
        """Cut every connection to one host, as a network would: without a word."""
        self._call(lambda: [connection.abort() for connection in tuple(self._connections[name])])

    def stop_listening(self, name: str) -> None:
        """Refuse new connections to one host; the open ones stay."""
        self._call(self._listeners[name].close)

    def environment(self, name: str) -> dict[str, str]:
        """The whole environment that a command gets on that host."""
        home = self.homes[name]
        return {
            "HOME": str(home),
            "USER": self.user,
            "LOGNAME": self.user,
            "SHELL": "/bin/sh",
            "TMPDIR": str(home / "tmp"),
            "PATH": os.pathsep.join((str(home / "bin"), *tool_directories())),
        }

    # --- inside the loop's thread ---------------------------------------------------------------------------------

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def _start(self) -> None:
        client = self._ssh.generate_private_key("ssh-ed25519", comment="fleet demo client")
        self.client_key.touch(mode=0o600)
        self.client_key.write_bytes(client.export_private_key())
        public = client.export_public_key().decode()
        allowed = self._ssh.import_authorized_keys(public)
        lines = []
        for name in self.names:
            key = self._ssh.generate_private_key("ssh-ed25519", comment=name)
            listener = await self._listen(name, key, allowed)
            self._listeners[name] = listener
            self.ports[name] = port = listener.get_port()
            lines.append(f"[{LOOPBACK}]:{port},{name} {key.export_public_key().decode().strip()}")
        self.known_hosts.write_text("\n".join(lines) + "\n")
        self.known_hosts.chmod(0o600)

    async def _listen(self, name: str, key: Any, allowed: Any) -> Any:
        connections = self._connections[name]

        class Server(self._ssh.SSHServer):  # type: ignore[misc,name-defined]
            """Keeps the list of open connections; asyncssh checks the client key itself."""

            def connection_made(self, connection: Any) -> None:
                self._connection = connection
                connections.add(connection)

            def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002
                connections.discard(self._connection)

        return await self._ssh.create_server(
            Server,
            LOOPBACK,
            0,
            process_factory=lambda channel: self._serve(name, channel),
            server_host_keys=[key],
            authorized_client_keys=allowed,
            password_auth=False,
            kbdint_auth=False,
            gss_host=None,
            encoding=None,
            line_editor=False,
            allow_pty=False,
            agent_forwarding=False,
            compression_algs=["none"],
            login_timeout=60,
            backlog=512,
        )

    async def _serve(self, name: str, channel: Any) -> None:
        if channel.subsystem is not None:
            channel.exit(1)
            return
        session = Session(channel, self.homes[name], self.environment(name))
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(session)
        self._tasks.add(task)
        try:
            await session.run()
        finally:
            self._sessions.discard(session)
            self._tasks.discard(task)

    async def _close(self) -> None:
        """Power off: connections first, then a moment for the children, then an end to those that stay."""
        for listener in self._listeners.values():
            listener.close()
        for connections in self._connections.values():
            for connection in tuple(connections):
                connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        for session in tuple(self._sessions):
            if session.child is not None and session.child.poll() is None:
                session.child.kill()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        await asyncio.gather(*(listener.wait_closed() for listener in self._listeners.values()), return_exceptions=True)
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    # --- in the caller's thread -----------------------------------------------------------------------------------

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=60)

    def _call(self, function: Callable[[], T]) -> T:
        async def inside() -> T:
            return function()

        result: T = self._wait(inside())
        return result

    def _stop(self) -> None:
        try:
            self._wait(self._close())
            end_processes(self.homes.values())
            if self.engine is not None:
                self.engine.remove_containers(self.directory)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=10)
            with contextlib.suppress(RuntimeError):
                self._loop.close()

    def _write_files(self) -> None:
        self.hosts_file.write_text(yaml.safe_dump(self._inventory(), sort_keys=False))

    def _inventory(self) -> dict[str, Any]:
        return {
            "defaults": {
                "user": self.user,
                "identity_file": str(self.client_key),
                "identities_only": True,
                "known_hosts": str(self.known_hosts),
                "pipeline": self.pipeline,
            },
            "hosts": {name: {"address": LOOPBACK, "port": self.ports[name]} for name in self.names},
        }
