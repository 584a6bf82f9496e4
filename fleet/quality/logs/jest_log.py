"""jest and vitest: a file's header, its marked titles as a tree or as one line each, and the counts at the end."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session
from fleet.quality.logs.tree import Tree, spellings

_MARKS = {
    "✓": "PASSED", "✔": "PASSED", "√": "PASSED", "✕": "FAILED", "×": "FAILED", "✖": "FAILED", "✗": "FAILED",
    "○": "SKIPPED", "✎": "SKIPPED", "↓": "SKIPPED",
}  # fmt: skip
_FILE = re.compile(r"(?:PASS|FAIL)  ?(\S+)(?: \(\d+(?:\.\d+)? m?s\))?$")
_VITEST_FILE = re.compile(r" [✓❯×↓] (\S+) \(\d+ tests?\b")
_MARKED = re.compile(rf"( *)([{''.join(_MARKS)}]) (?:(?:skipped|todo) )?(\S.*)$")
_GROUP = re.compile(r"( +)(\S.*)$")
_BULLET = re.compile(r"  ● (\S.*)$")
_FAILED = re.compile(r" FAIL  (\S+) > (\S.*)$")
_TIMES = re.compile(r" \d+(?:\.\d+)?m?s$")
_COUNTS = re.compile(r" *Tests:? +((?:\d+ [a-z]+[,| ]*)+)(?:, \d+ total|\(\d+\))?")
_COUNT = re.compile(r"(\d+) (passed|failed|skipped|todo)")
_NO_SUITE = "Test suite failed to run"


def parse_jest(text: str, known: Collection[str]) -> Session | None:
    """Return what the jest or vitest runs in a log say, or None when there is none."""
    del known
    reader = _Reader()
    for raw in text.split("\n"):
        reader.line(raw.rstrip("\r "))
    return reader.session if reader.seen else None


class _Reader:
    def __init__(self) -> None:
        self.session = Session()
        self.seen = False
        self._tree = Tree()
        self._file = ""
        self._inside = False

    def line(self, line: str) -> None:
        """Take one line."""
        if found := _FILE.match(line) or _VITEST_FILE.match(line):
            self._file, self._inside = found.group(1).removeprefix("./"), True
            self._tree.clear()
            self.session.ended = False
        elif line.lstrip().startswith("Tests") and (found := _COUNTS.fullmatch(line)):
            self._end(found.group(1))
        elif found := _BULLET.match(line):
            self._bullet(found.group(1))
        elif found := _FAILED.match(line):
            self._chain(tuple(found.group(2).split(" > ")), "FAILED", found.group(1))
        elif found := _MARKED.match(line):
            self._marked(len(found.group(1)), _MARKS[found.group(2)], found.group(3))
        elif self._inside and (found := _GROUP.match(line)):
            self._tree.group(len(found.group(1)), found.group(2))

    def _marked(self, indent: int, word: str, title: str) -> None:
        title = _TIMES.sub("", title)
        if " > " in title and indent <= 3:
            # vitest: the whole chain in one line, after the file where the reporter is `verbose`.
            parts = tuple(title.split(" > "))
            file, chain = (parts[0], parts[1:]) if indent == 1 else (self._file, parts)
            self._chain(chain, word, file)
        elif self._inside:
            self._chain(self._tree.chain(indent, title), word, self._file)

    def _bullet(self, title: str) -> None:
        """Take the heading of a failure, which is all that jest names of a test when it is not verbose."""
        self._inside = False
        if title == _NO_SUITE:
            self.session.broken_files.add(self._file)
        elif " › " in title or self._file:
            self._chain(tuple(title.split(" › ")), "FAILED", self._file)

    def _chain(self, chain: tuple[str, ...], word: str, file: str) -> None:
        self.session.note(" > ".join(chain), word, *spellings(chain, file))

    def _end(self, counts: str) -> None:
        self.seen = self.session.ended = True
        self._inside = False
        for number, word in _COUNT.findall(counts):
            self.session.counts[{"todo": "skipped"}.get(word, word)] += int(number[:9])
