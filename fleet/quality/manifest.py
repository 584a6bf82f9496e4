"""Compare a collected directory with the manifest that the eval host sealed: same files, same sizes, same SHA-256."""

from __future__ import annotations

from typing import Any

from fleet.model.names import is_safe_path
from fleet.quality import values
from fleet.quality.folder import MIB, Folder, Refused, State
from fleet.quality.jsonsafe import parse

MANIFEST = "manifest.json"
OURS = frozenset({MANIFEST, "fleet.json", "fleet.log", "verdict.json"})
CAP = 256 * MIB
_MAX_LISTED = 20


def differences(folder: Folder, used: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return (file, how it differs), at most a few; nothing when there is no manifest.

    `used` are the files that the verdict rests on: one of them that the manifest does not know was not on the host.
    """
    file = folder.read(MANIFEST, CAP)
    if file.state is State.MISSING:
        return ()
    if not file.ok:
        return ((MANIFEST, file.detail),)
    document = parse(file.data)
    listed = document.values[0].get("files") if document.values and isinstance(document.values[0], dict) else None
    fatal = [problem.message for problem in document.problems if problem.fatal]
    if fatal or not isinstance(listed, list):
        return ((MANIFEST, fatal[0] if fatal else "has no list of files"),)
    found: list[tuple[str, str]] = []
    names = set()
    for entry in listed:
        name, problem = _entry(folder, values.mapping(entry))
        names.add(name)
        if problem:
            found.append((name, problem))
        if len(found) >= _MAX_LISTED:
            break
    else:
        extra = [name for name in used if name not in names and name not in OURS]
        found.extend((name, "is here, but the host's manifest does not know it") for name in extra)
    return tuple(found)


def _entry(folder: Folder, entry: dict[str, Any]) -> tuple[str, str | None]:
    path, size, sha256 = entry.get("path"), values.count(entry.get("size")), values.text(entry.get("sha256"))
    if not isinstance(path, str) or not is_safe_path(path):
        return MANIFEST, "lists a path that is not below the result directory"
    if size is None or sha256 is None:
        return path, "has no size or SHA-256 in the manifest"
    try:
        here, digest = folder.digest(path)
    except Refused as refused:
        return path, f"is in the manifest and {refused.detail} here"
    if here != size:
        return path, f"has {here} bytes here and had {size} on the host"
    return path, None if digest == sha256.lower() else "has the same size as on the host and other content"
