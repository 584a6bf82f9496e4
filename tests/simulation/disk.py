"""A host's disk in memory: files that are whole or not there, a limit, and a fuse that kills the writer at its N-th step."""

from __future__ import annotations

import errno
import json
import posixpath
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class Killed(BaseException):
    """The process that was writing is gone; not an Exception, because no handler of its own runs after a kill."""


class Disk:
    """Folders of files; every change is one durable step, as the agent makes it (tmp, fsync, rename)."""

    def __init__(self) -> None:
        self.folders: dict[str, dict[str, str]] = {}
        self.room: int | None = None
        """Writes that still fit; None while there is space."""
        self.fuse: int | None = None
        """Durable steps until the writing process is killed."""
        self.dead = False
        """While a killed process unwinds, its clean-up code must not have any effect."""
        self.steps = 0
        self.at_step: Callable[[], None] = lambda: None
        """Called at every durable step: what is to happen right there."""

    def step(self) -> bool:
        """Count a durable step; False when the process is dead already and nothing may happen."""
        if self.dead:
            return False
        self.at_step()
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse, self.dead = None, True
                raise Killed
        self.steps += 1
        return True

    def read(self, path: str) -> str | None:
        folder, name = posixpath.split(path)
        return self.folders.get(folder, {}).get(name)

    def document(self, path: str) -> dict[str, Any] | None:
        """Return the object in a file, None when it is not there or half written, as the agent's own reader does."""
        try:
            document = json.loads(self.read(path) or "")
        except ValueError:
            return None
        return document if isinstance(document, dict) else None

    def write(self, path: str, text: str) -> None:
        if not self.step():
            return
        if self.room is not None:
            if self.room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device", path)
            self.room -= 1
        folder, name = posixpath.split(path)
        self.folders[folder][name] = text

    def unlink(self, path: str) -> None:
        folder, name = posixpath.split(path)
        if name not in self.folders.get(folder, {}):
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        if self.step():
            del self.folders[folder][name]
            if name == "reserve" and self.room is not None:
                self.room += 12

    def link(self, source: str, target: str) -> None:
        folder, name = posixpath.split(target)
        if name in self.folders[folder]:
            raise FileExistsError(errno.EEXIST, "File exists", target)
        if self.step():
            self.folders[folder][name] = self.read(source) or ""

    def rename(self, source: str, target: str) -> None:
        if not self.step():
            return
        if source in self.folders:
            self.folders[target] = self.folders.pop(source)
        else:
            text = self.read(source)
            del self.folders[posixpath.dirname(source)][posixpath.basename(source)]
            self.folders[posixpath.dirname(target)][posixpath.basename(target)] = text or ""

    def mkdir(self, path: str, _mode: int = 0) -> None:
        if path in self.folders:
            raise FileExistsError(errno.EEXIST, "File exists", path)
        if self.step():
            self.folders[path] = {}

    def remove_tree(self, path: str) -> None:
        if self.step():
            self.folders.pop(path, None)

    def listdir(self, path: str) -> list[str]:
        below = [one[len(path) + 1 :] for one in self.folders if one.startswith(path + "/")]
        return sorted({one.split("/")[0] for one in below} | set(self.folders.get(path, {})))

    def exists(self, path: str) -> bool:
        return path in self.folders or self.read(path) is not None


def paths(disk: Any) -> SimpleNamespace:
    """Return what the agent uses of os.path, asked of whatever `disk()` returns."""
    return SimpleNamespace(
        join=posixpath.join,
        basename=posixpath.basename,
        dirname=posixpath.dirname,
        abspath=posixpath.abspath,
        realpath=lambda path: path,
        exists=lambda path: disk().exists(path),
        lexists=lambda path: disk().exists(path),
        isfile=lambda path: disk().read(path) is not None,
        isdir=lambda path: path in disk().folders,
        islink=lambda path: False,
    )
