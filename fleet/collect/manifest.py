"""The host's sealed manifest: which files an attempt left, how large they are, and their sha256.

A host can send anything, so a manifest is believed whole or not at all: one path that could leave the staging directory,
meet another path, or hide a leftover of rsync refuses the manifest. What the host itself left out (links, devices, files
over the cap) is kept as findings, so that a missing file has its reason beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from fleet.errors import StorageError, TamperedTransfer, TransferFailed
from fleet.model.findings import Finding, Mark
from fleet.model.names import is_safe_path, visible
from fleet.model.pipeline import Outputs

MANIFEST = "manifest.json"
PROVENANCE = "fleet.json"
VERDICT = "verdict.json"
LOG = "fleet.log"
RESERVED = frozenset({MANIFEST, PROVENANCE, VERDICT, LOG})
"""Names at the top of a result directory that are fleet's."""
HOST_FILES = "host-files"
"""Where the host's own files of these names are kept, so that neither side is lost."""
PARTIAL = ".rsync-partial"
MAX_NOTES = 1000
"""Skipped or stale entries kept; a hostile list may not grow manifest.json without end."""


class _Record(BaseModel):
    """Foreign data: unknown keys are left out, types are not coerced."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class ManifestFile(_Record):
    """One file: its path below the attempt's directory, its size in bytes, its sha256."""

    path: str
    size: int = Field(ge=0, le=2**53)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Skipped(_Record):
    """A path that the host did not offer, and why: a link, a device, over the cap."""

    path: str
    why: str = ""

    @field_validator("path", "why")
    @classmethod
    def _shown(cls, text: str) -> str:
        return visible(text, 1024)


class HostManifest(_Record):
    """What the host says it has for one attempt."""

    root: str = ""
    sealed_at: str = ""
    files: list[ManifestFile]
    skipped: list[Skipped] = Field(default_factory=list)
    stale: list[str] = Field(default_factory=list)
    """Files that were there before the attempt began; they are never collected."""

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was left on the host, as findings."""
        return tuple(
            Finding(check="collect", mark=Mark.WARN, subject=one.path, message=f"left on the host: {one.why or 'skipped'}")
            for one in self.skipped
        )


class ResultManifest(_Record):
    """`manifest.json` of a collected result; `files` are paths below it, as they are here."""

    schema_: Literal["fleet.manifest/1"] = Field(default="fleet.manifest/1", alias="schema")
    attempt: str = ""
    root: str = ""
    """The directory on the host, absolute."""
    sealed_at: str = ""
    files: list[ManifestFile] = Field(default_factory=list)
    renamed: dict[str, str] = Field(default_factory=dict)
    """Path here → path on the host, for the host's files whose names are fleet's own."""
    skipped: list[Skipped] = Field(default_factory=list)
    stale: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Limits:
    """The most that one attempt may bring; bytes, bytes, files."""

    file_bytes: int
    total_bytes: int
    files: int

    @classmethod
    def of(cls, outputs: Outputs) -> Limits:
        """Return the caps of a pipeline."""
        return cls(outputs.max_file_mb << 20, outputs.max_total_mb << 20, outputs.max_files)


def read_manifest(document: Mapping[str, Any] | BaseModel, limits: Limits, host: str) -> HostManifest:
    """Return the host's manifest, or refuse it whole.

    TamperedTransfer: a path or a shape that no agent of ours writes. TransferFailed: more than the pipeline's caps allow,
    which a person must decide; the host keeps the files.
    """
    data = document.model_dump() if isinstance(document, BaseModel) else dict(document)
    for name in ("skipped", "stale"):
        if isinstance(data.get(name), list | tuple):
            data[name] = _notes(list(data[name]), name)
    count = len(data["files"]) if isinstance(data.get("files"), list) else 0
    if count > limits.files:
        raise _over(host, f"{count} files, more than outputs.max_files {limits.files}")
    try:
        manifest = HostManifest.model_validate(data)
    except (ValidationError, ValueError) as error:
        raise TamperedTransfer(f"{host}: the manifest is not one: {_first_line(error)}", hint=_HINT, host=host) from None
    reason = refuse_paths(file.path for file in manifest.files)
    if reason:
        raise TamperedTransfer(f"{host}: the manifest is refused: {reason}", hint=_HINT, host=host)
    largest = max(manifest.files, key=lambda file: file.size, default=None)
    if largest is not None and largest.size > limits.file_bytes:
        raise _over(host, f"{largest.path} has {largest.size} bytes, more than outputs.max_file_mb {limits.file_bytes >> 20}")
    if manifest.total > limits.total_bytes:
        raise _over(host, f"{manifest.total} bytes, more than outputs.max_total_mb {limits.total_bytes >> 20}")
    return manifest


_HINT = "treat the host as compromised or its agent as damaged: fleet check HOST, then fleet collect --again"


def _over(host: str, what: str) -> TransferFailed:
    return TransferFailed(
        f"{host}: the result is refused: {what}; the host keeps it",
        hint="raise the cap in pipeline.yaml if the size is right, then: fleet collect",
        host=host,
    )


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        item = error.errors()[0]
        return visible(f"{'.'.join(map(str, item['loc']))}: {item['msg']}", 200)
    return visible(str(error), 200)


def _notes(items: list[Any], name: str) -> list[Any]:
    kept = items[:MAX_NOTES]
    if name == "stale":
        return [visible(str(item.get("path", "") if isinstance(item, dict) else item), 1024) for item in kept]
    return [item if isinstance(item, dict) else {"path": str(item)} for item in kept]


def refuse_paths(paths: Iterable[str]) -> str | None:
    """Return why these paths may not be created together below one directory, or None.

    Paths that differ only in case are one file on macOS; a file that is also a directory lets the order of arrival decide.
    """
    files: set[str] = set()
    spelling: dict[str, str] = {}
    parents: set[str] = set()
    for path in paths:
        if not is_safe_path(path):
            return f"{visible(path, 120)!r} is not a path that may be created here"
        parts = path.split("/")
        if PARTIAL in parts or parts[0].casefold() == HOST_FILES:
            return f"{path!r} is a name that fleet itself uses here"
        if path in files:
            return f"{path!r} is listed twice"
        files.add(path)
        prefix = ""
        for part in parts:
            if prefix:
                parents.add(prefix)
            prefix = f"{prefix}/{part}" if prefix else part
            known = spelling.setdefault(prefix.casefold(), prefix)
            if known != prefix:
                return f"{known!r} and {prefix!r} differ only in case"
    both = files & parents
    return f"{min(both)!r} is a file and a directory" if both else None


def local_path(path: str) -> str:
    """Return where a host's file is kept: at its own path, unless that path is fleet's."""
    return f"{HOST_FILES}/{path}" if reserved(path.split("/", 1)[0]) else path


def reserved(name: str) -> bool:
    """Tell whether a name at the top of a result is fleet's, in whatever case (macOS)."""
    return name.casefold() in RESERVED


def result_manifest(manifest: HostManifest, attempt: str) -> ResultManifest:
    """Return what is written beside the files as `manifest.json`."""
    local = {file.path: local_path(file.path) for file in manifest.files}
    return ResultManifest(
        attempt=attempt,
        root=visible(manifest.root, 4096),
        sealed_at=visible(manifest.sealed_at, 64),
        files=[file.model_copy(update={"path": local[file.path]}) for file in manifest.files],
        renamed={here: there for there, here in local.items() if here != there},
        skipped=manifest.skipped,
        stale=manifest.stale,
    )


def encode(model: BaseModel) -> bytes:
    """Return a document as it is written here: sorted by nothing, one line per item, ASCII only."""
    return json.dumps(model.model_dump(mode="json", by_alias=True), indent=1).encode() + b"\n"


def read_result_manifest(directory: Path) -> ResultManifest:
    """Return the `manifest.json` of a collected result, or raise StorageError."""
    path = directory / MANIFEST
    try:
        return ResultManifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", hint="move the directory away, then: fleet collect --again") from None
    except ValidationError as error:
        raise StorageError(
            f"{path}: not a manifest: {_first_line(error)}", hint="move the directory away, then: fleet collect --again"
        ) from None


def digest_of(manifest: HostManifest | ResultManifest) -> str:
    """Return one sha256 over all paths, sizes and digests; two results with the same one have the same files."""
    there = manifest.renamed if isinstance(manifest, ResultManifest) else {}
    lines = sorted(f"{there.get(file.path, file.path)}\0{file.size}\0{file.sha256}\n" for file in manifest.files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
