"""Test eval hosts as containers: each with its own address, OpenSSH sshd, Docker engine and home of the user ubuntu.

with ContainerFleet(4, directory) as fleet:
    fleet.hosts_file        # hosts.yaml, names eval1..eval4, reached by ssh_config alias aws-instance-{name}
    fleet.exec("eval1", ["docker", "ps"])
    fleet.switch("eval1", "sample-1", {"behaviours": ["unresolved"]})
    fleet.start_stop_records("eval1")
    fleet.reset()
"""

from __future__ import annotations

import io
import json
import secrets
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.engine import Engine, engine, owner_lives, owner_token, remove_containers
from tests.support.harness import HOME, RECORDS, SWITCHES
from tests.support.host_image import host_image

LABEL = "fleet.test.owner"
USER = "ubuntu"
READY_S = 60.0
_PARALLEL = 4
_ROOT_CERTIFICATES = ("/etc/ssl/certs", "/usr/share/ca-certificates")


class ContainerFleet:
    """`count` eval hosts, started on entry and removed with everything of theirs on exit.

    `directory` gets hosts.yaml, ssh_config, known_hosts and the keys. `prefix` names the hosts: eval1, eval2, …
    """

    def __init__(self, count: int, directory: Path, *, prefix: str = "eval") -> None:
        self.names = tuple(f"{prefix}{number}" for number in range(1, count + 1))
        self.directory = directory
        self.hosts_file = directory / "hosts.yaml"
        self.ssh_config = directory / "ssh_config"
        self.known_hosts = directory / "known_hosts"
        self.identity_file = directory / "id_ed25519"
        self.addresses: dict[str, str] = {}
        self._token = secrets.token_hex(3)
        self._stack = ExitStack()

    def __enter__(self) -> ContainerFleet:
        with ExitStack() as stack:
            self.docker: Engine = stack.enter_context(engine())
            self._remove_orphans()
            self._image = host_image(self.docker)
            self.directory.mkdir(parents=True, exist_ok=True)
            _keygen(self.identity_file)
            stack.callback(lambda: remove_containers(self.docker, [self.container(name) for name in self.names]))
            self._on_each(self._start, self.names)
            self._on_each(self._wait_ready, self.names)
            self._write_files()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def container(self, name: str) -> str:
        """Return the outer name of a host's container; unique, so that two sessions can run side by side."""
        return f"fleet-test-{self._token}-{name}"

    # What a test does to a host

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        *,
        user: str = USER,
        stdin: bytes | None = None,
        check: bool = True,
        timeout_s: float = 60.0,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on a host beside SSH, in the home of `user`."""
        home = "/root" if user == "root" else f"/home/{user}"
        words = ["exec", "--user", user, "--workdir", home, "--env", f"HOME={home}", *(["-i"] if stdin is not None else [])]
        return self.docker.run(*words, self.container(name), *argv, stdin=stdin, check=check, timeout_s=timeout_s)

    def shell(self, name: str, script: str, *, user: str = USER) -> str:
        """Return what a shell script prints on a host."""
        return self.exec(name, ["bash", "-c", script], user=user).stdout.decode()

    def put(self, name: str, source: Path | bytes, target: str, *, mode: int | None = None) -> None:
        """Put a file's content or a directory tree at `target` (absolute, or below the home of ubuntu)."""
        path = target if target.startswith("/") else f"/home/{USER}/{target}"
        self.exec(name, ["tar", "-xf", "-", "-C", "/"], user="root", stdin=_tar(source, path.lstrip("/"), mode))
        if path.startswith(f"/home/{USER}/"):
            first = path.removeprefix(f"/home/{USER}/").split("/")[0]
            self.exec(name, ["chown", "-R", f"{USER}:{USER}", f"/home/{USER}/{first}"], user="root")

    def read(self, name: str, path: str) -> bytes:
        """Return a file of a host; empty when it is not there."""
        return self.exec(name, ["cat", path], check=False).stdout

    def switch(self, name: str, instance: str, switches: Mapping[str, Any]) -> None:
        """Set how the stand-in harness behaves on a host for an instance (`*`: for all of them)."""
        known = json.loads(self.read(name, SWITCHES) or b"{}")
        known[instance] = dict(switches)
        self.put(name, json.dumps(known).encode(), SWITCHES)

    def start_stop_records(self, name: str) -> list[dict[str, Any]]:
        """Return the host's own records of every eval's start and stop, in the order they were written."""
        return [json.loads(line) for line in self.read(name, RECORDS).splitlines()]

    def containers(self, name: str) -> list[str]:
        """Return the names of the containers in a host's own engine, running or not."""
        return self.exec(name, ["docker", "ps", "-a", "--format", "{{.Names}}"]).stdout.decode().split()

    def stop_docker(self, name: str) -> None:
        """Kill a host's own engine as a crash does."""
        self.exec(name, ["sh", "-c", "pkill -KILL -x dockerd; pkill -KILL -x containerd; true"], user="root")

    def start_docker(self, name: str) -> None:
        """Start a host's own engine again."""
        self.exec(name, ["/usr/local/sbin/eval-host-dockerd"], user="root", timeout_s=READY_S + 10)

    def restart(self, name: str) -> None:
        """Restart a host's container; its address may be another one afterwards, as a machine's in the cloud."""
        self.docker.run("restart", "--time", "0", self.container(name), timeout_s=60)
        self._look_up(name)
        self._write_files()

    def reset(self, names: Iterable[str] | None = None) -> None:
        """Bring hosts (all) back to their first state: no process of ubuntu, no container, a fresh home."""
        self._on_each(self._reset, tuple(names) if names is not None else self.names)

    # Start

    def _start(self, name: str) -> None:
        private = self.directory / "hosts" / name
        private.mkdir(parents=True, exist_ok=True)
        _keygen(private / "host_key")
        (private / "authorized_keys").write_bytes(self.identity_file.with_suffix(".pub").read_bytes())
        certificates = [f"--volume={path}:{path}:ro" for path in _ROOT_CERTIFICATES if Path(path).is_dir()]
        # --privileged would ask for CAP_SYS_RESOURCE, which some virtual machines do not have; nothing here needs it.
        self.docker.run(
            "run", "--detach", "--name", self.container(name), "--hostname", name, "--label", f"{LABEL}={owner_token()}",
            "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE",
            "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
            "--device-cgroup-rule", "a *:* rwm", "--volume", "/var/lib/docker",
            "--volume", f"{private.resolve()}:/fleet:ro", *certificates, self._image,
        )  # fmt: skip
        self._look_up(name)

    def _look_up(self, name: str) -> None:
        inspect = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        self.addresses[name] = self.docker.lines("inspect", "--format", inspect, self.container(name))[0]

    def _wait_ready(self, name: str) -> None:
        self.put(name, HOME, "/opt/eval-host/home")
        wait = f"for _ in $(seq {int(READY_S * 10)}); do [ -e /run/eval-host-ready ] && exit 0; sleep 0.1; done; exit 1"
        ready = self.exec(name, ["bash", "-c", wait], user="root", check=False, timeout_s=READY_S + 20)
        if ready.returncode != 0:
            log = self.docker.run("logs", "--tail", "30", self.container(name), check=False)
            raise RuntimeError(f"{name} did not become ready: {(log.stdout + log.stderr).decode(errors='replace')}")
        self._reset(name)

    def _reset(self, name: str) -> None:
        self.exec(name, ["/usr/local/sbin/eval-host-reset"], user="root")

    def _remove_orphans(self) -> None:
        """Remove the hosts of sessions that were killed before they could."""
        columns = '{{.Names}} {{.Label "' + LABEL + '"}}'
        listed = self.docker.lines("ps", "-a", "--filter", f"label={LABEL}", "--format", columns)
        orphans = [line.split()[0] for line in listed if not owner_lives(line.split()[-1])]
        remove_containers(self.docker, orphans)

    def _write_files(self) -> None:
        pins, config = [], []
        for name, address in self.addresses.items():
            key = (self.directory / "hosts" / name / "host_key.pub").read_text().split()
            alias = f"aws-instance-{name}"
            pins.append(f"{alias},{name},{address} {key[0]} {key[1]}\n")
            config.append(
                f"Host {alias}\n    HostName {address}\n    User {USER}\n    IdentityFile {self.identity_file.resolve()}\n"
                f"    IdentitiesOnly yes\n    UserKnownHostsFile {self.known_hosts.resolve()}\n    HostKeyAlias {alias}\n"
            )
        self.known_hosts.write_text("".join(pins))
        self.ssh_config.write_text("\n".join(config))
        hosts = "".join(f"  {name}: {{}}\n" for name in self.names)
        self.hosts_file.write_text(
            'defaults:\n  alias: "aws-instance-{name}"\n  ssh_config: ssh_config\n  known_hosts: known_hosts\n'
            f"  pipeline: openhands\nhosts:\n{hosts}groups:\n  eval:\n    hosts: [{', '.join(self.names)}]\n"
        )

    def _on_each(self, action: Callable[[str], None], names: Sequence[str]) -> None:
        with ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(action, names))


def _keygen(path: Path) -> None:
    if not path.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "fleet-test", "-f", str(path)], check=True)


def _tar(source: Path | bytes, target: str, mode: int | None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if isinstance(source, Path):
            archive.add(source, arcname=target, filter=lambda entry: _plain(entry, mode))
        else:
            entry = tarfile.TarInfo(target)
            entry.size, entry.mode, entry.mtime = len(source), mode or 0o644, int(time.time())
            archive.addfile(entry, io.BytesIO(source))
    return buffer.getvalue()


def _plain(entry: tarfile.TarInfo, mode: int | None) -> tarfile.TarInfo | None:
    if "__pycache__" in entry.name:
        return None
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    if mode is not None and entry.isfile():
        entry.mode = mode
    return entry
