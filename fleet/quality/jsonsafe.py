"""JSON from a stranger: read as much as can be read, and say everything that is wrong with it.

`json.loads` is too kind for evidence: of two equal keys the last one wins (which can turn `"resolved": false` into true), NaN
is accepted, and 100,000 opening brackets or a 5,000-digit integer end in an exception that no caller expects. Here those are
problems beside the value, so that a rule can reject the file while the facts are still shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

BOM = b"\xef\xbb\xbf"
_MAX_DIGITS = 4000
_MAX_PROBLEMS = 20
_SURROGATE = re.compile(r"\\u[dD](?:([89abAB][0-9a-fA-F]{2})(?!\\u[dD][c-fC-F])|[c-fC-F][0-9a-fA-F]{2})")
_HIGH = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\Z")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a document; `line` counts from 1, `fatal` problems make the document untrustworthy."""

    message: str
    line: int | None = None
    fatal: bool = True


@dataclass
class Document:
    """The values found in one piece of text, and what was wrong with it."""

    values: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """The line on which each value starts."""
    problems: list[Problem] = field(default_factory=list)

    def add(self, message: str, line: int | None = None, *, fatal: bool = True) -> None:
        """Note a problem; a hostile file cannot make the list grow for ever."""
        if len(self.problems) < _MAX_PROBLEMS:
            self.problems.append(Problem(message, line, fatal))


def parse(raw: bytes, line: int = 1) -> Document:
    """Return the JSON values in `raw`, one after the other, with the problems; never raises.

    `line` is the number of the first line, for messages. No value and no problem means that there was only white space.
    """
    document = Document()
    text = _decode(raw, line, document)
    if _has_half_a_pair(text):
        document.add("holds half of a surrogate pair (\\ud800 to \\udfff), which is not a character", line, fatal=False)
    position = _skip_space(text, 0)
    while position < len(text):
        start = position
        here = line + text.count("\n", 0, start)
        try:
            value, position = _decode_one(text, position, here, document)
        except json.JSONDecodeError as error:
            document.add(_explain(error, text), line + text.count("\n", 0, error.pos))
            break
        except RecursionError:
            document.add("is nested too deeply to be read", here)
            break
        except (ValueError, MemoryError) as error:
            document.add(f"cannot be read: {error}", here)
            break
        document.values.append(value)
        document.lines.append(here)
        position = _skip_space(text, position)
    return document


def _decode(raw: bytes, line: int, document: Document) -> str:
    if raw.startswith(BOM):
        document.add("starts with a byte order mark", line, fatal=False)
        raw = raw[len(BOM) :]
    if b"\0" in raw:
        number = line + raw.count(b"\n", 0, raw.index(b"\0"))
        document.add(f"holds {raw.count(0)} NUL byte(s), as a disk or a transfer that failed leaves them", number)
        raw = raw.strip(b"\0 \t\r\n")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        document.add(f"is not UTF-8 at byte {error.start}", line + raw.count(b"\n", 0, error.start))
        return raw.decode("utf-8", "replace")


def _has_half_a_pair(text: str) -> bool:
    for match in _SURROGATE.finditer(text):
        start = match.start()
        if match.group(1) is None and _HIGH.search(text, max(0, start - 6), start):
            continue
        before = start
        while before > 0 and text[before - 1] == "\\":
            before -= 1
        if (start - before) % 2 == 0:
            return True
    return False


_SPACE = re.compile(r"[ \t\r\n]*")


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _decode_one(text: str, position: int, line: int, document: Document) -> tuple[Any, int]:
    def constant(name: str) -> None:
        document.add(f"holds {name}, which is not JSON", line)

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) != len(items):
            document.add(f"has the key {_first_twice(items)[:80]!r} twice in one object, so its value is anyone's guess", line)
        return found

    def integer(digits: str) -> int | None:
        if len(digits) <= _MAX_DIGITS:
            return int(digits)
        document.add(f"holds an integer of {len(digits)} digits", line)
        return None

    try:
        return _decoder(pairs, constant, None).raw_decode(text, position)
    except json.JSONDecodeError:
        raise
    except ValueError:
        # Python refuses integers of more than 4,300 digits; the slower decoder reads everything around them.
        return _decoder(pairs, constant, integer).raw_decode(text, position)


def _first_twice(items: list[tuple[str, Any]]) -> str:
    seen: set[str] = set()
    for name, _ in items:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _decoder(
    pairs: Callable[[list[tuple[str, Any]]], dict[str, Any]],
    constant: Callable[[str], None],
    integer: Callable[[str], int | None] | None,
) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant, parse_int=integer)


def _explain(error: json.JSONDecodeError, text: str) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"ends in the middle of a JSON value (after {len(text)} characters): it was cut off"
    return f"is not JSON: {error.msg} (character {error.pos})"
