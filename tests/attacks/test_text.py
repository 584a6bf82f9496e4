"""Text that would drive a terminal, or make one name look like another, from logs, hosts, files and the operator's own hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.errors import InputError
from fleet.inventory import load_inventory
from fleet.model.assignment import read_assignment
from fleet.model.names import plain, visible
from tests.support.catalogue import attack
from tests.support.collect_bench import Bench, writes
from tests.support.datasets import task
from tests.support.operator import wait_until
from tests.support.results import INSTANCE, build_result

LABEL = f"{INSTANCE}/gpt/run1"
ATTACKS = {
    "title": b"\x1b]0;owned\x07",
    "clear": b"\x1b[2J\x1b[H",
    "clipboard": b"\x1b]52;c;ZXZpbA==\x07",
    "link": b"\x1b]8;;file:///etc/passwd\x1b\\click\x1b]8;;\x1b\\",
    "one-byte CSI": b"\x9b2J",
    "CSI in UTF-8": b"\xc2\x9b2J",
    "overwrite": b"FAILED\rPASSED",
    "bell": b"\x07",
    "device string": b"\x1bP+q544e\x1b\\",
    "unfinished": b"\x1b]0;never ends",
    "reordered": "\u202egnp.exe\u202c \u2066x\u2069 zero\u200bwidth".encode(),
    "backspaces": b"yes\b\b\bno",
    "vertical": b"a\x0b\x0c\x85b",
}
HARMFUL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
BLOCK = b"".join(b"begin " + name.encode() + b" " + body + b" end\n" for name, body in ATTACKS.items())


def harmless(what: str, *texts: str) -> None:
    for text in texts:
        found = HARMFUL.search(text.replace("\n", ""))
        assert found is None, (what, ascii(text[max(0, found.start() - 40) : found.start() + 40]))


@attack("S12")
def test_a_log_that_would_drive_the_terminal_is_text_in_every_command_that_shows_it(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "block").write_bytes(BLOCK)
    last = tmp_path / "last"
    last.write_bytes(b"begin " + b" ".join(ATTACKS.values()) + b"\n")
    host = bench.hosts["eval1"]
    bench.opened(bench.task(), attempts={"a1": LABEL})
    host.start(f"cat {tmp_path}/block {last}; {writes(tmp_path)}; cat {last}; sleep 60")
    log = host.fleet / "attempts/a1/log"
    wait_until(lambda: log.exists() and log.stat().st_size > len(BLOCK) + last.stat().st_size, 10)
    host.client.status()
    for words in (["logs", INSTANCE], ["status", "phase8"], ["status", "--all-hosts"], ["why", INSTANCE], ["why", "eval1"],
                  ["dashboard", "phase8"], ["check"]):  # fmt: skip
        _, out, err = bench.said(*words)
        harmless(" ".join(words), out, err)
        if words[0] == "logs":
            assert all(f"begin {name} " in out for name in ATTACKS), "what was said around the attack is still there"
            assert "FAILED" in out and "PASSED" in out, "neither hides the other"
            assert len(out.split("\n")) >= len(ATTACKS)
    for words in (["logs", INSTANCE], ["status", "phase8"]):
        _, out, err = bench.said(*words, "--json")
        harmless(" ".join(words) + " --json", out, err)
    host.client.cancel("a1", None, 1.0)
    for words in (["collect", "phase8"], ["logs", INSTANCE], ["why", INSTANCE], ["dashboard", "phase8"]):
        _, out, err = bench.said(*words)
        harmless(" ".join(words), out, err)
    assert BLOCK in (bench.collected / "phase8" / LABEL / "attempt1/fleet.log").read_bytes(), "the file keeps every byte"


@attack("S12")
def test_a_terminal_gets_our_colours_and_nothing_of_the_logs(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "block").write_bytes(BLOCK)
    bench.opened(bench.task(), attempts={"a1": LABEL})
    bench.hosts["eval1"].run(f"cat {tmp_path}/block")
    bench.fleet("phase8")
    for words in ("logs " + INSTANCE, "dashboard phase8", "status phase8 --offline", "why " + INSTANCE):
        argv = ["script", "-qec", f"{sys.executable} -m fleet {words} 2>&1", "/dev/null"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        ours = re.sub(rb"\x1b\[[0-9;]*m", b"", done.stdout).decode()
        harmless(words, ours.replace("\r\n", "\n"))


@attack("S12")
@pytest.mark.parametrize("name", ATTACKS)
def test_whatever_is_shown_of_a_host_has_one_line_and_no_control_character(name: str) -> None:
    text = ATTACKS[name].decode("utf-8", "replace")
    for shown in (visible(text), plain(text), plain(text * 50, 100)):
        harmless(name, shown)
        assert "\n" not in shown
    assert "FAILED" in plain("FAILED\rPASSED")


@attack("S12")
def test_what_stands_in_a_result_cannot_drive_the_terminal_that_validates_it(tmp_path: Path) -> None:
    hostile = b" ".join(ATTACKS.values()).decode("utf-8", "replace")
    build_result(tmp_path / "one", error=hostile, details={"error_message": hostile, "instance_id": hostile})
    log = {"eval_outputs/x/test_output.txt": f"{hostile}\nbash: pytest: command not found\n"}
    build_result(tmp_path / "two", instance_id="x", row={"instance_id": hostile}, files=log)
    (tmp_path / "three\x1b]0;owned\x07\u202e").mkdir()
    build_result(tmp_path / "three\x1b]0;owned\x07\u202e" / "r", patch=hostile)
    for form in ([], ["--json"]):
        argv = [sys.executable, "-m", "fleet", "validate", str(tmp_path), *form]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2, done.stderr
        harmless(f"validate {form}", done.stdout, done.stderr)
        assert "Traceback" not in done.stderr


@attack("S12")
def test_a_talking_shell_cannot_drive_the_terminal_that_checks_the_host(bench: Bench) -> None:
    (bench.hosts["eval1"].home / ".bashrc").write_bytes(b"printf '%s' '" + b" ".join(ATTACKS.values()) + b"'\n")
    _, out, err = bench.said("check", "eval1")
    harmless("check", out, err)
    assert "shell" in out


INVISIBLE = {
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "zero-width space": "\u200b",
    "byte order mark": "\ufeff",
    "soft hyphen": "\xad",
    "a tag": "\U000e0041",
    "a Cyrillic letter": "\u0430",
    "a full-width letter": "\uff41",
    "a combining accent": "\u0301",
}


@attack("S13")
@pytest.mark.parametrize("name", INVISIBLE)
def test_a_name_with_a_character_that_cannot_be_seen_is_refused_and_shown_escaped(name: str, tmp_path: Path) -> None:
    odd = f"i{INVISIBLE[name]}1"
    for field in ("instance_id", "model", "task_name", "pipeline", "agent"):
        entry = task("i-1", "gpt", "d.json") | {field: odd}
        with pytest.raises(InputError) as caught:
            read_assignment(json.dumps({"eval1": [entry]}).encode(), "a.json", "0")
        harmless(field, caught.value.message)
        assert field in caught.value.message
    for document in ({"hosts": {odd: {"address": "10.0.0.1"}}}, {"hosts": {"a": {"address": odd}}},
                     {"hosts": {"a": {"address": "10.0.0.1", "user": odd}}}):  # fmt: skip
        (tmp_path / "hosts.yaml").write_text(json.dumps(document))
        with pytest.raises(InputError) as caught:
            load_inventory(tmp_path / "hosts.yaml")
        harmless(str(document), caught.value.message)


@attack("S13")
def test_a_host_that_names_a_task_or_batch_so_is_not_followed_and_is_shown_escaped(bench: Bench, tmp_path: Path) -> None:
    host = bench.hosts["eval1"]
    host.run(writes(tmp_path), "a1", instance="i\u202e1")
    host.run(writes(tmp_path), "a2", batch="phase\u200b8")
    code, out, err = bench.said("collect")
    harmless("collect", out, err)
    assert code == 4
    assert "names no valid task" in out
    assert sorted(path.name for path in bench.collected.iterdir()) == ["unknown"], "a batch that cannot be seen through is none"
    harmless("status", *bench.said("status", "--all-hosts")[1:])
