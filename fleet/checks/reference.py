"""What the files should be, from this machine: the reference directory and the pipeline's own files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fleet.checks.base import Authority, Expectation
from fleet.checks.critical import shipped_paths
from fleet.errors import InputError
from fleet.model.pipeline import Pipeline

MAX_BYTES = 16 * 1024 * 1024
"""A critical file is a script or a template; anything bigger is a mistake in the list."""


@dataclass(frozen=True)
class ReferenceFile:
    """One file as it should be on a host."""

    key: str
    """Path below the work directory, or below `~/.fleet/pipelines/NAME` for a shipped file."""
    body: bytes
    mode: int

    @property
    def sha256(self) -> str:
        """Digest of the body."""
        return hashlib.sha256(self.body).hexdigest()


def reference_directory(pipeline: Pipeline, folder: Path, override: Path | None) -> Path | None:
    """Return the directory with the right critical files: `override`, else the pipeline's own, relative to its folder."""
    if override is not None:
        directory = override
    elif pipeline.reference is not None:
        directory = folder / pipeline.reference.expanduser()
    else:
        return None
    if not directory.is_dir():
        raise InputError(
            f"pipeline {pipeline.name}: the reference directory {directory} is not there",
            hint="give one with --reference DIR, or correct `reference:` in pipeline.yaml",
        )
    return directory


def critical_files(pipeline: Pipeline, directory: Path) -> list[ReferenceFile]:
    """Read the critical files from the reference directory; a missing one, or one that is not as listed, is an InputError."""
    files = []
    for file in pipeline.critical:
        found = _read(directory / file.path, file.path, f"pipeline {pipeline.name}: reference {directory}")
        listed, digest = (file.sha256, found.sha256) if file.sha256 else (file.md5, _md5(found.body))
        if listed is not None and listed != digest:
            raise InputError(
                f"pipeline {pipeline.name}: {file.path} in {directory} is {digest[:12]}, pipeline.yaml lists {listed[:12]}",
                hint="check out the right version, or correct the digest in pipeline.yaml",
            )
        mode = found.mode | 0o111 if file.executable else found.mode
        files.append(ReferenceFile(file.path, found.body, mode))
    return files


def shipped_files(pipeline: Pipeline, folder: Path) -> list[ReferenceFile]:
    """Read the files beside pipeline.yaml, and those of included pipelines, that belong on the hosts."""
    return [_read(_home(pipeline, folder, name) / name, name, f"pipeline {pipeline.name}: ship") for name in pipeline.ship]


def _home(pipeline: Pipeline, folder: Path, name: str) -> Path:
    """Return the folder that has a shipped file; that it is one only was seen to when the pipeline was loaded."""
    return next((home for home in (folder, *pipeline.include) if (home / name).exists()), folder)


def expectations(pipeline: Pipeline, folder: Path, override: Path | None = None) -> dict[str, Expectation]:
    """Return what is known on this machine about the files of `pipeline`, by the keys that the consistency check uses."""
    expected: dict[str, Expectation] = {}
    directory = reference_directory(pipeline, folder, override)
    if directory is not None:
        for file in critical_files(pipeline, directory):
            expected[file.key] = Expectation(Authority.REFERENCE, f"reference {directory}", sha256=file.sha256)
    for path, file in zip(shipped_paths(pipeline), shipped_files(pipeline, folder), strict=True):
        home = _home(pipeline, folder, file.key)
        source = pipeline.name if home == folder else home.name
        expected[path] = Expectation(Authority.REFERENCE, f"remote_scripts/{source}", sha256=file.sha256)
    return expected


def _read(path: Path, key: str, source: str) -> ReferenceFile:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{source}: {key} is larger than {MAX_BYTES} bytes")
        body = path.read_bytes()
        executable = path.stat().st_mode & 0o111
    except OSError as error:
        raise InputError(
            f"{source}: {key} cannot be read: {error.strerror}", hint="is it the right checkout? try --reference DIR"
        ) from None
    return ReferenceFile(key, body, 0o755 if executable else 0o644)


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
