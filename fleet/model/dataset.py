"""A dataset file: ONE JSON object describing one instance, in either of two dialects (docs/formats.md)."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from typing import Any

from fleet.errors import InputError
from fleet.model.base import Strict, hinted, no_duplicates, refuse_constant
from fleet.model.names import is_name, is_safe_path, visible

MAX_BYTES = 64 * 1024 * 1024
_URI = re.compile(r"(?!.*/\.\./)[A-Za-z0-9][A-Za-z0-9._/@:+=,~%-]{0,2000}\Z")


class Dataset(Strict):
    """The fields fleet itself needs; the harness reads the rest from the staged file."""

    instance_id: str
    repo: str
    base_commit: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    image_storage_uri: str | None = None
    test_command: str | None = None
    test_output_parser: str | None = None
    test_patches: tuple[str, ...] = ()
    gold_patch: str | None = None
    sha256: str

    @property
    def image(self) -> str:
        """Name of the image archive: repo with `/` as `_`, then the base commit."""
        return f"{self.repo.replace('/', '_')}-{self.base_commit}"


def read_dataset(raw: bytes, source: str) -> Dataset:
    """Return the dataset in `raw`, or raise InputError that names `source` and what is wrong."""
    with hinted("a dataset is one JSON object that describes one instance: docs/formats.md"):
        return _read(raw, source)


def _read(raw: bytes, source: str) -> Dataset:
    if len(raw) > MAX_BYTES:
        raise InputError(f"{source}: {len(raw)} bytes, more than the {MAX_BYTES} allowed")
    record = _one_object(raw, source)
    instance_id = record.get("instance_id")
    if not isinstance(instance_id, str | int) or instance_id in ("", True, False):
        raise InputError(f"{source}: instance_id is missing")
    fail_to_pass = _test_ids(_first(record, "FAIL_TO_PASS", "fail_to_pass_tests"), "FAIL_TO_PASS", source)
    if not fail_to_pass:
        raise InputError(f"{source}: FAIL_TO_PASS is empty, so the result could not be judged")
    image = record.get("image_storage_uri")
    repo, commit = _text(record, "repo"), _text(record, "base_commit", "commit_hash")
    # Both become the name of the image archive; the rest is for the harness, and travels as the bytes of the file.
    for name, text, valid in (("repo", repo, is_safe_path(repo)), ("base_commit", commit, is_name(commit))):
        if text and not valid:
            raise InputError(f"{source}: {name}: {visible(text, 80)!r} may only hold A-Z a-z 0-9 . _ - and, in repo, /")
    if isinstance(image, str) and image and not _URI.match(image):
        raise InputError(f"{source}: image_storage_uri: {visible(image, 80)!r} is not the address of an image archive")
    return Dataset(
        instance_id=str(instance_id),
        repo=repo,
        base_commit=commit,
        fail_to_pass=fail_to_pass,
        pass_to_pass=_test_ids(_first(record, "PASS_TO_PASS", "pass_to_pass_tests"), "PASS_TO_PASS", source),
        image_storage_uri=image if isinstance(image, str) and image else None,
        test_command=_text(record, "test_command") or None,
        test_output_parser=_text(record, "test_output_parser") or None,
        test_patches=_strings(_first(record, "test_patch", "test_patches")),
        gold_patch=_text(record, "patch", "functional_patch") or None,
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def _one_object(raw: bytes, source: str) -> dict[str, Any]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: not UTF-8 at byte {error.start}") from None
    decoder = json.JSONDecoder(object_pairs_hook=no_duplicates, parse_constant=refuse_constant)
    start = len(text) - len(text.lstrip())
    try:
        record, end = decoder.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not JSON: {error}") from None
    if text[end:].strip():
        raise InputError(
            f"{source}: holds more than one JSON object; a dataset file describes one instance",
            hint=f"split it into one file per instance: jq -c . {source} | split -l 1 - instance-",
        )
    if not isinstance(record, dict):
        raise InputError(f"{source}: holds a JSON {type(record).__name__}, not an object")
    return record


def _first(record: dict[str, Any], *keys: str) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _text(record: dict[str, Any], *keys: str) -> str:
    value = _first(record, *keys)
    return value if isinstance(value, str) else ""


def _test_ids(value: Any, name: str, source: str) -> tuple[str, ...]:
    """Read a list, a JSON string, or a Python-literal string of test ids."""
    parsed = _literal(value) if isinstance(value, str) else value
    if parsed is None or parsed == "":
        return ()
    if not isinstance(parsed, list | tuple) or not all(isinstance(item, str) for item in parsed):
        raise InputError(f"{source}: {name} is not a list of test ids")
    return tuple(parsed)


def _strings(value: Any) -> tuple[str, ...]:
    """Read a raw diff, or a list of diffs that may itself be JSON-encoded."""
    if isinstance(value, str):
        parsed = _literal(value) if value.lstrip().startswith("[") else value
        value = parsed if isinstance(parsed, list | tuple) else [value]
    if not isinstance(value, list | tuple):
        return ()
    return tuple(item for item in value if isinstance(item, str) and item)


def _literal(text: str) -> Any:
    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return text
