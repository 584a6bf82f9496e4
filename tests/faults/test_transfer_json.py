"""Outputs that are not the JSON they should be: rejected with file and line by the command itself, never a traceback."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.catalogue import attack, fault
from tests.support.results import INSTANCE, build_result

FILES = {
    "output.jsonl": "output-malformed",
    "eval_pilot2_output.jsonl": "eval-malformed",
    f"eval_outputs/{INSTANCE}/report.json": "report-missing",
}
"""Where the damage is done → the code that rejects it."""
DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (lambda raw: raw.rstrip()[:-40], "cut off"),
    "NaN": (lambda raw: raw.replace(b"{", b'{"x": NaN, ', 1), "NaN"),
    "a key twice": (lambda raw: raw.replace(b"{", b'{"x": 1, "x": 2, ', 1), "twice"),
    "nested 100,000 deep": (
        lambda raw: raw.replace(b"{", b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b", ", 1),
        "too deeply",
    ),
    "an integer of 5,000 digits": (lambda raw: raw.replace(b"{", b'{"x": ' + b"9" * 5000 + b", ", 1), "5000 digits"),
    "a list for an object": (lambda raw: b"[" + raw.strip() + b"]", "list"),
    "not UTF-8": (lambda raw: raw.replace(b"{", b'{"x": "\xff", ', 1), "not UTF-8"),
}
ODD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a byte order mark": (lambda raw: b"\xef\xbb\xbf" + raw, "byte order mark"),
    "half a surrogate pair": (lambda raw: raw.replace(b"{", b'{"x": "\\ud800", ', 1), "surrogate"),
}
FINE: dict[str, Callable[[bytes], bytes]] = {
    "U+2028 in a string": lambda raw: raw.replace(b"{", b'{"x": "one\xe2\x80\xa8two", ', 1),
    "CRLF": lambda raw: raw.replace(b"\n", b"\r\n"),
}


@fault("T8")
@attack("S14")
def test_every_damage_in_every_file_is_a_rejection_with_file_and_line_and_no_traceback(tmp_path: Path) -> None:
    expected: dict[str, tuple[str, str, str, str]] = {}
    for kind, by_name in {"rejected": DAMAGE, "flagged": ODD}.items():
        for name, (change, words) in by_name.items():
            for file, code in FILES.items():
                place = tmp_path / f"{len(expected):02}"
                build_result(place)
                (place / file).write_bytes(change((place / file).read_bytes()))
                expected[place.name] = (f"{name} in {file}", kind, code, words)
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "validate", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == ""
    results = {Path(one["path"]).name: one for one in json.loads(done.stdout)["results"]}
    assert set(results) == set(expected)
    for place, (what, kind, code, words) in expected.items():
        reasons = results[place]["reasons"]
        said = [one["message"] for one in reasons if words in one["message"]]
        if kind == "flagged":
            # JSON all the same, if of an odd kind: said, and no reason to throw a result away.
            assert results[place]["verdict"] in ("flagged", "accepted"), what
            assert said or "report" in what, (what, reasons)
            continue
        assert results[place]["verdict"] == "rejected", what
        assert code in {one["code"] for one in reasons}, (what, reasons)
        assert said, (what, reasons)
        assert any(re.search(r"\.jsonl?:[0-9]+ ", message) for message in said), (what, said)


@fault("T8")
@pytest.mark.parametrize("name", FINE)
def test_what_is_good_json_is_not_thrown_away(name: str, tmp_path: Path) -> None:
    build_result(tmp_path / "r")
    for file in FILES:
        path = tmp_path / "r" / file
        path.write_bytes(FINE[name](path.read_bytes()))
    done = subprocess.run(
        [sys.executable, "-m", "fleet", "validate", str(tmp_path / "r"), "--json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, json.loads(done.stdout)["results"][0]["verdict"]) == (0, "accepted"), done.stdout
