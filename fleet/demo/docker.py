"""Docker for `fleet demo --docker`: what is missing is said before anything starts, and every embedded host has its own view.

The hosts share this machine's engine. Each sees only the containers that it started itself, so that none takes those of
another, or of whoever plays the demo, for its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from fleet.errors import InputError
from fleet.model.names import visible

IMAGE = "swebench-lite:py3.10"
SETTINGS = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION")
LABEL = "fleet.demo"
DEADLINE_S = 30.0


class Engine:
    """This machine's engine, as the docker client of this process reaches it."""

    def __init__(self, program: str) -> None:
        self.program = program

    def has_image(self) -> bool:
        """Tell whether the image that the evals run in is there."""
        return self.ask("image", "inspect", "--format", "{{.Id}}", IMAGE).returncode == 0

    def view(self, stage: Path, name: str) -> str:
        """Return the `docker` of one host as a shell script: it labels what it starts, and lists nothing else."""
        # The client's own directory names the context; a host has another HOME.
        settings = {"DOCKER_CONFIG": str(Path.home() / ".docker")} | {
            key: os.environ[key] for key in ("DOCKER_CONFIG", *SETTINGS) if key in os.environ
        }
        labels = [f"{LABEL}={stage}", f"{LABEL}.host={name}"]
        started = shlex.join(word for label in labels for word in ("--label", label))
        listed = shlex.join(word for label in labels for word in ("--filter", f"label={label}"))
        return "\n".join(
            [
                *(f"export {key}={shlex.quote(value)}" for key, value in settings.items()),
                'case "$1" in',
                f'run) shift; set -- run {started} "$@" ;;',
                f'ps) shift; set -- ps {listed} "$@" ;;',
                "esac",
                f'exec {shlex.quote(self.program)} "$@"',
            ]
        )

    def remove_containers(self, stage: Path) -> None:
        """Remove what the hosts of `stage` started and left: an eval that was killed could not do it."""
        left = self.ask("ps", "--all", "--quiet", "--filter", f"label={LABEL}={stage}").stdout.split()
        if left:
            self.ask("rm", "--force", "--volumes", *left)

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one docker command; an engine that hangs has ended with 124."""
        try:
            return subprocess.run(
                [self.program, *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(words, 124, "", f"no answer within {DEADLINE_S:.0f} s")


def find_engine() -> Engine:
    """Return the engine, or raise InputError that says what is missing and how to get it."""
    program = shutil.which("docker")
    if program is None:
        hint = "sudo apt install -y docker.io; fleet demo without --docker needs none"
        raise InputError("fleet demo --docker needs docker, which is not on PATH", hint=hint)
    engine = Engine(program)
    asked = engine.ask("version", "--format", "{{.Server.Version}}")
    if asked.returncode != 0:
        said = visible((asked.stderr.strip() or asked.stdout.strip()).rpartition("\n")[2], 200)
        denied = "permission denied" in said.lower()
        hint = 'sudo usermod -aG docker "$USER", and log in again' if denied else "sudo systemctl start docker"
        raise InputError(f"the Docker engine does not answer: {said}", hint=hint)
    return engine
