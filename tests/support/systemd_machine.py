"""A test host that boots systemd: sessions under logind, system units, sudo, as on a cloud machine.

with SystemdMachine(directory) as machine:
    machine.configure(kill_user_processes=True, sudo=True)
    with machine.login() as client:
        client.launch(...)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from fleet.agent import AgentClient
from fleet.inventory import load_inventory
from fleet.inventory.pipelines import agent_source
from fleet.transport import SshConnector
from tests.support import host_image
from tests.support.engine import Engine, cache_directory, engine, owner_token, remove_containers

RECIPE = Path(__file__).parent / "systemd_host"
NAME = "unit1"
BOOT_S = 60.0


class SystemdMachine:
    """One container with systemd as its first process; removed on exit."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.container = f"fleet-test-{secrets.token_hex(3)}-{NAME}"
        self._stack = ExitStack()

    def __enter__(self) -> SystemdMachine:
        with ExitStack() as stack:
            self.docker: Engine = stack.enter_context(engine())
            image = _image(self.docker)
            self.directory.mkdir(parents=True, exist_ok=True)
            for key in ("host_key", "id_ed25519"):
                words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.directory / key)]
                subprocess.run(words, check=True)
            (self.directory / "authorized_keys").write_bytes((self.directory / "id_ed25519.pub").read_bytes())
            stack.callback(lambda: remove_containers(self.docker, [self.container]))
            # cgroup v2 gives each container a tree of its own; of v1's trees it needs the machine's.
            v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
            cgroups = ["--cgroupns", "private"] if v2 else ["--cgroupns", "host", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup"]
            self.docker.run(
                "run", "--detach", "--name", self.container, "--hostname", NAME, "--label", f"fleet.test.owner={owner_token()}",
                "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
                "--security-opt", "apparmor=unconfined", "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp",
                "--env", "container=docker", "--stop-signal", "SIGRTMIN+3", *cgroups,
                "--volume", f"{self.directory.resolve()}:/fleet:ro", image,
            )  # fmt: skip
            inspect = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            self.address = self.docker.lines("inspect", "--format", inspect, self.container)[0]
            self._await_boot()
            self._write_files()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def root(self, script: str, *, check: bool = True) -> str:
        """Return what a shell script, run as root beside SSH, prints."""
        # On stdin, so that the script's own words match no pgrep in it.
        return self.docker.run("exec", "-i", self.container, "bash", stdin=script.encode(), check=check).stdout.decode()

    def configure(self, *, kill_user_processes: bool, sudo: bool) -> None:
        """Set what logind does at logout and whether ubuntu may become root, and begin with an empty ~/.fleet."""
        word = "yes" if kill_user_processes else "no"
        rule = "echo 'ubuntu ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/ubuntu" if sudo else "rm -f /etc/sudoers.d/ubuntu"
        self.root(
            "pkill -KILL -u ubuntu; mkdir -p /etc/systemd/logind.conf.d; rm -rf /home/ubuntu/.fleet /home/ubuntu/starts\n"
            f"printf '[Login]\\nKillUserProcesses={word}\\n' > /etc/systemd/logind.conf.d/fleet.conf\n{rule}\n"
            "install -d -o ubuntu -g ubuntu /home/ubuntu/work; systemctl restart systemd-logind; systemctl reset-failed"
        )

    @contextmanager
    def login(self) -> Iterator[AgentClient]:
        """Yield the agent over a session of its own; on exit the user has logged out."""
        inventory = load_inventory(self.directory / "hosts.yaml")
        connector = SshConnector(inventory.defaults)
        try:
            yield AgentClient(connector.open(inventory.get(NAME)), agent_source())
        finally:
            connector.close()

    def await_logout(self) -> None:
        """Return when logind has no session of ubuntu left."""
        deadline = time.monotonic() + 20
        while "ubuntu" in self.root("loginctl list-sessions --no-legend"):
            assert time.monotonic() < deadline, "the session does not end"
            time.sleep(0.05)

    def _await_boot(self) -> None:
        deadline = time.monotonic() + BOOT_S
        ready = "systemctl is-active -q ssh systemd-logind dbus && [ -d /run/systemd/system ]"
        while self.docker.run("exec", self.container, "sh", "-c", ready, check=False).returncode != 0:
            if time.monotonic() > deadline:
                log = self.docker.run("logs", "--tail", "30", self.container, check=False)
                said = self.root("systemctl --failed --no-pager; journalctl -n 30 --no-pager", check=False)
                raise RuntimeError(f"{NAME} did not boot: {(log.stdout + log.stderr).decode(errors='replace')}{said}")
            time.sleep(0.1)

    def _write_files(self) -> None:
        alias = f"aws-instance-{NAME}"
        key = (self.directory / "host_key.pub").read_text().split()
        (self.directory / "known_hosts").write_text(f"{alias},{self.address} {key[0]} {key[1]}\n")
        (self.directory / "ssh_config").write_text(
            f"Host {alias}\n    HostName {self.address}\n    User ubuntu\n    IdentitiesOnly yes\n    HostKeyAlias {alias}\n"
            f"    IdentityFile {(self.directory / 'id_ed25519').resolve()}\n"
            f"    UserKnownHostsFile {(self.directory / 'known_hosts').resolve()}\n"
        )
        (self.directory / "hosts.yaml").write_text(
            'defaults:\n  alias: "aws-instance-{name}"\n  ssh_config: ssh_config\n  known_hosts: known_hosts\n'
            f"hosts:\n  {NAME}: {{}}\n"
        )


def _image(docker: Engine) -> str:
    """Return the tag of the image, in the engine; built (a minute) or loaded from the cache when it is not there."""
    digest = hashlib.sha256(f"{host_image.codename()} {platform.machine()}".encode())
    for path in sorted(RECIPE.iterdir()):
        digest.update(path.read_bytes() + b"\0")
    tag = f"fleet-systemd-host:{digest.hexdigest()[:12]}"
    archive = cache_directory() / f"systemd-host-{digest.hexdigest()[:12]}.tar.zst"
    with open(cache_directory() / "systemd-image.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if docker.run("image", "inspect", tag, check=False).returncode == 0:
            return tag
        if not archive.exists():
            _build(archive)
        with subprocess.Popen(["zstd", "-q", "-dc", str(archive)], stdout=subprocess.PIPE) as unpack:
            change = 'ENTRYPOINT ["/usr/local/sbin/systemd-host-init"]'
            docker.run("import", "--change", change, "-", tag, stdin=unpack.stdout, timeout_s=300)
    return tag


def _build(archive: Path) -> None:
    mirror, components = host_image.apt_mirror()
    work = Path(tempfile.mkdtemp(prefix="build-", dir=cache_directory()))
    log = cache_directory() / "systemd-build.log"
    try:
        with open(log, "wb") as output:
            built = subprocess.run(
                ["unshare", "--mount", "--propagation", "private", str(RECIPE / "build.sh"), str(work / "rootfs"),
                 host_image.codename(), mirror, components],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=host_image.BUILD_S, check=False,
            )  # fmt: skip
        if built.returncode != 0:
            raise RuntimeError(f"building the systemd test host failed; {log} ends with:\n{log.read_text()[-3000:]}")
        partial = archive.with_suffix(".partial")
        pack = 'set -o pipefail; tar --numeric-owner -C "$1" -c . | zstd -q -T0 -3 -f -o "$2"'
        subprocess.run(["bash", "-c", pack, "pack", str(work / "rootfs"), str(partial)], check=True)
        os.rename(partial, archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)
