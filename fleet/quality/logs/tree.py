"""Outcomes printed as an indented tree, as jest, mocha and node's runner do: groups, and below them marked titles."""

from __future__ import annotations

import re

_TIME = re.compile(r" \(\d+(?:\.\d+)? ?m?s\)$")


class Tree:
    """The groups that are open; a line that is indented less closes those below it."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def group(self, indent: int, title: str) -> None:
        """Open a group."""
        self._close(indent)
        self._open.append((indent, title))

    def chain(self, indent: int, title: str) -> tuple[str, ...]:
        """Return the titles from the outermost group to this test; a time behind the title is not part of it."""
        self._close(indent)
        return (*(name for _, name in self._open), _TIME.sub("", title))

    def clear(self) -> None:
        """Close everything."""
        self._open.clear()

    def _close(self, indent: int) -> None:
        while self._open and self._open[-1][0] >= indent:
            self._open.pop()


def spellings(chain: tuple[str, ...], file: str = "") -> tuple[str, ...]:
    """Return how datasets write a test of a tree: joined in the ways that are in use, with its file, and its title alone."""
    joined = [separator.join(chain) for separator in (" > ", " ", " › ", " | ", "::", ".")]
    files = [f"{file}{separator}{name}" for separator in (" > ", ":", "::", " | ", " ") for name in joined[:2]] if file else []
    return (*joined, *files, chain[-1])
