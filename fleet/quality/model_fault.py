"""The model's own fault, shown by the log: an error in a file that its patch touches, or something that it left out."""

from __future__ import annotations

import re

from fleet.model.verdict import Cause
from fleet.quality.diagnosis import Diagnosis, numbered
from fleet.quality.patches import Patch

_FRAME = re.compile(r'^(?:E? +)File "([^"]+)", line (\d+)|^([\w./+-]+\.py):(\d+): (?:in |\w*(?:Error|Exception))')
_EXCEPTION = re.compile(r"^(?:E +)?([A-Za-z_][\w.]*(?:Error|Exception|Interrupt))\b(?:: ?(.*))?$")
_NO_MODULE = re.compile(r"No module named ['\"]?([\w.]+)")
_NO_NAME = re.compile(
    r"cannot import name ['\"]?(\w{1,200})['\"]? from (?:partially initialized module )?'?([\w.]+).{0,200}\(([^()]+)\)\s*$"
)
_NO_FILE = re.compile(r"Cannot find module '(\.{1,2}/[^']+)' from '([^']+)'")
_NO_SYMBOL = re.compile(
    r"\bundefined: |has no field or method|(?:not enough|too many) arguments in call|unknown field |cannot find symbol"
    r"|error\[E0(?:061|063|412|425|432|433|560|599|603|609|616)\]: |Unresolved reference"
    r"|\bTS(?:2305|2339|2345|2353|2551|2554|2724)\b|was not declared in this scope|has no member named|no member named"
)
_NO_CRATE = re.compile(r"(?:missing|undeclared|unlinked) crate")
_TEST = re.compile(r"(?:^|/)(?:tests?|testing|specs?|__tests__)/|(?:^|/)test_[^/]*$|[._](?:test|spec)s?\.\w+$")
_COMPILED = r"(/?[\w@+-][\w./@+-]*\.(?:js|jsx|ts|tsx|mjs|cjs|go|rs|java|c|cc|cpp|cxx|h|hpp|rb|php|kt|scala|cs|py))"
_COMPILER = re.compile(
    rf"(?:^|[\s(\[>]|file://)(?:\./)?{_COMPILED}(?:[:(\[]+\d+| on line \d+|: [^()]{{1,200}}\(\d+:\d+\))",
)
_COMPILE_ERROR = re.compile(
    r"\berror\b|SyntaxError|syntax error|ParseError|undefined:|cannot find symbol|error\[E\d+\]|Unexpected token"
    r"|Unresolved reference|is not in (?:GOROOT|std)\b|no required module provides",
    re.I,
)
_NEAR = 4
"""Lines between a compiler's message and the place that it means."""
_ELSEWHERE = re.compile(
    r"(?:site|dist)-packages/|^unknown location$|^/usr/lib/|/lib/python\d|/node_modules/|<frozen|\.cargo/registry"
)


def model_fault(text: str, patch: Patch) -> Diagnosis | None:
    """Return the syntax, import or compile error in a file that the patch touches, or None.

    Only the last frame of a traceback counts. A module that is missing is the model's fault only when the patch asks for
    it or takes it away: where the import was there before, the environment has lost the module.
    """
    if not patch.files:
        return None
    compiled_names = [name.rsplit("/", 1)[-1] for name in patch.files if not name.endswith(".py")]
    frame: tuple[str, int] | None = None
    place: tuple[str, int] | None = None
    for number, line in numbered(text):
        if found := _FRAME.match(line):
            frame = (found.group(1) or found.group(3), int((found.group(2) or found.group(4))[:9]))
            continue
        if frame and (raised := _EXCEPTION.match(line)):
            verdict = _raised(raised.group(1), raised.group(2) or "", frame, patch, number, line)
            if verdict:
                return verdict
            frame = None
        if any(name in line for name in compiled_names) and (compiled := _COMPILER.search(line)):
            place = (compiled.group(1), number)
        if place and number - place[1] <= 4 and _COMPILE_ERROR.search(line) and not line.startswith("E "):
            touched = _touched(place[0], patch)
            if touched and not touched.endswith(".py"):
                return _blame(touched, line, number)
    return None


def _raised(name: str, message: str, frame: tuple[str, int], patch: Patch, number: int, line: str) -> Diagnosis | None:
    path, at = frame
    origin = _NO_NAME.search(message)
    if origin and (touched := _touched(origin.group(3), patch)):
        return _blame(touched, line, number)
    touched = _touched(path, patch)
    missing = _NO_MODULE.search(message)
    if origin and _ELSEWHERE.search(origin.group(3)):
        asked = touched and _asked_for(origin.group(2), touched, at, patch)
        return _blame(touched, line, number) if touched and asked else None
    if missing and name.endswith(("ImportError", "ModuleNotFoundError")):
        gone = _taken_away(missing.group(1), patch)
        if gone or (touched and _asked_for(missing.group(1), touched, at, patch)):
            return _blame(gone or touched or path, line, number)
        return None
    return _blame(touched, line, number) if touched else None


def left_out(text: str, patch: Patch) -> Diagnosis | None:
    """Return what a test file asks of the repository itself, and neither the repository nor the patch has.

    A name or a module of the repository: its package was found, so the environment is not at fault.
    """
    own = {part.removesuffix(".py") for name in patch.files for part in name.split("/")}
    frame = ""
    symbol = place = -_NEAR
    if _NO_CRATE.search(text):
        return None
    compiles = _NO_SYMBOL.search(text) is not None
    for number, line in numbered(text):
        if found := _FRAME.match(line):
            frame = found.group(1) or found.group(3)
            continue
        wanted = None
        if "Cannot find module" in line and (asked := _NO_FILE.search(line)):
            wanted = asked.group(1) if _is_test(asked.group(2)) else None
        elif frame and (raised := _EXCEPTION.match(line)):
            wanted = _wanted(raised.group(2) or "", own) if _is_test(frame) else None
            frame = ""
        if wanted:
            return _lacks(wanted, line, number)
        if not compiles:
            continue
        symbol = number if _NO_SYMBOL.search(line) else symbol
        if (compiled := _COMPILER.search(line)) and not compiled.group(1).endswith(".py"):
            place = number if _is_test(compiled.group(1)) else -_NEAR
        if place > 0 < symbol and abs(symbol - place) < _NEAR and number == max(symbol, place):
            return _lacks("a name", line, number)
    return None


def _lacks(what: str, line: str, number: int) -> Diagnosis:
    return Diagnosis("left-out", Cause.MODEL, f"the tests ask for {what} that the patch does not bring", "", line, number)


def _wanted(message: str, own: set[str]) -> str | None:
    if (name := _NO_NAME.search(message)) and not _ELSEWHERE.search(name.group(3)):
        return name.group(1)
    module = _NO_MODULE.search(message)
    return module.group(1) if module and "." in module.group(1) and module.group(1).split(".", 1)[0] in own else None


def _is_test(path: str) -> bool:
    return _TEST.search(path) is not None and _ELSEWHERE.search(path) is None


def _blame(path: str, line: str, number: int) -> Diagnosis:
    return Diagnosis("model", Cause.MODEL, f"an error in {path}, which it touches", "", line, number)


def _touched(path: str, patch: Patch) -> str | None:
    """Return the touched file that a path of a log means: the same path, or one that ends with it below the work directory."""
    if _ELSEWHERE.search(path):
        return None
    path = path.removeprefix("./")
    return next((name for name in sorted(patch.files) if path == name or (path[:1] == "/" and path.endswith("/" + name))), None)


def _taken_away(module: str, patch: Patch) -> str | None:
    """Return the deleted or renamed file that held a module."""
    stem = module.replace(".", "/")
    for name in sorted(patch.gone):
        base = name.removesuffix(".py").removesuffix("/__init__")
        if base != name and (base == stem or base.endswith("/" + stem)):
            return name
    return None


def _asked_for(module: str, path: str, at: int, patch: Patch) -> bool:
    """Tell whether the patch wrote the import that failed; a line that it shows as unchanged, or does not show, it did not."""
    change = next((change for change in patch.changes if change.target == path), None)
    if change is None:
        return False
    if at in change.added:
        return True
    root = module.split(".", 1)[0]
    asked = re.compile(rf"\b(?:import|from)\s+(?:[\w.]+\.)?{re.escape(root)}\b")
    return any(asked.search(line) for line in change.added.values())
