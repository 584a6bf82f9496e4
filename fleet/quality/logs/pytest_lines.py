"""The lines in which pytest names a test, and where in them its id ends.

That is the hard part: `FAILED t.py::test_x[a - b] - assert 1 == 2`. Ids that verbose lines or the caller know decide first;
else the first ` - ` outside of a parameter's brackets.
"""

from __future__ import annotations

import itertools
import re

from fleet.quality.logs.evidence import Session

_WORDS = "PASSED|FAILED|ERROR|XFAIL|XPASS|SKIPPED"
_RESULT = re.compile(rf"({_WORDS}|FAIL|SKIP) (\S.*)$")
_OLD_WORDS = {"FAIL": "FAILED", "SKIP": "SKIPPED"}
"""pytest 3 in its summary, where no message follows."""
_SUBTEST = re.compile(
    r"(?:[\[(].{0,400} )?SUB(PASS|FAIL|SKIP)(?:ED|PED)?(?:\([^)]{0,200}\)|\[[^\]]{0,200}\]+)*"
    r" (?:\([^)]{0,200}\) )?(\S.*)$"
)
_COUNTED_SKIP = re.compile(r"\[\d+\] ")
_PROGRESS = re.compile(r"\[ *\d+(?:%|/\d+)\]$")
_MARK = re.compile(rf" ({_WORDS}|xfail|xpass)(?=[ (\[]|$)")
_REASON = frozenset({"SKIPPED", "XFAIL", "XPASS"})
_TAIL = re.compile(r" *(?:\[ *\d+(?:%|/\d+)\]|\[?\d+(?:\.\d+)?(?:s|ms|us)\]?)?")
_XDIST = re.compile(rf"\[gw\d+\] (?:\[ *\d+(?:%|/\d+)\] )?({_WORDS}) (\S.*)$")
_LOCATION = re.compile(r" <- \S*[^\s\]]$")
"""Where an inherited test stands; behind an id, so it closes no bracket."""
_PATH = re.compile(r"\[/(?!/)[^*]*/([^/*]*)\]$")


def xdist_line(line: str) -> tuple[str, str] | None:
    """Return the test and its outcome of `[gw0] [ 10%] PASSED ID`."""
    found = _XDIST.match(line)
    return (_plain_id(_LOCATION.sub("", found.group(2))), found.group(1)) if found else None


def verbose_line(line: str) -> tuple[str, str] | None:
    """Return the test and its outcome of `ID PASSED [ 10%]`.

    Ids and reasons may themselves hold such a word: an id's brackets are closed, and the whole line has to fit. A reason may go
    on in the next line.
    """
    for mark in itertools.islice(_MARK.finditer(line), 8):
        test_id, word, end = _LOCATION.sub("", line[: mark.start()]), mark.group(1), mark.end()
        # `test a::b ... FAILED` is a Rust test's line.
        if "::" not in test_id or test_id.endswith(" ...") or ("[" in test_id and not test_id.endswith("]")):
            continue
        if (word in _REASON and line.startswith(" (", end)) or _TAIL.fullmatch(line, end):
            return _plain_id(test_id), word.upper()
    return None


def summary_line(line: str, inside: bool, ids: set[str]) -> tuple[str, str] | None:
    """Return the test and its outcome of a line that starts with an outcome; a file that cannot be imported is no test.

    Outside of the summary only what is unmistakably an id counts.
    """
    if subtest := _SUBTEST.match(line):
        failed = inside and subtest.group(1) == "FAIL"
        return (_plain_id(_cut_message(subtest.group(2), ids)), "FAILED") if failed else None
    found = _RESULT.match(line)
    if found is None:
        return None
    word, rest = _OLD_WORDS.get(found.group(1), found.group(1)), found.group(2)
    if (word == "SKIPPED" and _COUNTED_SKIP.match(rest)) or _PROGRESS.match(rest):
        return None
    test_id = rest if word == "PASSED" or found.group(1) in _OLD_WORDS else _cut_message(rest, ids)
    if not inside and ("::" not in test_id or " " in test_id.split("::", 1)[0]):
        return None
    return _plain_id(test_id), word


def _plain_id(test_id: str) -> str:
    # pytest 3 has instances in its ids, `Class::()::test`, in its summary only.
    return test_id.replace("::()::", "::")


def _cut_message(rest: str, ids: set[str]) -> str:
    """Return the id at the start of `ID - message`."""
    ends = [match.start() for match in itertools.islice(re.finditer(" - ", rest), 50)]
    if not ends:
        return rest
    for end in (len(rest), *reversed(ends)):
        if rest[:end] in ids:
            return rest[:end]
    for end in ends:
        if "[" not in rest[:end] or rest[:end].endswith("]"):
            return rest[:end]
    return rest[: ends[0]]


def shortened(session: Session) -> None:
    """Index ids as the parsers of SWE-bench leave them in its datasets.

    They split lines at spaces (`t.py::test_x[a`), keep only the end of a parameter that is a path (`t.py::test_x[/c.txt]`), and
    write matplotlib's mouse buttons as numbers.
    """
    for test_id in session.results:
        if "[/" in test_id and (found := _PATH.search(test_id)):
            session.alias.setdefault(f"{test_id[: found.start()]}[/{found.group(1)}]", set()).add(test_id)
        if "MouseButton." in test_id:
            other = test_id.replace("MouseButton.LEFT", "1").replace("MouseButton.RIGHT", "3")
            session.alias.setdefault(other, set()).add(test_id)
        if " " in test_id and "[" in test_id:
            first = test_id.split(" ", 1)[0]
            if "[" in first:
                session.alias.setdefault(first, set()).add(test_id)
