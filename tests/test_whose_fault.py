"""Whose fault it is that tests did not run, told by what a shell, a loader or a compiler said."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.model.pipeline import Quality
from fleet.model.verdict import Cause, Outcome, Verdict
from fleet.quality import judge
from fleet.quality.environment import ENVIRONMENT, WORDS
from tests.support.evaluated import NO_CONDA, evaluated
from tests.support.results import P2P, TOUCHED, make_patch

ACCEPTED, REJECTED = Outcome.ACCEPTED, Outcome.REJECTED


def judged(directory: Path) -> Verdict:
    return judge(directory, None, Quality())


def codes(verdict: Verdict) -> list[str]:
    return [reason.code for reason in verdict.reasons]


def not_collected(*lines: str) -> str:
    """Return the log of a pytest that could not import its one test file."""
    body = "\n".join(lines)
    return (
        "============================= test session starts ==============================\n"
        f"collected 0 items / 1 error\n\n_____ ERROR collecting tests/test_parser.py _____\n{body}\n"
        "=========================== short test summary info ============================\nERROR tests/test_parser.py\n"
        "=============================== 1 error in 0.10s ===============================\n"
    )


# What a log says when nothing ran → the kind of environment fault.
NOTHING_RAN = [
    ("bash: line 1: pytest: command not found", "command-not-found"),
    ("/eval.sh: line 12: tox: command not found", "command-not-found"),
    ("/opt/conda/bin/python: No module named pytest", "command-not-found"),
    ('npm ERR! Missing script: "test:unit"', "command-not-found"),
    ("Could not open input file: vendor/bin/phpunit", "command-not-found"),
    ("The JAVA_HOME environment variable is not defined correctly,", "command-not-found"),
    ("bash: ligne 1: pytest : commande introuvable", "shell"),
    ("bash: Zeile 1: cd: /testbed: Datei oder Verzeichnis nicht gefunden", "shell"),
    ("bash: 行 1: pytest: コマンドが見つかりません", "shell"),
    ("bash: 第 1 行： pytest：未找到命令", "shell"),
    ("bash: line 1: cd: /testbed: No such file or directory", "no-such-file"),
    ("/usr/bin/env: ‘python’: No such file or directory", "no-such-file"),
    ("OCI runtime exec failed: exec failed: unable to start container process", "no-such-file"),
    ("Error response from daemon: container 4f3e is not running", "docker"),
    ("Unable to find image 'mswebench/sweb.eval.x86_64.1:latest' locally", "missing-image"),
    ("OSError: [Errno 28] No space left on device: '/tmp/pytest-of-root'", "no-space"),
    ("OSError: [Errno 30] Read-only file system: '/testbed/.pytest_cache'", "no-space"),
    ("bash: line 1:    12 Killed                  pytest -rA", "killed"),
    ("FATAL ERROR: Reached heap limit Allocation failed - JavaScript heap out of memory", "killed"),
    ("bash: fork: retry: Resource temporarily unavailable", "killed"),
    ("exec /usr/bin/bash: exec format error", "wrong-machine"),
    ("E   ImportError: libGL.so.1: cannot open shared object file: No such file or directory", "shared-library"),
    ("node: /lib/libc.so.6: version `GLIBC_2.28' not found (required by node)", "shared-library"),
    ("repo.example: Temporary failure in name resolution", "network"),
    ("npm ERR! code EAI_AGAIN", "network"),
    ("E   ModuleNotFoundError: No module named 'hypothesis'", "missing-dependency"),
    ("Error: Cannot find module '/app/repo/node_modules/jest/bin/jest.js'", "missing-dependency"),
    ("Could not find rspec-3.12.0 in locally installed gems (Bundler::GemNotFound)", "missing-dependency"),
    ("pytest: error: unrecognized arguments: --timeout=60", "missing-dependency"),
    (NO_CONDA.strip(), "no-such-file"),
]


@pytest.mark.parametrize(("line", "kind"), NOTHING_RAN, ids=[line[:40] for line, _ in NOTHING_RAN])
@pytest.mark.parametrize("assumes", [False, True], ids=["", "missing tests taken for passed"])
def test_an_environment_that_ran_no_test_is_named(line: str, kind: str, assumes: bool, tmp_path: Path) -> None:
    verdict = judged(evaluated(tmp_path, f"{line}\n", assumes=assumes))
    assert verdict.verdict is REJECTED
    assert verdict.cause is Cause.ENVIRONMENT
    assert next(reason.measured for reason in verdict.reasons if reason.code == "environment-broken") == kind


def alternatives(pattern: str) -> list[str]:
    """Split a pattern at the bars that stand in no group."""
    parts, depth = [""], 0
    for sign in pattern.replace("\\(", "<").replace("\\)", ">"):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def test_the_first_look_at_a_line_passes_over_no_pattern() -> None:
    patterns = [pattern.pattern for row in ENVIRONMENT for pattern in row[3:] if pattern]
    for part in (part for pattern in patterns for part in alternatives(pattern)):
        assert any(word in part.replace("\\", "").lower() for word in WORDS), part


def test_a_set_up_script_that_is_not_there_explains_nothing_while_something_else_does(tmp_path: Path) -> None:
    verdict = judged(evaluated(tmp_path, f"{NO_CONDA}bash: line 1: pytest: command not found\n"))
    assert [reason.measured for reason in verdict.reasons if reason.code == "environment-broken"] == ["command-not-found"]


HEAD = f"diff --git a/{TOUCHED} b/{TOUCHED}\n--- a/{TOUCHED}\n+++ b/{TOUCHED}\n"
ASKED = f"{HEAD}@@ -1,2 +1,3 @@\n import os\n+import attrs\n x = 1\n"
# The log of tests that the patch kept from running → the patch.
MODELS_FAULT: dict[str, tuple[str, str]] = {
    "syntax": (
        not_collected("src/parser.py:1: in <module>", f'E     File "/testbed/{TOUCHED}", line 2', "E   SyntaxError: bad"),
        make_patch(),
    ),
    "a name that it took away": (
        not_collected(
            "tests/test_parser.py:1: in <module>",
            f"E   ImportError: cannot import name 'gone' from 'src.parser' (/testbed/{TOUCHED})",
        ),
        make_patch(),
    ),
    "a library that it asks for": (
        not_collected(f"{TOUCHED}:2: in <module>", "E   ModuleNotFoundError: No module named 'attrs'"),
        ASKED + make_patch(1200, "src/b.py"),
    ),
    "TypeScript": ("src/parser.ts:12:5 - error TS2304: Cannot find name 'foo'.\n", make_patch(1500, "src/parser.ts")),
    "JavaScript": ("SyntaxError: /app/src/parser.js: Unexpected token (12:4)\n", make_patch(1500, "src/parser.js")),
    "Go": ("pkg/parse.go:10:2: undefined: foo\nFAIL\ta/b [build failed]\n", make_patch(1500, "pkg/parse.go")),
    "a Go package": ("pkg/parse.go:4:2: package a/b/c is not in std\n", make_patch(1500, "pkg/parse.go")),
    "Kotlin": ("e: file:///app/src/Parser.kt:12:9 Unresolved reference: foo\n", make_patch(1500, "src/Parser.kt")),
    "PHP": ("PHP Parse error:  syntax error, unexpected '}' in /app/src/A.php on line 12\n", make_patch(1500, "src/A.php")),
    "Ruby": ("/app/lib/parser.rb:12: syntax errors found (SyntaxError)\n", make_patch(1500, "lib/parser.rb")),
}


@pytest.mark.parametrize("name", MODELS_FAULT)
@pytest.mark.parametrize("noise", ["", NO_CONDA], ids=["", "no conda"])
def test_a_patch_that_breaks_the_tests_is_a_valid_result(name: str, noise: str, tmp_path: Path) -> None:
    log, patch = MODELS_FAULT[name]
    verdict = judged(evaluated(tmp_path, log + noise, patch=patch))
    assert (verdict.verdict, verdict.cause) == (ACCEPTED, Cause.MODEL), verdict.reasons
    assert "model-broke-tests" in codes(verdict)


# The log of tests that import what is nowhere → who should have brought it.
IMPORTS = [
    (("tests/test_parser.py:1: in <module>", "E   ModuleNotFoundError: No module named 'src.new'"), Cause.MODEL),
    (
        (
            "tests/test_parser.py:1: in <module>",
            "E   ImportError: cannot import name 'new' from 'src.util' (/testbed/src/util.py)",
        ),
        Cause.MODEL,
    ),
    (("FAIL src/a.test.ts", "Cannot find module './new' from 'src/a.test.ts'"), Cause.MODEL),
    (("src/util.py:4: in <module>", "E   ModuleNotFoundError: No module named 'src._speedups'"), Cause.ENVIRONMENT),
    (("tests/test_parser.py:1: in <module>", "E   ModuleNotFoundError: No module named 'numpy'"), Cause.ENVIRONMENT),
    (
        (
            f"{TOUCHED}:1: in <module>",
            "E   ImportError: cannot import name 'escape' from 'jinja2' (/env/lib/python3.9/site-packages/jinja2/__init__.py)",
        ),
        Cause.ENVIRONMENT,
    ),
    (
        ("tests/test_parser.py:1: in <module>", "E   ImportError: cannot import name 'x' from 'src' (unknown location)"),
        Cause.ENVIRONMENT,
    ),
    (
        (
            "/env/lib/python3.9/site-packages/flask/json.py:3: in <module>",
            "E   ImportError: cannot import name 'escape' from 'jinja2' (/env/lib/python3.9/site-packages/jinja2/__init__.py)",
        ),
        Cause.ENVIRONMENT,
    ),
]


@pytest.mark.parametrize(("lines", "cause"), IMPORTS, ids=[lines[1][:60] for lines, _ in IMPORTS])
def test_what_the_tests_import_and_is_not_there_has_the_right_cause(
    lines: tuple[str, ...], cause: Cause, tmp_path: Path
) -> None:
    verdict = judged(evaluated(tmp_path, not_collected(*lines)))
    assert (verdict.verdict, verdict.cause) == (REJECTED, cause)
    assert ("environment-broken" in codes(verdict)) is (cause is Cause.ENVIRONMENT)
    assert verdict.grade is (cause is Cause.MODEL)


# What a compiler says of a test file → the patch, and who should have brought it.
COMPILED = {
    "a Go name": ("pkg/parse_test.go:10:2: undefined: NewThing\n", "pkg/parse.go", Cause.MODEL),
    "a Java method": ("[ERROR] /app/src/test/java/ATest.java:[12,9] cannot find symbol\n", "src/main/java/A.java", Cause.MODEL),
    "a Rust function": (
        "error[E0425]: cannot find function `new` in this scope\n  --> tests/parser.rs:3:5\n", "src/parser.rs", Cause.MODEL,
    ),
    "a TypeScript member": ("src/a.test.ts:3:5 - error TS2339: Property 'b' does not exist\n", "src/a.ts", Cause.MODEL),
    "a C++ function": ("tests/a.cpp:10:2: error: 'b' was not declared in this scope\n", "src/a.cpp", Cause.MODEL),
    "a crate": (
        "error[E0432]: unresolved import `proptest`\n  --> tests/parser.rs:3:5\n  use of undeclared crate or module\n",
        "src/parser.rs", Cause.ENVIRONMENT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_what_the_tests_do_not_compile_without_has_the_right_cause(name: str, tmp_path: Path) -> None:
    log, path, cause = COMPILED[name]
    verdict = judged(evaluated(tmp_path, log, patch=make_patch(1500, path)))
    assert (verdict.verdict, verdict.cause, verdict.grade) == (REJECTED, cause, cause is Cause.MODEL)


def half_collected(*lines: str) -> str:
    """Return the log of a pytest that ran the P2P tests, and could not import the file of the F2P test."""
    body, passed = "\n".join(lines), "".join(f"PASSED {test}\n" for test in P2P)
    return (
        f"collected 3 items / 1 error\n\n_____ ERROR collecting tests/test_new.py _____\n{body}\n"
        f"====== short test summary info ======\n{passed}ERROR tests/test_new.py\n====== 3 passed, 1 error in 0.1s ======\n"
    )


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("E   ModuleNotFoundError: No module named 'numpy'", REJECTED),
        ("E   ImportError: libGL.so.1: cannot open shared object file: No such file or directory", REJECTED),
        ("E   ModuleNotFoundError: No module named 'src.new'", ACCEPTED),
        (f"E   ImportError: cannot import name 'b' from 'src.parser' (/testbed/{TOUCHED})", ACCEPTED),
        ("E   AssertionError: bash: x: command is broken", ACCEPTED),
    ],
)
def test_f2p_tests_that_the_image_cannot_import_are_no_failure_of_the_model(
    line: str, outcome: Outcome, tmp_path: Path
) -> None:
    log = half_collected("tests/test_new.py:1: in <module>", line)
    verdict = judged(evaluated(tmp_path, log, f2p=["tests/test_new.py::test_a"]))
    assert verdict.verdict is outcome, verdict.reasons
    if outcome is REJECTED:
        assert codes(verdict) == ["environment-broken"] and f"test_output.txt:5: {line[:40]}" in verdict.reasons[0].message
