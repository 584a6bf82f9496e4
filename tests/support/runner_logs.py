"""Logs in the format of a repository's own test runner, for tests whose ids a SWE-bench dataset lists.

The harness wrote those ids with its parsers, so an id may be the docstring of a Django test or a parameter cut at its first
space. A log here holds for each id a line that its parser shortens to exactly that id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

ARTEFACT = "[100%]"
"""Listed as a test in SWE-bench, and none: the harness read it in a column of pytest's progress."""
_WIDTH = 80
_ENVIRONMENT = """\
+ source /opt/miniconda3/bin/activate
++ _CONDA_ROOT=/opt/miniconda3
+ conda activate testbed
+ git status
On branch main
Changes not staged for commit:
  (use "git add <file>..." to update what will be committed)
\tmodified:   src/thing.py
+ git apply -v -
Checking patch tests/test_thing.py...
Applied patch tests/test_thing.py cleanly.
Successfully installed thing-1.0 FAILED-0.1 passed-2
WARNING: Running pip as the 'root' user can result in broken permissions
+ : '>>>>> Start Test Output'
+ {command}
"""
_AFTER = """\
+ : '>>>>> End Test Output'
+ git checkout 0123456 tests/test_thing.py
Updated 1 path from 0123456
"""


def runner_log(repo: str, outcomes: Mapping[str, str]) -> str:
    """Return what `repo`'s runner prints when its tests come to these outcomes: PASSED, FAILED, ERROR, SKIPPED."""
    outcomes = {test: word for test, word in outcomes.items() if test != ARTEFACT}
    if repo == "django/django":
        command, lines = "./tests/runtests.py --verbosity 2 --settings=test_sqlite --parallel 1 apps", _django(outcomes)
    elif repo == "sympy/sympy":
        command, lines = "bin/test -C --verbose sympy/core/tests/test_thing.py", _sympy(outcomes)
    else:
        command, lines = "pytest -rA tests", _pytest(outcomes)
    return _ENVIRONMENT.format(command=command) + "".join(f"{line}\n" for line in lines) + _AFTER


def _rule(title: str, fill: str = "=") -> str:
    return f" {title} ".center(_WIDTH, fill)


def whole_id(test: str) -> str:
    """Return a pytest id that the harness shortens to `test`: one cut at a space goes on after it."""
    if "[" not in test or test.endswith("]"):
        return test
    return f"{test} - it's [goes] - on: FAILED]"


def _pytest(outcomes: Mapping[str, str]) -> Iterator[str]:
    yield _rule("test session starts")
    yield "platform linux -- Python 3.9.20, pytest-7.4.0, pluggy-1.0.0"
    yield "rootdir: /testbed"
    yield f"collected {len(outcomes)} items"
    yield ""
    files: dict[str, list[str]] = {}
    for test, word in outcomes.items():
        files.setdefault(test.split("::")[0], []).append("." if word == "PASSED" else word[0])
    for file, dots in files.items():
        yield f"{file} {''.join(dots)[:50]} [100%]"
    failed = [test for test, word in outcomes.items() if word == "FAILED"]
    if failed:
        yield ""
        yield _rule("FAILURES")
    for test in failed:
        yield _rule(test.partition("::")[2].replace("::", "."), "_")
        yield "    def test_thing():"
        yield ">       assert 1 == 2"
        yield "E       assert 1 == 2"
        yield ""
        yield _rule("Captured stdout call", "-")
        yield "PASSED " + test
    yield _rule("PASSES")
    yield _rule("test_of_a_runner", "_")
    yield _rule("Captured stdout call", "-")
    yield from ("test_inner.py::test_one PASSED [100%]", "PASSED [100%]", "a warning FAILED")
    yield _rule("short test summary info")
    for word in ("PASSED", "SKIPPED", "ERROR", "FAILED"):
        for test, said in outcomes.items():
            if said == word:
                name = whole_id(test)
                yield f"SKIPPED [1] {name.split('::')[0]}:12: later" if word == "SKIPPED" else f"{word} {name}{_message(word)}"
    yield _rule(f"{_counts(outcomes)}3 warnings in 12.34s")


def _message(word: str) -> str:
    return {"FAILED": " - AssertionError: assert [1] - 2", "ERROR": " - RuntimeError: x - y"}.get(word, "")


def _counts(outcomes: Mapping[str, str]) -> str:
    said = list(outcomes.values())
    numbers = ((said.count("FAILED"), "failed"), (said.count("PASSED"), "passed"), (said.count("SKIPPED"), "skipped"))
    errors = said.count("ERROR")
    parts = [f"{number} {word}" for number, word in (*numbers, (errors, "error" if errors == 1 else "errors")) if number]
    return "".join(f"{part}, " for part in parts)


_NOISE: Sequence[Sequence[str]] = (
    (),
    (),
    ("Testing against Django installed in '/testbed/django' with up to 4 processes",),
    ("Internal Server Error: /does/not/matter",),
    ("System check identified no issues (0 silenced).",),
    ("/testbed/django/x.py:12: RemovedInDjango50Warning: gone ... soon", "  warnings.warn("),
)


def _django(outcomes: Mapping[str, str]) -> Iterator[str]:
    yield "Testing against Django installed in '/testbed/django'"
    yield "Importing application apps"
    yield "Creating test database for alias 'default' ('file:memorydb_default?mode=memory&cache=shared')..."
    yield "  Synchronizing unmigrated apps: auth, contenttypes, messages, sessions"
    yield "    Creating table django_content_type"
    yield "  Applying contenttypes.0001_initial... OK"
    yield "System check identified no issues (0 silenced)."
    for number, (test, word) in enumerate(outcomes.items()):
        named = _django_name(test, number)
        said = {"PASSED": "ok", "FAILED": "FAIL", "SKIPPED": "skipped 'no ... ok'"}.get(word, word)
        noise = _NOISE[number % len(_NOISE)] if word == "PASSED" and named[-1] == test else ()
        yield from named[:-1]
        if noise:
            yield f"{named[-1]} ... {noise[0]}"
            yield from noise[1:]
            yield said
        else:
            yield f"{named[-1]} ... {said}"
    yield ""
    for number, (test, word) in enumerate(outcomes.items()):
        if word in ("FAILED", "ERROR"):
            yield "=" * 70
            yield f"{'FAIL' if word == 'FAILED' else word}: " + "\n".join(_django_name(test, number))
            yield "-" * 70
            yield "Traceback (most recent call last):"
            yield '  File "/testbed/tests/apps/tests.py", line 12, in test_thing'
            yield "AssertionError: 'test_x (apps.tests.X) ... ok' != 'y'"
            yield ""
    yield "-" * 70
    yield f"Ran {len(outcomes)} tests in 1.234s"
    yield ""
    failed, errors, skipped = (list(outcomes.values()).count(word) for word in ("FAILED", "ERROR", "SKIPPED"))
    parts = [f"{n}={count}" for n, count in (("failures", failed), ("errors", errors), ("skipped", skipped)) if count]
    yield ("FAILED" if failed or errors else "OK") + (f" ({', '.join(parts)})" if parts else "")
    yield "Destroying test database for alias 'default' ('file:memorydb_default?mode=memory&cache=shared')..."


def _django_name(test: str, number: int) -> list[str]:
    """Return the lines that name a test: an id that is no `method (class)` is the first line of a docstring."""
    method, opened, owner = test.partition(" (")
    if opened and owner.endswith(")") and method.isidentifier() and "." in owner and " " not in owner:
        return [test]
    return [f"test_described_{number} (apps.tests.DescribedTests)", test]


def _sympy(outcomes: Mapping[str, str]) -> Iterator[str]:
    yield _rule("test process starts")
    yield "executable:         /opt/miniconda3/envs/testbed/bin/python  (3.9.20-final-0) [CPython]"
    yield "random seed:        83213251"
    yield ""
    yield f"sympy/core/tests/test_thing.py[{len(outcomes) + 1}] "
    for test, word in outcomes.items():
        yield f"{test} {'ok' if word == 'PASSED' else word[0]}"
    bad = [test for test, word in outcomes.items() if word in ("FAILED", "ERROR")]
    yield "test_last_of_file ok" + ("[FAIL]" if bad else "[OK]").rjust(_WIDTH - 20)
    yield ""
    for test in bad:
        yield "_" * _WIDTH
        yield f" sympy/core/tests/test_thing.py:{test} ".center(_WIDTH, "_")
        yield "Traceback (most recent call last):"
        yield "AssertionError"
    said = list(outcomes.values())
    parts = [f"{said.count('PASSED') + 1} passed"]
    parts += [f"{number} {name}" for number, name in ((said.count("FAILED"), "failed"),) if number]
    parts += [f"{number} {name}" for number, name in ((said.count("ERROR"), "exceptions"),) if number]
    yield _rule(f"tests finished: {', '.join(parts)}, in 12.34 seconds")
    yield "DO *NOT* COMMIT!"
