"""Typed values out of foreign JSON: each function returns what it asked for or None, and never raises."""

from __future__ import annotations

import ast
import json
import math
from typing import Any

from fleet.model.names import plain

SHOWN = 300
"""Characters of foreign text in a message."""
_MAX_COUNT = 10**12


def text(value: Any) -> str | None:
    """Return a string that is not empty."""
    return value if isinstance(value, str) and value else None


def flag(value: Any) -> bool | None:
    """Return a real boolean; 1, "true" and their like are not one."""
    return value if isinstance(value, bool) else None


def count(value: Any) -> int | None:
    """Return a non-negative whole number; true is not 1."""
    if isinstance(value, float) and value.is_integer() and 0 <= value <= _MAX_COUNT:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MAX_COUNT:
        return None
    return value


def amount(value: Any) -> float | None:
    """Return a finite non-negative number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def mapping(value: Any) -> dict[str, Any]:
    """Return an object, or an empty one."""
    return value if isinstance(value, dict) else {}


def strings(value: Any) -> tuple[str, ...] | None:
    """Return a list of strings; also one that was encoded as JSON or as a Python literal, as datasets do."""
    if isinstance(value, str):
        value = _literal(value)
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def _literal(encoded: str) -> Any:
    if not encoded.lstrip().startswith(("[", "(")) or len(encoded) > 16 * 1024 * 1024:
        return None
    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(encoded)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def identity(value: Any) -> str | None:
    """Return an instance id: a string that is not empty, or a whole number as text."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
        return str(value)
    return text(value)


def kind(value: Any) -> str:
    """Name a JSON type as people know it."""
    names = {dict: "object", list: "list", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def shown(value: object, limit: int = SHOWN) -> str:
    """Return foreign text as one safe line: no control characters, no secrets, not too long."""
    flat = " ".join(str(value)[: limit * 8].split("\n")) if isinstance(value, str) else str(value)
    return plain(flat.replace("\r", " ").replace("\t", " "), limit)


def compact(value: Any) -> str:
    """Return any JSON value as text; what cannot be written is named by its type."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=True)
    except (ValueError, RecursionError):
        return kind(value)


def some(items: tuple[str, ...] | list[str], limit: int = 3) -> str:
    """Return the first few of a list of names for a sentence."""
    listed = ", ".join(shown(item, 120) for item in items[:limit])
    rest = len(items) - limit
    return f"{listed} and {rest} more" if rest > 0 else listed
