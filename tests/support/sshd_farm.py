"""Real OpenSSH hosts on loopback: one sshd per address, each host with its own HOME and its own key.

    with SshdFarm(3, tmp_path) as farm:
        inventory = load_inventory(farm.hosts_file)

Works as root and as a normal user. Only processes started here are ever signalled. With `bastion=True` a jump host with
sshd's default MaxStartups stands in front, and the ssh_config leads through it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_CONFIG = """
Port {port}
ListenAddress {address}
HostKey {key}
AuthorizedKeysFile {authorized}
PidFile none
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
PrintLastLog no
MaxSessions 100
SetEnv HOME={home}
{options}
"""


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise RuntimeError("these tests need OpenSSH's sshd: apt install openssh-server")
    return found


def _children(pid: int) -> list[int]:
    """Return the pids of all descendants of `pid`, deepest last."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children") if Path(f"/proc/{pid}").exists() else ():
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_children(child)]
    return found


class SshdFarm:
    """`count` hosts eval1..evalN, reached by the alias aws-instance-NAME of the generated ssh_config."""

    def __init__(self, count: int, directory: Path, *, bastion: bool = False, options: Sequence[str] = ()) -> None:
        self.directory = directory
        self.options = list(options)
        self.names = [f"eval{number}" for number in range(1, count + 1)]
        third = random.randrange(1, 250)
        self.addresses = {name: f"127.77.{third + index // 250}.{index % 250 + 1}" for index, name in enumerate(self.names)}
        self.bastion = "127.78.0.1" if bastion else None
        if self.bastion is not None:
            self.addresses["bastion"] = self.bastion
        self.port = self._free_port()
        self.user = getpass.getuser()
        self.identity = directory / "id"
        self.known_hosts = directory / "known_hosts"
        self.ssh_config = directory / "ssh_config"
        self.hosts_file = directory / "hosts.yaml"
        self.homes = {name: directory / "homes" / name for name in self.addresses}
        self.ways: dict[str, tuple[str, int]] = {}
        """Where the ssh_config leads to instead of the host itself: a proxy, or a name."""
        self.listeners: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> SshdFarm:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Generate keys and files, start every sshd, and return when all of them listen."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        try:
            self._generate()
            for name in self.addresses:
                self.start_host(name, wait=False)
            for name in self.addresses:
                self._await(name)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all listeners and the sessions they started."""
        for name in list(self.listeners):
            self.stop_host(name)

    def start_host(
        self, name: str, *, wait: bool = True, key: Path | None = None, options: Sequence[str] | None = None
    ) -> None:
        """Start one host's sshd; another `key` makes it another machine at the same address."""
        folder = self.directory / "sshd"
        config = folder / f"{name}.conf"
        extra = self.options if options is None and name != "bastion" else options or ()
        config.write_text(
            _CONFIG.format(
                port=self.port,
                address=self._listen_address(name),
                key=key or folder / f"{name}.key",
                authorized=folder / "authorized_keys",
                home=self.homes[name],
                options="\n".join(extra),
            )
        )
        with (folder / f"{name}.log").open("ab") as log:
            argv = [*self._within(name), _sshd(), "-D", "-e", "-f", str(config)]
            self.listeners[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if wait:
            self._await(name)

    def stop_host(self, name: str) -> None:
        """End one host's sshd and its sessions, as a power failure would."""
        listener = self.listeners.pop(name)
        for pid in [*self._sessions(listener.pid), listener.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        listener.wait(10)

    def sessions(self, name: str) -> list[int]:
        """Return the pids of the sshd processes that serve connections to this host now."""
        return self._sessions(self.listeners[name].pid)

    def log(self, name: str) -> str:
        """Return what this host's sshd logged."""
        return (self.directory / "sshd" / f"{name}.log").read_text()

    def new_key(self, label: str, kind: str = "ed25519") -> Path:
        """Return a new private host key."""
        path = self.directory / "sshd" / f"{label}.key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)], check=True)
        return path

    def _within(self, name: str) -> list[str]:
        """Return the words before a command that puts it into the host's place."""
        del name
        return []

    def _listen_address(self, name: str) -> str:
        return self.addresses[name]

    def _sessions(self, listener: int) -> list[int]:
        found = []
        for pid in _children(listener):
            with contextlib.suppress(OSError):
                if "sshd" in Path(f"/proc/{pid}/comm").read_text():
                    found.append(pid)
        return found

    def _generate(self) -> None:
        folder = self.directory / "sshd"
        folder.mkdir(mode=0o700)
        for home in self.homes.values():
            home.mkdir(parents=True)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.identity)], check=True)
        (folder / "authorized_keys").write_text(self.identity.with_name("id.pub").read_text())
        with ThreadPoolExecutor(4) as pool:
            keys = dict(zip(self.addresses, pool.map(self.new_key, self.addresses), strict=True))
        lines = [f"{self._pinned_name(name)} {_public(key)}" for name, key in keys.items()]
        self.known_hosts.write_text("\n".join(lines) + "\n")
        self.known_hosts.chmod(0o600)
        self.write_ssh_config()
        self.hosts_file.write_text(
            'defaults:\n  alias: "aws-instance-{name}"\n  ssh_config: ssh_config\n  known_hosts: known_hosts\n'
            f"hosts:\n  eval[1-{len(self.names)}]:\ngroups:\n  eval: {{hosts: ['eval*']}}\n"
        )

    def lead(self, name: str, address: str, port: int) -> None:
        """Lead the ssh_config to another address of the host; its key stays pinned under an alias of its own."""
        self.ways[name] = (address, port)
        public = _public(self.directory / "sshd" / f"{name}.key")
        line = f"{name}-pinned {public}\n"
        if line not in self.known_hosts.read_text():
            with self.known_hosts.open("a") as file:
                file.write(line)
        self.write_ssh_config()

    def write_ssh_config(self) -> None:
        """Write the ssh_config as the ways to the hosts are now."""
        common = f"  User {self.user}\n  IdentityFile {self.identity}\n  IdentitiesOnly yes\n"
        common += f"  UserKnownHostsFile {self.known_hosts}\n"
        jump = "  ProxyJump bastion\n" if self.bastion else ""
        blocks = []
        for name in self.names:
            address, port = self.ways.get(name, (self.addresses[name], self.port))
            alias = f"  HostKeyAlias {name}-pinned\n" if name in self.ways else ""
            blocks.append(f"Host aws-instance-{name}\n  HostName {address}\n  Port {port}\n{alias}{jump}{common}")
        if self.bastion:
            blocks.append(f"Host bastion\n  HostName {self.bastion}\n  Port {self.port}\n{common}")
        self.ssh_config.write_text("\n".join(blocks))

    def _pinned_name(self, name: str) -> str:
        return self.addresses[name] if self.port == 22 else f"[{self.addresses[name]}]:{self.port}"

    def _await(self, name: str) -> None:
        deadline = time.monotonic() + 20
        while True:
            if self.listeners[name].poll() is not None:
                raise RuntimeError(f"sshd of {name} ended: {self.log(name)[-500:]}")
            with contextlib.suppress(OSError), socket.create_connection((self.addresses[name], self.port), 1) as connection:
                # Read the banner: a connection that is closed unread would count against MaxStartups for a moment.
                connection.recv(64)
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"sshd of {name} does not listen: {self.log(name)[-500:]}")
            time.sleep(0.02)

    def _free_port(self) -> int:
        for _ in range(50):
            port = random.randrange(20_000, 32_000)
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                for address in self.addresses.values():
                    probe = stack.enter_context(socket.socket())
                    probe.bind((address, port))
                return port
        raise RuntimeError("no free port")


def _public(key: Path) -> str:
    return " ".join(key.with_name(key.name + ".pub").read_text().split()[:2])
