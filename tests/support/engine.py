"""The outer Docker engine that runs the test hosts: the machine's own when one answers, else one started by hand.

An engine of our own is shared by all test sessions of this machine: each holds a shared lock while it runs, and the
last one to leave stops the engine. Its data stays in the cache, so that the next session finds the host image there.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from tests.support import engine_network

RUN = Path("/run/fleet-tests")
"""Short, because a unix socket's path may have 108 characters at most."""
SOCKET = RUN / "docker.sock"
PIDFILE = RUN / "docker.pid"
NETWORK = RUN / "network.json"
START_S = 60.0


def cache_directory() -> Path:
    """Return the directory where built test images are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base) / "fleet-tests"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class Engine:
    """A Docker engine, called through the docker client."""

    def __init__(self, host: str | None) -> None:
        self.env = {**os.environ, **({"DOCKER_HOST": host} if host else {})}

    def run(
        self, *argv: str, stdin: bytes | IO[bytes] | None = None, check: bool = True, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `docker ARGV`; with `check`, a failure is a RuntimeError that holds the client's own words."""
        streams: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin or subprocess.DEVNULL}
        done = subprocess.run(["docker", *argv], env=self.env, capture_output=True, timeout=timeout_s, check=False, **streams)
        if check and done.returncode != 0:
            words = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise RuntimeError(f"docker {' '.join(argv[:4])}… ended with {done.returncode}: {words[-2000:]}")
        return done

    def lines(self, *argv: str) -> list[str]:
        """Return the output of `docker ARGV` as lines."""
        return self.run(*argv).stdout.decode().split("\n")[:-1]

    def answers(self) -> bool:
        """Tell whether the engine answers now."""
        return self.run("version", check=False, timeout_s=20).returncode == 0


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield an engine that answers, started if need be; one that we started is stopped by its last user."""
    if shutil.which("docker") is None:
        raise RuntimeError("docker is not installed; `make test` as root installs what the tests need")
    system = Engine(None)
    if system.answers():
        yield system
        return
    if os.geteuid() != 0:
        raise RuntimeError("no Docker engine answers, and only root can start one: run the tests as root")
    RUN.mkdir(mode=0o755, exist_ok=True)
    ours = Engine(f"unix://{SOCKET}")
    with open(RUN / "users.lock", "w") as users:
        with _locked(RUN / "start.lock"):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not ours.answers():
                _start(ours)
        try:
            yield ours
        finally:
            with _locked(RUN / "start.lock"), suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while another session uses the engine
                _stop()
                engine_network.restore(NETWORK)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(ours: Engine) -> None:
    _stop()  # a dead or half-started one of an earlier session would hold the data directory
    engine_network.remember(NETWORK)
    log = cache_directory() / "dockerd.log"
    with open(log, "wb") as output:
        # Forked away: it outlives this session when another one has begun to use it.
        subprocess.run(
            [
                "setsid", "--fork", "dockerd", "--host", f"unix://{SOCKET}", "--pidfile", str(PIDFILE),
                "--exec-root", str(RUN / "exec"), "--data-root", str(cache_directory() / "docker"),
            ],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=True,
        )  # fmt: skip
    begun = time.monotonic()
    while time.monotonic() < begun + START_S:
        if ours.answers():
            return
        if time.monotonic() > begun + 5 and _pid() is None:
            break
        time.sleep(0.1)
    _stop()
    raise RuntimeError(f"dockerd did not answer; {log} ends with:\n{log.read_text(errors='replace')[-3000:]}")


def _stop() -> None:
    """End the engine named in the pid file, and wait until it and its containerd are gone."""
    pid = _pid()
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while _pid() == pid and time.monotonic() < deadline:
        time.sleep(0.05)


def _pid() -> int | None:
    """Return the pid of our own engine; None when it is gone or the pid was given to another process."""
    try:
        pid = int(PIDFILE.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if str(PIDFILE).encode() in command else None


def owner_token() -> str:
    """Return a label that says which process owns a container: pid and start time, so a reused pid is no owner."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def owner_lives(token: str) -> bool:
    """Tell whether the process that `owner_token` named still runs."""
    pid, _, started = token.partition("-")
    return pid.isdigit() and _start_time(int(pid)) == started


def _start_time(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def remove_containers(docker: Engine, names: Sequence[str]) -> None:
    """Remove containers with their anonymous volumes; without `-v` every test host would leak its engine's data."""
    if names:
        docker.run("rm", "-fv", *names, check=False)
