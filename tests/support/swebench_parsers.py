"""The log parsers of the SWE-bench harness, loaded from its wheel without the rest of it: an oracle, not a dependency."""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

from tests.support.pytest_runs import fetched

REQUIREMENT = "swebench==5.0.2"


def parsed(parser: str, log: str) -> dict[str, str]:
    """Return what a parser of the harness makes of a log: id → PASSED, FAILED, ERROR, SKIPPED, XFAIL."""
    found: dict[str, str] = _registry()[parser](log, None)
    return found


def of_repository(repo: str, log: str) -> dict[str, str]:
    """Return what the harness makes of a log of one of the repositories of SWE-bench."""
    _registry()
    parsers = importlib.import_module("swebench.harness.log_parsers.python").MAP_REPO_TO_PARSER_PY
    found: dict[str, str] = parsers[repo](log, None)
    return found


def _registry() -> dict[str, Any]:
    root = fetched("swebench-5.0.2", "--no-deps", REQUIREMENT)
    for name in ("swebench", "swebench.harness"):
        if name not in sys.modules:
            # Its packages import Docker and data sets; the parsers need neither.
            package = types.ModuleType(name)
            package.__path__ = [str(root / name.replace(".", "/"))]
            sys.modules[name] = package
    registry: dict[str, Any] = importlib.import_module("swebench.harness.log_parsers").PARSER_REGISTRY
    return registry
