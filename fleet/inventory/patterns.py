"""Host patterns: name, glob `eval*`, range `eval[1-6]`, group `@gpu`, exclusion `!eval3`. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from fleet.errors import InputError
from fleet.model.base import nearest
from fleet.model.names import visible

MAX_EXPANSION = 10_000
_RANGE = re.compile(r"\[([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)\]")


def expand(text: str, source: str) -> list[str]:
    """Return the names that the ranges in `text` stand for: `eval[01-03,7]` is eval01, eval02, eval03, eval7."""
    match = _RANGE.search(text)
    if match is None:
        return [text]
    names: list[str] = []
    for part in match.group(1).split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low or high - low >= MAX_EXPANSION:
            raise InputError(f"{source}: the range {part!r} must go up and hold at most {MAX_EXPANSION} names")
        width = len(first) if first.startswith("0") else 0
        for number in range(low, high + 1):
            names.extend(expand(f"{text[: match.start()]}{number:0{width}d}{text[match.end() :]}", source))
            if len(names) > MAX_EXPANSION:
                raise InputError(f"{source}: {text!r} stands for more than {MAX_EXPANSION} names")
    return names


def match_names(pattern: str, names: Sequence[str], groups: Mapping[str, Sequence[str]], source: str) -> tuple[str, ...]:
    """Return the names that one pattern (without `!`) stands for, in the order of `names`.

    Raises InputError with the nearest known name when it stands for nothing.
    """
    if pattern.startswith("@"):
        if pattern[1:] not in groups:
            raise _unknown(f"{source}: unknown group {visible(pattern, 80)!r}", pattern[1:], list(groups), prefix="@")
        members = set(groups[pattern[1:]])
        return tuple(name for name in names if name in members)
    wanted = expand(pattern, source)
    known = set(names)
    chosen: set[str] = set()
    for item in wanted:
        if item in known:
            chosen.add(item)
        elif any(character in item for character in "*?["):
            found = {name for name in names if fnmatch.fnmatchcase(name, item)}
            if not found:
                raise _unknown(f"{source}: no host matches {visible(item, 80)!r}", item, list(names))
            chosen |= found
        else:
            raise _unknown(f"{source}: unknown host {visible(item, 80)!r}", item, list(names))
    return tuple(name for name in names if name in chosen)


def select(patterns: Sequence[str], names: Sequence[str], groups: Mapping[str, Sequence[str]], source: str) -> tuple[str, ...]:
    """Return the names chosen by all patterns together, each once, in the order of `names`.

    No pattern, or exclusions only, start from all names. An exclusion wins wherever it stands.
    """
    chosen: set[str] = set()
    excluded: set[str] = set()
    included_any = False
    for pattern in patterns:
        if pattern.startswith("!"):
            excluded.update(match_names(pattern[1:], names, groups, source))
        else:
            included_any = True
            chosen.update(match_names(pattern, names, groups, source))
    if not included_any:
        chosen = set(names)
    return tuple(name for name in names if name in chosen and name not in excluded)


def _unknown(message: str, word: str, known: list[str], prefix: str = "") -> InputError:
    near = nearest(word, known)
    if near is not None:
        return InputError(f"{message}, did you mean {prefix + near!r}?", hint="fleet hosts")
    shown = ", ".join(prefix + name for name in known[:8]) + (", …" if len(known) > 8 else "")
    return InputError(f"{message}; known: {shown or 'none'}", hint="fleet hosts")
