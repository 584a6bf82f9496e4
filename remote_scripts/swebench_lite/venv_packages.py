"""What is installed in the virtual environment of a sandbox: what is lent to it, and the project itself."""

import csv
import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

from errors import StageError

# pytest and what it needs, all of it pure Python; the last ones are there for an older Python only.
LENT = ("pytest", "pluggy", "iniconfig", "packaging", "pygments", "exceptiongroup", "tomli", "typing_extensions")


def lent_files(places):
    """Return what lies at the top of the distributions in LENT, as their own records say; plugins beside them are not lent."""
    found = {}
    for place in map(Path, places):
        for info in sorted(place.glob("*.dist-info")):
            if info.name.lower().partition("-")[0] in LENT:
                lines = (info / "RECORD").read_text(encoding="utf-8").splitlines()
                found.update((name, place / name) for name in {line.partition("/")[0].partition(",")[0] for line in lines})
    return [path for name, path in sorted(found.items()) if name not in ("..", "__pycache__") and path.exists()]


def complete(project, packages):
    """Put what the installation generated beside the project's own files, since the project comes first on the module path.

    StageError where it lies in neither directory of that path: the tests would see what is installed, without the patch.
    """
    for info in packages.glob("*.dist-info"):
        if not _is_of(project, info / "direct_url.json"):
            continue
        with open(str(info / "RECORD"), encoding="utf-8", newline="") as file:
            names = [Path(line[0]) for line in csv.reader(file) if line]
        for name in names:
            if name.is_absolute() or ".." in name.parts or "__pycache__" in name.parts or name.parts[0].endswith("-info"):
                continue
            place = next((one for one in (project / "src", project) if (one / name.parts[0]).exists()), None)
            if place is None and name.suffix == ".py":
                words = (
                    "%s of the project lies neither at its top nor in src: a patch would not be seen by the tests; use Docker"
                )
                raise StageError("install", words % name)
            target = (place or project) / name
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(str(packages / name), str(target))


def _is_of(project, record):
    try:
        url = urlsplit(json.loads(record.read_text(encoding="utf-8"))["url"])
        return url.scheme == "file" and os.path.realpath(unquote(url.path)) == os.path.realpath(str(project))
    except (OSError, ValueError, KeyError, TypeError):
        return False
