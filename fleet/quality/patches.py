"""Read a git diff: is it one, which files does it touch, which lines does it add.

The frame (headers, renames, binary parts, what is left over behind a hunk) is read here, because unidiff passes over a broken
hunk header in silence and compares header names that git quotes differently; the hunks themselves are unidiff's. Lines are
split at `\\n` only: a diff may carry `\\r`, form feeds and U+2028 inside its lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

_HUNK = re.compile(r"@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
_WITHOUT_HUNKS = (
    "old mode ", "new mode ", "deleted file mode ", "new file mode ", "rename from ", "rename to ", "copy from ", "copy to ",
    "Binary files ", "Binary file ", "GIT binary patch",
)  # fmt: skip
_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPE = re.compile(rb"\\([abfnrtv\"\\]|[0-7]{3})")
_ESCAPED = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


@dataclass
class FileChange:
    """What a patch does to one file; numbers are lines of the new file."""

    source: str | None = None
    target: str | None = None
    empty_ok: bool = False
    """Binary, renamed, created empty, mode changed: no hunk is needed."""
    body: list[str] = field(default_factory=list)
    added: dict[int, str] = field(default_factory=dict)
    kept: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Patch:
    """A patch; `problem` says in a few words why it is not a unified diff, None when it is one."""

    size: int
    """Bytes of the patch as it would be written."""
    problem: str | None
    line: int | None
    changes: tuple[FileChange, ...]

    @property
    def files(self) -> frozenset[str]:
        """Paths before and after the patch, without a/ and b/."""
        return frozenset(path for change in self.changes for path in (change.source, change.target) if path)

    @property
    def gone(self) -> frozenset[str]:
        """Paths that the patch deletes or renames away."""
        return frozenset(c.source for c in self.changes if c.source and c.source != c.target)


def read_patch(text: str) -> Patch:
    """Return the patch in `text`; never raises."""
    frame = _Frame()
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        frame.line(number, line)
    frame.finish(len(lines))
    if frame.problem is None:
        for change in frame.changes:
            _hunks(change, frame)
    if "\0" in text:
        frame.wrong("holds a NUL character", None)
    if not text.isascii() and _SURROGATE.search(text):
        frame.wrong("holds half of a surrogate pair, so it cannot be written as UTF-8", None)
    return Patch(len(text.encode("utf-8", "surrogatepass")), frame.problem, frame.at, tuple(frame.changes))


def _hunks(change: FileChange, frame: _Frame) -> None:
    """Let unidiff read the hunks of one file; the names in its header are ours, so that only the hunks can be wrong."""
    if not change.body:
        return
    try:
        found = PatchSet(["--- a/file\n", "+++ b/file\n", *(line + "\n" for line in change.body)])
    except (UnidiffParseError, ValueError) as error:
        frame.wrong(f"has a hunk that does not parse ({str(error).splitlines()[0][:80]})", None)
        return
    for line in (line for patched in found for hunk in patched for line in hunk):
        if line.target_line_no is not None:
            side = change.added if line.is_added else change.kept
            side[line.target_line_no] = line.value.rstrip("\r\n")


class _Frame:
    """The state while the lines of a patch go by."""

    def __init__(self) -> None:
        self.changes: list[FileChange] = []
        self.problem: str | None = None
        self.at: int | None = None
        self.old = self.new = 0
        """Lines that the open hunk still needs on each side."""
        self.after_hunk = False
        self.binary = False
        self.header: str | None = None
        """A `---` line whose `+++` line has to follow."""

    def wrong(self, problem: str, line: int | None) -> None:
        """Keep the first thing that is wrong."""
        if self.problem is None:
            self.problem, self.at = problem, line

    def line(self, number: int, line: str) -> None:
        """Take one line."""
        if self.old > 0 or self.new > 0:
            if self._inside(line):
                return
            self.wrong("has a hunk that is shorter than its header says", number)
            self.old = self.new = 0
        if self.header is not None and not line.startswith("+++ "):
            self.header = None
        if line.startswith("diff --git "):
            self._open(*_git_names(line))
        elif self.binary:
            return
        elif line.startswith("--- "):
            self.header = line
        elif line.startswith("+++ ") and self.header is not None:
            self._names(self.header, line)
        elif line.startswith("@@"):
            self._hunk(number, line)
        elif self.changes and line.startswith(_WITHOUT_HUNKS):
            self._meta(line)
        elif self.after_hunk and line.startswith("\\"):
            self.changes[-1].body.append(line)
        elif self.after_hunk and line[:1] in ("+", "-", " ") and line.strip() != "--" and line.strip():
            self.wrong("has lines behind a hunk that its header does not count", number)
            self.after_hunk = False
        else:
            self.after_hunk = self.after_hunk and not line

    def _inside(self, line: str) -> bool:
        kind = line[:1]
        if kind == "\\":
            self.changes[-1].body.append(line)
            return True
        old, new = {"+": (0, 1), "-": (1, 0), " ": (1, 1), "": (1, 1), "\r": (1, 1)}.get(kind, (0, 0))
        if (old, new) == (0, 0) or self.old < old or self.new < new:
            return False
        self.old, self.new = self.old - old, self.new - new
        self.changes[-1].body.append(line)
        return True

    def _open(self, source: str | None, target: str | None) -> None:
        self._close()
        self.changes.append(FileChange(source, target))
        self.after_hunk = self.binary = False
        self.header = None

    def _names(self, minus: str, plus: str) -> None:
        source, target = _header_name(minus), _header_name(plus)
        # A plain diff has no `diff --git` line; a second pair of headers then starts the next file.
        if not self.changes or self.changes[-1].body:
            self._open(source, target)
        self.changes[-1].source, self.changes[-1].target = source, target
        self.header, self.after_hunk = None, False

    def _meta(self, line: str) -> None:
        change = self.changes[-1]
        change.empty_ok = True
        self.binary = line.startswith("GIT binary patch")
        if line.startswith(("rename from ", "copy from ")):
            name = _unquote(line.split(" ", 2)[2])
            change.source = name if line.startswith("rename") else change.source
        elif line.startswith(("rename to ", "copy to ")):
            change.target = _unquote(line.split(" ", 2)[2])
        elif line.startswith("deleted file mode"):
            change.target = None
        elif line.startswith("new file mode"):
            change.source = None

    def _hunk(self, number: int, line: str) -> None:
        match = _HUNK.match(line)
        if match is None:
            self.wrong("has a broken hunk header", number)
        elif not self.changes or self.header is not None:
            self.wrong("has a hunk without a file header", number)
        else:
            old, new = match.groups()
            self.old, self.new = (1 if count is None else int(count) for count in (old, new))
            self.changes[-1].body.append(line)
            self.after_hunk = True

    def _close(self) -> None:
        if self.changes and not self.changes[-1].body and not self.changes[-1].empty_ok:
            self.wrong("has a file header without a change", None)

    def finish(self, number: int) -> None:
        """The text is over."""
        if self.old > 0 or self.new > 0 or self.header is not None:
            self.wrong("ends in the middle of a hunk or a header: it was cut off", number)
        self._close()
        if not self.changes:
            self.wrong("has no file header (diff --git, or --- and +++)", None)


def _header_name(line: str) -> str | None:
    name = _unquote(line[4:].split("\t", 1)[0].rstrip("\r"))
    return None if name == "/dev/null" else _bare(name)


def _bare(name: str) -> str:
    return name[2:] if len(name) > 2 and name[1] == "/" and name[0] in "abciow" else name


def _git_names(line: str) -> tuple[str | None, str | None]:
    """Split `diff --git a/X b/X`; X may hold spaces, so equal halves decide."""
    rest = line[len("diff --git ") :].rstrip("\r")
    if rest.startswith('"'):
        end = rest.find('" ', 1)
        return _bare(_unquote(rest[: end + 1])), _bare(_unquote(rest[end + 2 :]))
    half = len(rest) // 2
    if rest[half : half + 1] == " " and _bare(rest[:half]) == _bare(rest[half + 1 :]):
        return _bare(rest[:half]), _bare(rest[half + 1 :])
    source, _, target = rest.partition(" ")
    return _bare(source), _bare(_unquote(target))


def _unquote(name: str) -> str:
    """Undo git's C-style quoting of names with unusual characters."""
    if len(name) < 2 or not (name.startswith('"') and name.endswith('"')):
        return name
    raw = name[1:-1].encode("utf-8", "surrogatepass")
    return _ESCAPE.sub(lambda found: _unescape(found.group(1)), raw).decode("utf-8", "replace")


def _unescape(code: bytes) -> bytes:
    return bytes([int(code, 8) & 0xFF]) if code[:1].isdigit() else _ESCAPED.get(code, code)
