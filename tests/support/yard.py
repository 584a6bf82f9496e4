"""A host with outputs to pull, an open connection to it, and a place for what comes back."""

from __future__ import annotations

import os
from pathlib import Path

from fleet.transport import PullRequest, PullResult, Transport
from tests.support.sshd_farm import SshdFarm


class Yard:
    """One host with an output directory, an open connection, and a place for what comes back."""

    def __init__(self, farm: SshdFarm, transport: Transport, directory: Path) -> None:
        self.farm = farm
        self.home = farm.homes["eval1"]
        self.source = self.home / "out"
        self.transport = transport
        self.target = directory / "staging"
        self.target.mkdir(mode=0o700)
        self.source.mkdir()

    def pull(
        self, *files: str, file_cap: int = 200_000_000, total_cap: int = 400_000_000, deadline_s: float = 30
    ) -> PullResult:
        return self.transport.pull(PullRequest(str(self.source), files, self.target, file_cap, total_cap, deadline_s))

    def write(self, name: str, data: bytes) -> Path:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def arrived(self) -> dict[str, os.stat_result]:
        found = [path for path in self.target.rglob("*") if path.is_symlink() or not path.is_dir()]
        return {str(path.relative_to(self.target)): path.lstat() for path in found}

    def replace_rsync(self, body: str) -> None:
        """Put a program of the attacker first in the host's PATH."""
        folder = self.home / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "rsync").write_text(body)
        (folder / "rsync").chmod(0o755)
        (self.home / ".bashrc").write_text(f"PATH={folder}:$PATH\n")
