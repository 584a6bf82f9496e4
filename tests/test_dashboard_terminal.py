"""The dashboard in a terminal: whole at 80 and 100 columns, plain in a pipe, harmless whatever a host wrote."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from fleet.dashboard.formats import amount, clock, duration, money, roughly, size
from fleet.dashboard.summary import summarize
from fleet.dashboard.terminal import render
from fleet.model.records import CancelOrdered
from fleet.model.states import AttemptState
from fleet.model.verdict import Cause, Facts, Outcome
from tests.support.batches import GOOD_FACTS, Batch, reject, seed_case, task, warn
from tests.support.catalogue import attack

HOSTILE = "\x1b]0;owned\x07\x1b[2J[red]boom[/red] \u202egnp.exe \u200b[link=file:///etc]x[/link]\r\nsecond line"


def shown(batch: Batch, width: int = 100, **settings: object) -> str:
    options: dict[str, object] = {"width": width, "file": io.StringIO(), "highlight": False, "color_system": None}
    console = Console(**{**options, **settings})
    console.print(render(summarize(batch.state, batch.now)), crop=False)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_none_ends_in_blanks(width: int) -> None:
    lines = shown(seed_case(), width).splitlines()
    assert max(map(len, lines)) <= min(width, 110)
    assert [line for line in lines if line != line.rstrip()] == []


def test_the_seed_case_at_100_columns() -> None:
    text = shown(seed_case())
    for line in (
        " █ 2 accepted  ▓ 1 flagged  ▒ 1 rejected  ▚ 2 running  ╳ 4 blocked  · 2 waiting",
        " assigned      12  ████████████████████████████",
        " started        6  ██████████████                −2 waiting  −4 blocked",
        " valid          3  ███████                       −1 rejected",
        " resolved       2  █████                         −1 unresolved  = 67 % of 3 (95 % CI 21 to 94 %)",
        " MODELS  tasks  open  accepted  flagged  failed  resolved   median      p95   cost   tokens",
        " gpt         6     3         2        0       1   1  50 %  12m 03s  19m 21s  $0.41  240.0 k",
        " ● eval2  busy             2     1         1        0       0  12m 03s  9:59  1319601/claude/run1",
        " duration      median 11m 46s   p95 18m 57s   10m 55s to 20m 10s   4 evals",
        " tests         F2P 7 of 9   P2P 297 of 297   3 valid results",
        " cost          $0.82   reported by 2 of 4 results",
        " model failed  1 eval valid, not resolved",
        " ✗ 1 task  environment · no-tests-executed  eval4",
        "   first: sudo systemctl start docker",
    ):
        assert line in text.splitlines()
    assert text.rstrip().splitlines()[-1] == " → fleet check eval5"


def test_the_seed_case_at_80_columns_keeps_every_command_whole() -> None:
    text = shown(seed_case(), 80)
    for line in (
        " resolved       2  ███               −1 unresolved  = 67 % of 3",
        " ● eval1  busy          0/2  9:59  1319606/gpt/run1",
        " MODELS  tasks  open  accepted  flagged  failed  resolved   median   cost",
    ):
        assert line in text.splitlines()
    for command in ("→ fleet check eval5", "→ fleet check eval6", "→ fleet check eval4"):
        assert command in text


def test_the_command_to_type_is_one_line_however_narrow_the_terminal_is() -> None:
    batch = seed_case(finished=True)
    summary = summarize(batch.state, batch.now)
    command = f"fleet dispatch /{'very-long-name/' * 30}phase8.json --batch phase8"
    long = summary.model_copy(update={"next": summary.next.model_copy(update={"command": command})})
    console = Console(width=80, file=io.StringIO(), highlight=False, color_system=None)
    console.print(render(long), crop=False)
    assert f" → {command}" in console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100])
def test_a_cancelled_task_is_shown_as_cancelled_and_not_as_failed(width: int) -> None:
    one, other = task("a"), task("b")
    batch = Batch([one, other]).ready().run(other)
    attempt = batch.launch(one)
    batch.add(CancelOrdered(task=one.label, attempt=attempt))
    batch.observe(attempt, AttemptState.FINISHED, elapsed_s=7.0, cancelled=True).collect(attempt)
    batch.judge(attempt, Outcome.REJECTED, reject("output-missing"), cause=Cause.HARNESS, facts=Facts())
    text = shown(batch, width)
    lines = text.splitlines()
    assert " █ 1 accepted  ╱ 1 cancelled" in lines
    columns = " MODELS  tasks  open  accepted  flagged  failed  cancelled  resolved"
    assert [line.startswith(columns) for line in lines if "MODELS" in line] == [True]
    assert any(re.match(r" gpt +2 +0 +1 +0 +0 +1 +1 100 %", line) for line in lines)
    assert " · 1 task  cancelled  eval1" in lines
    assert "   cancelled by the operator" in lines
    assert not [line for line in lines if "…" in line]
    for word in ("NEEDS YOU", "harness", "✗", "1 failed"):
        assert word not in text
    assert max(map(len, lines)) <= width


def test_unknown_cost_tokens_and_duration_are_never_shown_as_zero() -> None:
    one = task("a")
    text = shown(Batch([one]).ready().run(one, facts=Facts()))
    assert "cost          not known: no result of 1 reports it" in text
    assert "tokens        not known: no result of 1 reports it" in text
    assert "$0" not in text
    waiting = shown(Batch([one]).ready())
    assert "no eval has ended yet" in waiting
    assert re.search(r" gpt +1 +1 +0 +0 +0 +– +– +– +– +–$", waiting, re.MULTILINE)


def test_a_zero_that_was_measured_is_shown_as_zero() -> None:
    one = task("a")
    text = shown(Batch([one]).ready().run(one, facts=GOOD_FACTS.model_copy(update={"cost_usd": 0.0, "f2p_success": 0})))
    assert "cost          $0.00   reported by 1 of 1 result" in text
    assert "F2P 0 of 3" in text


@pytest.mark.parametrize("color_system", [None, "truecolor"])
@attack("S12", "S13")
def test_what_hosts_logs_and_models_wrote_cannot_move_paint_or_hide_anything(color_system: str | None) -> None:
    tasks = [task(name) for name in "abc"] + [task("d", "gpt", "eval2"), task("e", "gpt", "eval3")]
    batch = Batch(tasks, ("eval1", "eval2", "eval3")).ready("eval1")
    batch.blocked("eval2", HOSTILE, HOSTILE, HOSTILE).unreachable("eval3", HOSTILE)
    batch.run(tasks[0], "eval1", Outcome.REJECTED, reject("output-empty", HOSTILE, HOSTILE), cause=Cause.MODEL)
    batch.run(tasks[1], "eval1", Outcome.FLAGGED, warn("patch-small", HOSTILE), facts=Facts(error=HOSTILE))
    batch.observe(batch.launch(tasks[2]), AttemptState.RUNNING, phase=HOSTILE)
    text = shown(batch, color_system=color_system, force_terminal=color_system is not None)
    without_color = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert "\x1b" not in without_color
    assert not [character for character in without_color if character < " " and character != "\n"]
    assert "\u202e" not in text
    assert "\u200b" not in text
    assert "[red]boom[/red]" in without_color
    assert "owned" not in text


def test_a_terminal_without_unicode_gets_ascii() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"

    one = task("a")
    batch = Batch([one, task("b", "gpt", "eval2")], ("eval1", "eval2")).ready("eval1").blocked("eval2").run(one)
    text = shown(batch, file=Ascii())
    assert text.isascii()
    assert "-> fleet check eval2" in text


def test_two_hundred_hosts_fit_on_a_page_with_the_troubled_ones_first() -> None:
    hosts = [f"eval{n}" for n in range(200)]
    batch = Batch([task("a", "gpt", "eval0")], hosts).ready(*hosts[:-1]).unreachable("eval199")
    text = shown(batch)
    assert len(text.splitlines()) < 60
    assert "+184 more · of 200: 199 idle, 1 unreachable" in text
    assert text.index("eval199") < text.index("eval0 ")


def test_a_pool_task_that_no_host_has_taken_is_counted_beside_the_hosts() -> None:
    batch = Batch([task("a", "gpt", "eval1", "eval2")], ("eval1", "eval2")).ready()
    assert "1 task for the first free host" in shown(batch)


def test_an_empty_journal_is_a_view_too() -> None:
    text = shown(Batch([]))
    assert "→ fleet dispatch --help" in text


def test_figures_read_as_people_write_them() -> None:
    assert [duration(value) for value in (None, 0.4, 42, 723, 3900, 190_000)] == [
        "–",
        "0.4s",
        "42s",
        "12m 03s",
        "1h 05m",
        "2d 04h",
    ]
    assert [clock(value) for value in (0, 723.9, 3909)] == ["0:00", "12:03", "1:05:09"]
    assert [size(value) for value in (None, 0, 1023, 4300, 3_000_000)] == ["–", "0 B", "1023 B", "4.2 KB", "2.9 MB"]
    assert [money(value) for value in (None, 0, 0.0042, 1234.5)] == ["–", "$0.00", "$0.0042", "$1,234.50"]
    assert [amount(value) for value in (None, 812, 45_300, 1_234_567)] == ["–", "812", "45.3 k", "1.2 M"]
    assert [roughly(value) for value in (12, 840, 7300)] == ["under a minute", "about 14m", "about 2h 02m"]
    assert roughly(3599) == "about 1h 00m"


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_loses_whole_columns_of_the_models_and_cuts_no_title_or_label(width: int) -> None:
    lines = shown(seed_case(), width).splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(" MODELS"))
    assert "…" not in lines[start]
    assert {"tasks", "accepted", "failed", "resolved"} <= set(lines[start].split())
    numbers = lines[lines.index(" NUMBERS") + 1 :]
    for label in ("model failed", "infra failed", "duration"):
        assert any(line.startswith(f" {label} ") for line in numbers)
