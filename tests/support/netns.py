"""Hosts in network namespaces of their own, so that packets can be lost for real and nothing outside notices.

    controller namespace  ── veth ──  one namespace per host: its sshd on 10.213.K.2, nftables, a shaper

    with NetnsFarm(3, tmp_path) as farm:
        farm.drop("eval1")                          # nothing gets through, either way
        with farm.inside(): ...                     # this thread's new sockets belong to the controller's namespace

Commands run there with `farm.prefix` before them. The namespace of whoever runs the tests gets neither an address nor a rule.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tests.support.sshd_farm import SshdFarm

Direction = Literal["in", "out", "both"]
_CLONE_NEWNET = 0x40000000
_CHAINS = {"in": ("input",), "out": ("output",), "both": ("input", "output")}
_RULES = """
table inet faults {
  chain input { type filter hook input priority 0; }
  chain output { type filter hook output priority 0; }
}
"""
_DEADLINE_S = 20


class NetnsFarm(SshdFarm):
    """`count` hosts behind a link each; names resolve through a hosts file that `resolve` writes."""

    def __init__(self, count: int, directory: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__(count, directory, options=options)
        self.addresses = {name: f"10.213.{number}.2" for number, name in enumerate(self.names, 1)}
        self._label = f"fleet-test-{os.getpid()}-{threading.get_native_id()}-{id(self) % 10_000}"
        self.controller = f"{self._label}-c"
        self.prefix = [_tool("ip"), "netns", "exec", self.controller]

    def start(self) -> None:
        """Make the namespaces and links, then start every sshd in its own."""
        try:
            self._ip("netns", "add", self.controller)
            self._ip("-n", self.controller, "link", "set", "dev", "lo", "up")
            self.resolve({})
            for number, name in enumerate(self.names, 1):
                self._attach(number, name)
            super().start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the hosts, then take the namespaces away, and the links with them."""
        super().stop()
        for space in (*map(self.namespace, self.names), self.controller):
            subprocess.run([_tool("ip"), "netns", "delete", space], capture_output=True, timeout=_DEADLINE_S, check=False)
        shutil.rmtree(self._etc, ignore_errors=True)

    def namespace(self, name: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self._label}-{name}"

    # Faults

    def drop(self, name: str, direction: Direction = "both") -> None:
        """Let packets vanish: those to the host (`in`), those from it (`out`), or both."""
        self._add(name, direction, "drop")

    def loss(self, name: str, percent: int) -> None:
        """Lose so many of a hundred packets each way, at random."""
        self._add(name, "both", f"numgen random mod 100 < {percent} counter drop")

    def lost(self, name: str) -> int:
        """Return how many packets `loss` has taken since it was asked for."""
        listed = self._run(name, _tool("nft"), "list", "table", "inet", "faults")
        return sum(map(int, re.findall(r"counter packets (\d+)", listed)))

    def slow(self, name: str, kilobits: int) -> None:
        """Let the host send no more than so many kilobits in a second."""
        shape = ["root", "tbf", "rate", f"{kilobits}kbit", "burst", "8kb", "latency", "400ms"]
        self._run(name, _tool("tc"), "qdisc", "replace", "dev", "up", *shape)

    def forget(self, name: str) -> int:
        """Drop the packets of the connections that are open now, as a middlebox does; new ones work. Return how many."""
        ports = self._open_ports(name)
        if ports:
            self._add(name, "in", f"tcp sport {{ {', '.join(ports)} }} drop")
            self._add(name, "out", f"tcp dport {{ {', '.join(ports)} }} drop")
        return len(ports)

    def heal(self, name: str) -> None:
        """Take every fault of a host's link away."""
        self._run(name, _tool("nft"), "flush", "table", "inet", "faults")
        subprocess.run(
            [*self._within(name), _tool("tc"), "qdisc", "del", "dev", "up", "root"],
            capture_output=True,
            timeout=_DEADLINE_S,
            check=False,
        )

    def move(self, name: str, third: int) -> str:
        """Give the host another address, 10.214.THIRD.2, in the place of its own; return it."""
        number = self.names.index(name) + 1
        self._run(name, _tool("ip"), "address", "flush", "dev", "up")
        self._run(name, _tool("ip"), "address", "add", f"10.214.{third}.2/30", "dev", "up")
        with contextlib.suppress(subprocess.CalledProcessError):
            self._ip("-n", self.controller, "address", "add", f"10.214.{third}.1/30", "dev", f"to{number}")
        return f"10.214.{third}.2"

    def move_back(self, name: str) -> None:
        """Give the host its first address again."""
        self._run(name, _tool("ip"), "address", "flush", "dev", "up")
        self._run(name, _tool("ip"), "address", "add", f"{self.addresses[name]}/30", "dev", "up")

    def resolve(self, names: dict[str, str]) -> None:
        """Write the hosts file of the controller's namespace; there is no name server."""
        self._etc.mkdir(parents=True, exist_ok=True)
        lines = [f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items()]
        # Written in place: a running command has this very file mounted over its own.
        (self._etc / "hosts").write_text("".join(lines))
        (self._etc / "resolv.conf").write_text("nameserver 127.0.0.1\noptions attempts:1 timeout:1\n")

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Let this thread, and those that it starts, open their sockets in the controller's namespace."""
        return _entered(self.controller)

    def inside_host(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Let this thread open its sockets in a host's namespace."""
        return _entered(self.namespace(name))

    # --- how it is made ---

    @property
    def _etc(self) -> Path:
        return Path("/etc/netns") / self.controller

    def _attach(self, number: int, name: str) -> None:
        space = self.namespace(name)
        self._ip("netns", "add", space)
        link = ["link", "add", f"to{number}", "type", "veth", "peer", "name", "up", "netns", space]
        self._ip("-n", self.controller, *link)
        self._ip("-n", self.controller, "address", "add", f"10.213.{number}.1/30", "dev", f"to{number}")
        self._ip("-n", self.controller, "link", "set", "dev", f"to{number}", "up")
        self._run(name, _tool("ip"), "address", "add", f"10.213.{number}.2/30", "dev", "up")
        for device in ("up", "lo"):
            self._run(name, _tool("ip"), "link", "set", "dev", device, "up")
        self._run(name, _tool("ip"), "route", "add", "default", "via", f"10.213.{number}.1")
        subprocess.run([*self._within(name), _tool("nft"), "-f", "-"], input=_RULES, text=True, timeout=_DEADLINE_S, check=True)

    def _within(self, name: str) -> list[str]:
        return [_tool("ip"), "netns", "exec", self.namespace(name)]

    def _listen_address(self, name: str) -> str:
        del name
        return "0.0.0.0"

    def _await(self, name: str) -> None:
        with self.inside():
            super()._await(name)

    def _free_port(self) -> int:
        return 22

    def _add(self, name: str, direction: Direction, rule: str) -> None:
        for chain in _CHAINS[direction]:
            self._run(name, _tool("nft"), "add", "rule", "inet", "faults", chain, *rule.split())

    def _open_ports(self, name: str) -> list[str]:
        rows = Path(f"/proc/{self.listeners[name].pid}/net/tcp").read_text().splitlines()[1:]
        fields = [row.split() for row in rows]
        return [str(int(row[2].split(":")[1], 16)) for row in fields if row[3] == "01" and row[1].endswith(":0016")]

    def _run(self, name: str, *argv: str) -> str:
        words = [*self._within(name), *argv]
        return subprocess.run(words, capture_output=True, text=True, timeout=_DEADLINE_S, check=True).stdout

    def _ip(self, *argv: str) -> None:
        subprocess.run([_tool("ip"), *argv], capture_output=True, timeout=_DEADLINE_S, check=True)


@contextlib.contextmanager
def _entered(space: str) -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    other = os.open(f"/run/netns/{space}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(libc.setns(other, _CLONE_NEWNET))
        try:
            yield
        finally:
            _check(libc.setns(own, _CLONE_NEWNET))
    finally:
        os.close(own)
        os.close(other)


def _tool(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise RuntimeError(f"these tests need {name}: apt install iproute2 nftables")
    return found


def _check(code: int) -> None:
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
