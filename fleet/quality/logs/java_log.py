"""Maven Surefire and Gradle: classes with their counts, methods that failed, Gradle's `Class > method() PASSED`."""

from __future__ import annotations

import re
from collections.abc import Collection

from fleet.quality.logs.evidence import Session

_LEVEL = r"(?:\[(?:INFO|ERROR|WARNING)\] )?"
_COUNTS = r"Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)"
_CLASS = re.compile(rf"{_LEVEL}{_COUNTS}, Time elapsed: [\d.,]+ (?:s|sec)(?: <<< (?:FAILURE|ERROR)!)?(?: -+ in | - in )(\S+)$")
_METHOD = re.compile(rf"{_LEVEL}(\S+?)(?:\(([\w.$]+)\))?(?:  | -- )Time elapsed: [\d.,]+ (?:s|sec) +<<< (FAILURE|ERROR)!")
_TOTAL = re.compile(rf"{_LEVEL}{_COUNTS}$")
_GRADLE = re.compile(r"([\w.$]+) > (\S.*?) (PASSED|FAILED|SKIPPED)$")
_GRADLE_END = re.compile(r"(?:BUILD (?:SUCCESSFUL|FAILED) in |\d+ tests? completed)")
_ALONE = re.compile(r"-Dtest=(\S+)")
"""A test that is run alone passes when its build does; `set -x` shows the command."""
_BUILD = re.compile(r"BUILD (SUCCESS|FAILURE)$")
_NOT_COMPILED = re.compile(r"\[ERROR\] COMPILATION ERROR|Compilation failed; see the compiler")


def parse_java(text: str, known: Collection[str]) -> Session | None:
    """Return what the Maven or Gradle runs in a log say, or None when there is none."""
    del known
    session, seen = Session(), False
    alone: list[str] = []
    for raw in text.split("\n"):
        line = raw.rstrip("\r ")
        if "Tests run:" in line and (found := _CLASS.match(line)):
            _class(session, found.group(5), *map(int, found.groups()[:4]))
            seen = True
        elif "Tests run:" in line and (found := _TOTAL.match(line)):
            run, failures, errors, skipped = map(int, found.groups())
            session.counts["failed"] += failures
            session.counts["errors"] += errors
            session.counts["skipped"] += skipped
            session.counts["passed"] += max(0, run - failures - errors - skipped)
            seen = session.ended = True
        elif "<<<" in line and (found := _METHOD.match(line)):
            owner, _, method = found.group(1).rpartition(".")
            owner, method = (found.group(2), found.group(1)) if found.group(2) else (owner, method)
            _method(session, owner, method, "FAILED" if found.group(3) == "FAILURE" else "ERROR")
        elif found := _GRADLE.match(line):
            _method(session, found.group(1), found.group(2).removesuffix("()"), found.group(3))
            session.alias.setdefault(f"{found.group(1)} > {found.group(2)}", set()).add(
                f"{found.group(1)}.{found.group(2).removesuffix('()')}"
            )
            seen = True
        elif found := _ALONE.search(line):
            alone.append(found.group(1))
        elif alone and (found := _BUILD.search(line)):
            session.note(alone.pop(0), "PASSED" if found.group(1) == "SUCCESS" else "FAILED")
            seen = session.ended = True
        elif (seen and _GRADLE_END.match(line)) or _NOT_COMPILED.search(line):
            seen = session.ended = True
    # Surefire names methods only when they fail, Gradle only when it is told to.
    session.complete = False
    return session if seen else None


def _class(session: Session, name: str, run: int, failures: int, errors: int, skipped: int) -> None:
    if failures or errors:
        session.note(name, "FAILED")
    elif run:
        session.note(name, "SKIPPED" if run == skipped else "PASSED")


def _method(session: Session, owner: str, method: str, word: str) -> None:
    session.note(f"{owner}.{method}", word, *(f"{owner}{separator}{method}" for separator in ("#", "::", ":", " > ")))
