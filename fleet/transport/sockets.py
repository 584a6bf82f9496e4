"""A TCP connection within a deadline, and a sentence for each way it can fail."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
import time
from typing import Any

from fleet.errors import Unreachable
from fleet.model.hosts import Hop
from fleet.transport.limits import tune


def dial(hop: Hop, timeout_s: float, host: str, dead_after_s: float = 15.0) -> socket.socket:
    """Return a connected socket; `timeout_s` covers the name lookup and all addresses together. Raises Unreachable.

    Once connected, the kernel gives a peer up that has been silent to its probes for `dead_after_s`.
    """
    deadline = time.monotonic() + timeout_s
    last: Unreachable | None = None
    for family, address in _resolve(hop, deadline, host):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(left)
            connection.connect(address)
            tune(connection, dead_after_s)
        except OSError as error:
            connection.close()
            last = _explain(error, hop, timeout_s, host)
        else:
            return connection
    raise last or _explain(TimeoutError(), hop, timeout_s, host)


def _resolve(hop: Hop, deadline: float, host: str) -> list[tuple[socket.AddressFamily, Any]]:
    try:
        literal = ipaddress.ip_address(hop.address)
    except ValueError:
        pass
    else:
        family = socket.AF_INET if literal.version == 4 else socket.AF_INET6
        return [(family, (hop.address, hop.port))]
    answer: list[tuple[socket.AddressFamily, Any]] = []
    failure: list[OSError] = []

    def ask() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(hop.address, hop.port, type=socket.SOCK_STREAM):
                answer.append((family, address))
        except OSError as error:
            failure.append(error)

    # The resolver has no deadline of its own (5 s per server and try), so it gets a thread that may be left behind.
    thread = threading.Thread(target=ask, name=f"dns {hop.address}", daemon=True)
    thread.start()
    thread.join(max(0.0, deadline - time.monotonic()))
    if failure or not answer:
        reason = failure[0].strerror if failure else "the name server did not answer in time"
        raise Unreachable(
            f"{host}: the name {hop.address} cannot be resolved: {reason}",
            hint=f"check the address of {host} in hosts.yaml or HostName in ssh_config",
            host=host,
        )
    return list(answer)


def _explain(error: OSError, hop: Hop, timeout_s: float, host: str) -> Unreachable:
    where = f"{hop.address} port {hop.port}"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return Unreachable(
            f"{host}: {where} did not answer within {timeout_s:.0f} s",
            hint="is the machine running, and does its firewall or security group let you in?",
            host=host,
        )
    if isinstance(error, ConnectionRefusedError):
        return Unreachable(
            f"{host}: {where} refuses connections", hint="is sshd running there, and is the port right?", host=host
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Unreachable(f"{host}: this machine has no file descriptor left", hint="ulimit -n 4096", host=host)
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        return Unreachable(f"{host}: there is no route to {where}", hint="is the VPN up?", host=host)
    return Unreachable(f"{host}: cannot connect to {where}: {error.strerror or error}", hint=f"ssh {hop.address}", host=host)
