"""One bad night with secrets everywhere, which the tests of secrets and of files look at afterwards."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.canary import LeakyBatch, leaky_batch


@pytest.fixture(scope="session")
def leaky(no_leftovers: None) -> Iterator[LeakyBatch]:
    """Yield the batch after the night; its directory is open to all, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="fleet-night-"))
    directory.chmod(0o755)
    try:
        yield leaky_batch(directory)
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """Return the file that is there when something was run that should not have been."""
    return tmp_path / "PWN"
