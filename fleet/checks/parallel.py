"""The same work on many hosts at once: a thread per host up to a limit, results in the order of the hosts."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from fleet.agent import AgentClient, agent_on
from fleet.model.hosts import Host
from fleet.transport.allowance import affordable

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

    The first error that `work` raises is raised here.
    """
    results: dict[int, R] = {}
    for group in as_they_come(hosts, work, in_flight):
        for index, result in group:
            results[index] = result
            if on_done is not None:
                on_done(hosts[index], result)
    return [results[index] for index in range(len(hosts))]


def as_they_come(
    hosts: Sequence[Host], work: Callable[[Host], R], in_flight: int, linger_s: float = 0.0
) -> Iterator[list[tuple[int, R]]]:
    """Yield (index of the host, result) in groups: what ends within `linger_s` of a group's first comes with it.

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

    for number in range(affordable(min(in_flight, len(hosts)))):
        threading.Thread(target=worker, name=f"host-{number}", daemon=True).start()
    left = len(hosts)
    while left:
        group = [done.get()]
        until = time.monotonic() + linger_s
        while len(group) < left and (patience := until - time.monotonic()) > 0:
            with suppress(queue.Empty):
                group.append(done.get(timeout=patience))
        left -= len(group)
        yield [(index, _raised(result)) for index, result in group]


def _raised(result: R | BaseException) -> R:
    if isinstance(result, BaseException):
        raise result
    return result


def with_client(connector: Connector, host: Host, agent_source: bytes, host_uid: str, work: Callable[[AgentClient], R]) -> R:
    """Return what `work` makes of a connection of its own to the agent; `host_uid` as `agent_on` takes it."""
    with agent_on(connector, host, agent_source, host_uid) as client:
        return work(client)
