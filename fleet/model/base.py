"""Strict, frozen models, and errors that name the file, the path inside it and the nearest known key."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from fleet.errors import InputError


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys in JSON, of which the last one would silently win; for `object_pairs_hook`."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:80]!r} appears twice")
        result[key] = value
    return result


def refuse_constant(name: str) -> None:
    """Refuse NaN and Infinity, which are not JSON; for `parse_constant`."""
    raise ValueError(f"{name} is not JSON")


@contextmanager
def hinted(hint: str) -> Iterator[None]:
    """Give an InputError that has no next command this one: a file's many small rules need not repeat it."""
    try:
        yield
    except InputError as error:
        error.hint = error.hint or hint
        raise


M = TypeVar("M", bound=BaseModel)


def parse(model: type[M], data: Any, source: str) -> M:
    """Return `data` as `model`, or raise InputError that names `source`, the path and a suggestion."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_line(model, item) for item in error.errors()]
        raise InputError(f"{source}: " + "; ".join(lines)) from None


def _line(model: type[BaseModel], item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    path = ".".join(location) or "top level"
    if item["type"] == "extra_forbidden":
        near = nearest(location[-1], _known_keys(model, location[:-1]))
        return f"unknown key {path}" + (f", did you mean {near!r}?" if near else "")
    if item["type"] == "missing":
        return f"missing key {path}"
    if item["type"] in ("dict_type", "model_type"):
        return f"{path}: must hold keys with values (KEY: VALUE)"
    return f"{path}: {item['msg'].removeprefix('Value error, ')}"


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the keys allowed at `path`, following nested models through containers."""
    current: type[BaseModel] | None = model
    for part in path:
        if current is None:
            return []
        field = current.model_fields.get(part)
        if field is not None:
            current = _inner_model(field.annotation)
    if current is None:
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def nearest(word: str, known: list[str]) -> str | None:
    """Return the known word most like `word`, or None when nothing is close."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return close[0] if close else None
