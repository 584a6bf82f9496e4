"""A TCP proxy before a host's sshd that does to a connection what networks do, at a chosen byte.

    with FaultProxy(address, port) as proxy:
        proxy.plan(down=Fault(cut_after=1500, how="rst"))       # for the next connection; later ones are left alone
        farm.lead("eval1", *proxy.address)

`up` is what fleet sends, `down` what the host answers.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_CHUNK = 65_536
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Fault:
    """What happens to the bytes of one direction; without any value, nothing."""

    cut_after: int | None = None
    """So many bytes get through, then the connection ends as `how` says."""
    how: Literal["rst", "fin", "blackhole"] = "rst"
    corrupt_at: int | None = None
    """The byte with this number is changed."""
    delay_s: float = 0.0
    rate: int | None = None
    """Bytes in a second."""


CLEAN = Fault()


class FaultProxy:
    """Listens on a loopback port of its own; the planned faults are for the next connections, one each, in order."""

    def __init__(self, address: str, port: int) -> None:
        self._upstream = (address, port)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address: tuple[str, int] = self._listening.getsockname()
        self._plans: deque[tuple[Fault, Fault]] = deque()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self.connections = 0
        self.faults = 0
        """How many cuts and changes were really made."""

    def __enter__(self) -> FaultProxy:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(5)

    def plan(self, *, up: Fault = CLEAN, down: Fault = CLEAN) -> None:
        """Plan the next connection that has no plan yet."""
        self._plans.append((up, down))

    def clear(self) -> None:
        """Forget what was planned."""
        self._plans.clear()

    def _spawn(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, name="fault proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream, 5)
            except OSError:
                _end(client, "rst")
                continue
            self.connections += 1
            up, down = self._plans.popleft() if self._plans else (CLEAN, CLEAN)
            self._spawn(self._carry, _Way(client, server, up), _Way(server, client, down))

    def _carry(self, *ways: _Way) -> None:
        """Carry one connection: both directions in one thread, because a reset needs a socket that nobody reads."""
        how: Literal["rst", "fin"] = "rst"
        try:
            with selectors.DefaultSelector() as selector:
                for way in ways:
                    selector.register(way.source, selectors.EVENT_READ, way)
                while selector.get_map() and not self._ended.is_set():
                    for key, _ in selector.select(0.2):
                        data = key.fileobj.recv(_CHUNK)  # type: ignore[union-attr]
                        if not data:
                            selector.unregister(key.fileobj)
                            key.data.target.shutdown(socket.SHUT_WR)
                        elif (ended := self._forward(key.data, data)) is not None:
                            how = ended
                            return
        except OSError:
            return
        finally:
            for way in ways:
                _end(way.source, how)

    def _forward(self, way: _Way, data: bytes) -> Literal["rst", "fin"] | None:
        """Send data on as the fault has it; return how the connection ends now, None when it does not."""
        fault = way.fault
        time.sleep(fault.delay_s)
        if fault.corrupt_at is not None and way.done <= fault.corrupt_at < way.done + len(data):
            at = fault.corrupt_at - way.done
            data = data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :]
            self.faults += 1
        if fault.cut_after is not None and way.done + len(data) >= fault.cut_after:
            if way.done < fault.cut_after or fault.cut_after == 0:
                way.target.sendall(data[: fault.cut_after - way.done])
                self.faults += 1
            way.done = fault.cut_after + 1
            # A black hole tells nobody: what comes from here on is read and lost.
            return None if fault.how == "blackhole" else fault.how
        step = len(data) if fault.rate is None else max(1, fault.rate // 20)
        for start in range(0, len(data), step):
            way.target.sendall(data[start : start + step])
            time.sleep(0.05 if fault.rate else 0.0)
        way.done += len(data)
        return None


@dataclass
class _Way:
    """One direction of a connection."""

    source: socket.socket
    target: socket.socket
    fault: Fault
    done: int = 0


def _end(connection: socket.socket, how: Literal["rst", "fin"]) -> None:
    with contextlib.suppress(OSError):
        if how == "rst":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.close()
