"""Find what can be judged: directories that hold one result, and files that hold many."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import InputError
from fleet.quality.folder import Folder, Refused
from fleet.quality.kinds import FILES, HEAD_BYTES, TAIL_BYTES, Kind, kind_of_directory, kind_of_file

_PARTIAL = ".partial"
_SUFFIXES = (".json", ".jsonl")
_MAX_DEPTH = 24
_DIRECTORY = "fleet validate DIR, a directory of results or one above it"


@dataclass(frozen=True)
class Source:
    """One directory or file that holds results."""

    path: Path
    kind: Kind

    @property
    def folder(self) -> Path:
        """The directory to open."""
        return self.path.parent if self.kind in FILES else self.path

    @property
    def name(self) -> str:
        """The file in the folder; empty when the whole directory is the result."""
        return self.path.name if self.kind in FILES else ""


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """Return what can be judged at or below `paths`, each once, in order.

    A result directory is known by the names in it, a file by its beginning and end, whatever it is called. A file of a result
    directory stands for the directory. Unfinished transfers (`*.partial`) and links are passed over below a path; a path that
    does not exist, and a file that is no result, raise InputError.
    """
    found: dict[Path, Source] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or directory", hint=_DIRECTORY)
        for source in _at(path) if path.is_file() else _below(path, 0):
            found[source.path] = source
    return list(found.values())


def _at(path: Path) -> Iterator[Source]:
    files, directories = _names(path.parent)
    kind = kind_of_directory(files, directories)
    if kind is not None:
        yield Source(path.parent, kind)
    elif (kind := _sniffed(path.parent, path.name)) is not None:
        yield Source(path, kind)
    else:
        raise InputError(f"{path}: holds no result", hint=_DIRECTORY)


def _below(directory: Path, depth: int) -> Iterator[Source]:
    files, directories = _names(directory)
    kind = kind_of_directory(files, directories)
    if kind is not None:
        yield Source(directory, kind)
        return
    for name in files:
        if name.endswith(_SUFFIXES) and not name.startswith(".") and (kind := _sniffed(directory, name)) is not None:
            yield Source(directory / name, kind)
    if depth >= _MAX_DEPTH:
        return
    for name in directories:
        if not name.endswith(_PARTIAL) and not name.startswith("."):
            yield from _below(directory / name, depth + 1)


def _names(directory: Path) -> tuple[list[str], list[str]]:
    """Return the sorted names of files and of directories; links are neither."""
    try:
        with os.scandir(directory) as entries:
            listed = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries if not entry.is_symlink())
    except OSError:
        return [], []
    return [name for name, is_dir in listed if not is_dir], [name for name, is_dir in listed if is_dir]


def _sniffed(directory: Path, name: str) -> Kind | None:
    try:
        with Folder(directory) as folder, folder.open(name) as stream:
            head = stream.read(HEAD_BYTES)
            stream.skip_to_last(TAIL_BYTES)
            return kind_of_file(head, stream.read(TAIL_BYTES))
    except (OSError, Refused):
        return None
