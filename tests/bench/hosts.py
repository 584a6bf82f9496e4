"""The hosts of the benchmarks: real sshd on loopback addresses, a pipeline for them, and the same work for plain ssh."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.support.sshd_farm import SshdFarm

PIPELINE = """
schema: fleet.pipeline/1
name: bench
workdir: ~/work
critical:
  - {path: scripts/run.sh, executable: true}
  - {path: scripts/standardized.py}
  - {path: builder/docker.py}
  - {path: templates/Dockerfile.j2}
readiness:
  tools: [bash, git]
  disk: {max_used_percent: 100, min_free_gb: 0.01, min_free_inodes: 1}
  min_free_memory_gb: 0.01
busy: {processes: ["fleet-bench-[e]val"]}
command: [scripts/run.sh, "{model}"]
outputs: {root: "{output_dir}", marker: output.jsonl}
cleanup: {processes: kill, containers: keep, grace_s: 2}
"""
CRITICAL = ("scripts/run.sh", "scripts/standardized.py", "builder/docker.py", "templates/Dockerfile.j2")
SCRIPT = r"""
uname -n; id -u; date +%s
cat /proc/sys/kernel/random/boot_id
python3 -V 2>&1
rsync --version | sed -n 1p
command -v bash git
df -P ~ | tail -n 1; df -Pi ~ | tail -n 1
grep -E 'MemTotal|MemAvailable' /proc/meminfo
ls -l ~/work/scripts/run.sh
pgrep -fc 'fleet-bench-[e]val'
flock -n ~/work/lock true && echo free || echo held
sha256sum ~/work/scripts/run.sh; sha256sum ~/work/scripts/standardized.py
sha256sum ~/work/builder/docker.py; sha256sum ~/work/templates/Dockerfile.j2
"""
"""What `fleet check` asks of this pipeline, as an operator would write it for a shell."""

SSH_OPTIONS = ("-o", "KexAlgorithms=curve25519-sha256", "-o", "BatchMode=yes", "-o", "ControlPath=none")


class BenchHosts(SshdFarm):
    """`count` hosts with the work directory of the pipeline `bench`."""

    def __init__(self, count: int, directory: Path) -> None:
        super().__init__(count, directory)
        self.script = directory / "check.sh"
        self.answers = directory / "answers"
        self.remote_scripts = directory / "remote_scripts"

    def start(self) -> None:
        """Start the hosts and furnish them."""
        super().start()
        self.answers.mkdir()
        self.script.write_text(SCRIPT)
        folder = self.remote_scripts / "bench"
        folder.mkdir(parents=True)
        (folder / "pipeline.yaml").write_text(PIPELINE)
        self.hosts_file.write_text(self.hosts_file.read_text().replace("defaults:\n", "defaults:\n  pipeline: bench\n", 1))
        for name in self.names:
            for number, path in enumerate(CRITICAL):
                file = self.homes[name] / "work" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(bytes([65 + number]) * 20_000)
                file.chmod(0o755)
            (self.homes[name] / "work" / "lock").touch()

    @property
    def environment(self) -> dict[str, str]:
        """What `fleet` needs to find these hosts and their pipeline."""
        return {
            **os.environ,
            "FLEET_HOSTS_FILE": str(self.hosts_file),
            "FLEET_REMOTE_SCRIPTS": str(self.remote_scripts),
            "FLEET_COLLECTED": str(self.directory / "collected"),
            "XDG_STATE_HOME": str(self.directory / "state"),
        }

    def parallel(self, names: Sequence[str], at_once: int, command: str) -> list[str]:
        """Return a command line that runs the shell text `command` for each host, `at_once` at a time; `$1` is its name."""
        words = " ".join(names)
        return ["sh", "-c", f"printf '%s\\n' {words} | xargs -P{at_once} -I{{}} sh -c '{command}' sh {{}}"]

    def ssh_check(self, names: Sequence[str], at_once: int = 32, *, config: Path | None = None) -> list[str]:
        """Return the command line of plain ssh that does the work of a check."""
        options = " ".join(SSH_OPTIONS)
        return self.parallel(
            names,
            at_once,
            f"exec ssh -F {config or self.ssh_config} {options} aws-instance-$1 sh -s <{self.script} >{self.answers}/$1",
        )
