"""Find one instance's row in `output.jsonl` or `eval_pilot2_output.jsonl`, streaming, whatever dialect the file is in.

Seen in the wild: one row; many rows, one per instance; the object pretty-printed over many lines; CRLF; blank lines; a last
line that was cut off. Lines end at `\\n` only: `str.splitlines` would also split at U+2028, which is legal inside JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fleet.quality import values
from fleet.quality.folder import MIB, Folder, Refused, State, Stream
from fleet.quality.jsonsafe import BOM, Problem, parse
from fleet.quality.readers.trajectory import claimed_value

ROW_CAP = 256 * MIB
_MAX_ROWS = 10_000
_PEEK = re.compile(rb'\s*\{\s*"instance_id"\s*:\s*"([^"\\]*)"')

T = TypeVar("T")


@dataclass
class Row(Generic[T]):
    """One row: where it starts, whose it is, and what the caller kept of it."""

    line: int
    instance_id: str | None
    kept: T


@dataclass
class RowFile(Generic[T]):
    """What a file of rows holds."""

    path: str
    state: State
    size: int = 0
    blank: bool = False
    """There is a file, and nothing in it but white space."""
    rows: list[Row[T]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ids: dict[str, None] = field(default_factory=dict)
    """Instance ids of the rows, in order; a dict, because a list of 100,000 would be searched for each of them."""
    count: int = 0
    detail: str = ""

    def of(self, instance_id: str | None) -> list[Row[T]]:
        """Return the rows of one instance; of a file with a single row, that row whatever its id."""
        if self.count == 1:
            return self.rows
        return [row for row in self.rows if row.instance_id == instance_id and instance_id is not None]


def read_rows(folder: Folder, path: str, wanted: str | None, keep: Callable[[dict[str, Any]], T]) -> RowFile[T]:
    """Read `path`; rows that visibly belong to another instance than `wanted` are counted and not parsed."""
    try:
        with folder.open(path) as stream:
            found: RowFile[T] = RowFile(path, State.OK, size=stream.size)
            _Rows(found, wanted, keep).read(stream)
            return found
    except Refused as refused:
        return RowFile(path, refused.state, detail=refused.detail)


def _whole(line: bytes) -> bool:
    """Tell whether a line can be a row of its own; a pretty-printed object starts with one that cannot."""
    return line.rstrip().endswith(b"}") and line.strip() != b"{}"


class _Rows(Generic[T]):
    def __init__(self, found: RowFile[T], wanted: str | None, keep: Callable[[dict[str, Any]], T]) -> None:
        self.found = found
        self.wanted = wanted
        self.keep = keep
        self.skipped: tuple[int, bytes] | None = None

    def read(self, stream: Stream) -> None:
        number, first = 0, True
        while line := stream.readline(ROW_CAP + 1):
            number += 1
            if len(line) > ROW_CAP:
                self._over(stream, line, number)
                continue
            if not line.strip():
                continue
            if first and not _whole(line):
                rest = stream.read(ROW_CAP + 1)
                if rest.strip():
                    self._document(line + rest, number)
                    break
            first = False
            self._line(line, number)
        self.found.blank = self.found.count == 0 and not self.found.problems
        if self.found.count == 1 and self.skipped is not None:
            # The file's only row is another instance's: it is read after all, so that the verdict can say what it is.
            self.found.count, self.found.ids = 0, {}
            self._values(self.skipped[1], self.skipped[0])

    def _peeked(self, line: bytes) -> str | None:
        match = _PEEK.match(line.removeprefix(BOM))
        return match.group(1).decode("utf-8", "replace") if match else None

    def _line(self, line: bytes, number: int) -> None:
        owner = self._peeked(line) if self.wanted is not None else None
        if owner is not None and owner != self.wanted:
            self._count(owner)
            self.skipped = self.skipped or (number, line)
            return
        self._values(line, number)

    def _document(self, data: bytes, number: int) -> None:
        """Read a file whose first line is not a whole row: one object over many lines, else lines of which some are broken."""
        if len(data) > ROW_CAP:
            self.found.problems.append(Problem(f"has a value of more than {ROW_CAP} bytes, which is not read", number))
            return
        lines = [(at, line) for at, line in enumerate(data.split(b"\n"), number) if line.strip()]
        if not any(_whole(line) and parse(line).values for _, line in lines[1:3]):
            self._values(data, number)
            return
        for at, line in lines:
            self._line(line, at)

    def _values(self, line: bytes, number: int) -> None:
        document = parse(line, number)
        self._take(document.values, document.lines, document.problems)

    def _take(self, found: list[Any], lines: list[int], problems: list[Problem]) -> None:
        self.found.problems.extend(problems[: max(0, 50 - len(self.found.problems))])
        for value, line in zip(found, lines, strict=True):
            if not isinstance(value, dict):
                self.found.problems.append(Problem(f"holds a JSON {values.kind(value)} where a row should be an object", line))
                continue
            owner = values.identity(claimed_value(value))
            self._count(owner)
            mine = self.wanted is None or owner == self.wanted or self.found.count == 1
            if mine and len(self.found.rows) < _MAX_ROWS:
                self.found.rows.append(Row(line, owner, self.keep(value)))

    def _count(self, owner: str | None) -> None:
        self.found.count += 1
        if owner is not None and len(self.found.ids) < _MAX_ROWS:
            self.found.ids[owner] = None

    def _over(self, stream: Stream, line: bytes, number: int) -> None:
        owner = self._peeked(line[:4096])
        while line and not line.endswith(b"\n"):
            line = stream.readline(MIB)
        if owner is not None and self.wanted is not None and owner != self.wanted:
            self._count(owner)
            return
        self.found.problems.append(Problem(f"has a row of more than {ROW_CAP} bytes, which is not read", number))


@dataclass
class ValueFile:
    """All JSON values of a file, each with the line on which it starts."""

    state: State
    detail: str = ""
    values: list[tuple[int, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_values(folder: Folder, path: str) -> ValueFile:
    """Read every JSON value of a file of at most ROW_CAP bytes; a line that cannot be read costs only itself."""
    file = folder.read(path, ROW_CAP)
    if not file.ok:
        return ValueFile(file.state, file.detail)
    whole = parse(file.data)
    if not any(problem.fatal for problem in whole.problems):
        return ValueFile(file.state, "", list(zip(whole.lines, whole.values, strict=True)), whole.problems)
    lines = file.data.split(b"\n")
    if not _whole(lines[0]):
        return ValueFile(file.state, "", list(zip(whole.lines, whole.values, strict=True)), whole.problems)
    found = ValueFile(file.state)
    for number, line in enumerate(lines, 1):
        document = parse(line, number)
        found.values += zip(document.lines, document.values, strict=True)
        found.problems += document.problems[: max(0, 50 - len(found.problems))]
    return found
