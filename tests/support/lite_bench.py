"""A machine of its own for the runner's sandbox without Docker: a home, a temporary directory, and pytest to lend."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet.demo.scenario import pytest_places
from fleet.inventory.pipelines import Pipelines
from tests.support.lite import FOLDER, result, write_task

DEMO = Pipelines().folder("demo")
SPANS = json.loads((DEMO / "datasets" / "spans-17.json").read_text()) | {"source": str(DEMO / "spans.bundle")}


class Bench:
    """A machine of its own: a home, a temporary directory, and pytest to lend."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.temporary = directory / "tmp"
        self.temporary.mkdir()
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "TMPDIR": str(self.temporary),
            "LITE_PYTEST": pytest_places(),
        }

    def argv(self, row: dict[str, Any], *words: str) -> list[str]:
        path = write_task(self.directory / f"{row.get('instance_id') or row['task_id']}.json", row)
        return [sys.executable, "-B", str(FOLDER / "lite.py"), "run", "--sandbox=venv", str(path), *words]

    def run(self, row: dict[str, Any], *words: str) -> dict[str, Any]:
        done = subprocess.run(
            self.argv(row, *words), env=self.env, cwd=self.directory, capture_output=True, text=True, timeout=100, check=False
        )
        return result(done)

    def with_tests(self, *lines: str, **changes: Any) -> list[str]:
        """Return the command of a run whose patch adds a conftest.py."""
        body = "".join(f"+{line}\n" for line in lines)
        patch = self.directory / f"{len(list(self.directory.iterdir()))}.diff"
        patch.write_text(f"--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1,{len(lines)} @@\n{body}")
        return self.argv({**SPANS, **changes}, f"--patch={patch}")

    def left(self) -> list[str]:
        return sorted(path.name for path in self.temporary.iterdir())
