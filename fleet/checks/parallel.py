"""The same work on many hosts at once: a thread per host up to a limit, results in the order of the hosts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from fleet.agent import AgentClient
from fleet.model.hosts import Host

if TYPE_CHECKING:
    from fleet.transport import Connector

R = TypeVar("R")


def on_each_host(
    hosts: Sequence[Host],
    work: Callable[[Host], R],
    in_flight: int,
    on_done: Callable[[Host, R], None] | None = None,
) -> list[R]:
    """Return `work(host)` for every host; `on_done` is called in this thread as results come in.

    The threads are daemons, so Ctrl-C does not wait for a host that does not answer. The first error that `work` raises is
    raised here.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(len(hosts)):
        waiting.put(index)
    done: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()

    def worker() -> None:
        while True:
            try:
                index = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                result: R | BaseException = work(hosts[index])
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits, never lost
                result = error
            done.put((index, result))

    for number in range(min(in_flight, len(hosts))):
        threading.Thread(target=worker, name=f"host-{number}", daemon=True).start()
    results: dict[int, R] = {}
    while len(results) < len(hosts):
        index, result = done.get()
        if isinstance(result, BaseException):
            raise result
        results[index] = result
        if on_done is not None:
            on_done(hosts[index], result)
    return [results[index] for index in range(len(hosts))]


def with_client(connector: Connector, host: Host, agent_source: bytes, work: Callable[[AgentClient], R]) -> R:
    """Open one connection, talk to the agent, and close it again whatever happens."""
    transport = connector.open(host)
    try:
        return work(AgentClient(transport, agent_source))
    finally:
        transport.close()
