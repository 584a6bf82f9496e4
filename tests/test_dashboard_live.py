"""The live displays: every change is told, a frame fits its terminal, and neither can hold up or hurt the controller."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import threading
import time
from datetime import timedelta

import pytest
from rich.console import Console

from fleet.dashboard.lanes import LaneLive, changes, fit, lanes_of, totals_line
from fleet.dashboard.live import LiveDisplay, PlainDisplay
from fleet.dashboard.terminal_live import LiveView
from fleet.dispatch.state.replay import BatchState
from fleet.model.records import AttemptAdopted
from fleet.model.states import AttemptState, Link
from fleet.model.verdict import Cause, Outcome
from tests.support.batches import Batch, reject, seed_case, task, warn
from tests.support.catalogue import attack

HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]boom[/red] \u202eabc"


def frame(batch: Batch, width: int = 100, height: int = 24, **lanes: LaneLive) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), highlight=False, color_system=None)
    console.print(LiveView(batch.state, lanes, batch.now))
    return console.file.getvalue().splitlines()


def wait_until(condition: object, timeout_s: float = 5.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the display did not show it in time"
        time.sleep(0.01)


def test_a_frame_shows_phase_task_time_and_last_log_line_of_each_host() -> None:
    lines = frame(seed_case(), eval2=LaneLive(last_line="step 12/200"), eval3=LaneLive(phase="checking"))
    assert lines[0].startswith("phase8")
    assert lines[0].endswith("4/12 · 31m 40s · 7.6 evals/h · about 14m left")
    assert "● eval2  running          9:59  1319601/claude/run1  step 12/200" in lines
    assert any(line.startswith("○ eval3  checking") for line in lines)
    assert any(line.startswith("✗ eval5  blocked") and "2 waiting" in line for line in lines)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 12), (60, 8), (20, 3), (200, 50)])
def test_a_frame_never_outgrows_its_terminal(width: int, height: int) -> None:
    hosts = tuple(f"eval{n}" for n in range(60))
    tasks = [task(f"t{n}", "gpt", host) for n, host in enumerate(hosts)]
    batch = Batch(tasks, hosts).ready()
    for one, host in zip(tasks[:30], hosts, strict=False):
        batch.launch(one, host)
    lines = frame(batch, width, height, eval0=LaneLive(last_line="x" * 500))
    assert max(map(len, lines)) < width
    assert len(lines) <= max(height, 6)


def test_what_does_not_fit_is_counted_and_hosts_in_trouble_keep_their_place() -> None:
    hosts = tuple(f"eval{n}" for n in range(50))
    tasks = [task(f"t{n}", "gpt", host) for n, host in enumerate(hosts)]
    batch = Batch(tasks, hosts).ready(*hosts[:-1]).unreachable(hosts[-1])
    for one, host in zip(tasks[:40], hosts, strict=False):
        batch.launch(one, host)
    shown, hidden = fit(lanes_of(batch.state, {}, batch.now), 11)
    assert [lane.status for lane in shown] == ["busy"] * 9 + ["unreachable"]
    assert len(shown) + len(hidden) == 50
    assert "+40 more: 31 busy, 9 idle" in frame(batch, 100, 16)


@attack("S12")
def test_a_log_line_cannot_paint_the_terminal() -> None:
    text = "\n".join(frame(seed_case(), eval2=LaneLive(last_line=HOSTILE, phase=HOSTILE)))
    assert "[red]boom[/red] \\u202eabc" in text
    assert "\x1b" not in text
    assert "owned" not in text


def test_every_change_becomes_one_line_with_the_next_command() -> None:
    one, two = task("a"), task("b")
    batch = Batch([one, two]).ready()
    said: list[str] = []
    state = batch.state

    def note() -> None:
        nonlocal state
        said.extend(changes(state, batch.state))
        state = batch.state

    attempt = batch.launch(one, start=True)
    note()
    batch.link("eval1", Link.UNREACHABLE)
    note()
    batch.link("eval1", Link.OK)
    note()
    batch.finish(attempt, 723.0)
    note()
    batch.collect(attempt).judge(attempt, Outcome.FLAGGED, warn("patch-small"))
    note()
    batch.run(two, "eval1", Outcome.REJECTED, reject("output-empty", "output.jsonl is empty"), cause=Cause.MODEL)
    note()
    batch.blocked("eval1", "disk", "disk is 93 % full")
    note()
    assert said == [
        "a/gpt/run1 running on eval1",
        "eval1 unreachable; its eval goes on  → fleet check eval1",
        "eval1 is reachable again",
        "a/gpt/run1 finished on eval1, exit code 0",
        "a/gpt/run1 flagged on eval1, in 12m 03s, resolved, patch-small",
        "b/gpt/run1 rejected on eval1: output.jsonl is empty  → fleet why b/gpt/run1 --batch phase8",
        "eval1 blocked: disk: disk is 93 % full  → fleet check eval1",
    ]


def test_an_attempt_that_the_host_already_had_is_not_shown_as_a_new_start() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    intended = batch.launch(one, start=False)
    before = batch.state
    batch.add(AttemptAdopted(intended=intended, attempt="theirs", epoch=1, boot_id="boot"))
    assert list(changes(before, batch.state)) == [
        "a/gpt/run1 running on eval1: an attempt that the host already has, followed and not started again"
    ]


def test_the_totals_line_counts_every_task() -> None:
    batch = seed_case()
    line = totals_line(batch.state, batch.now)
    assert line == "4 of 12 tasks done: 2 accepted, 1 flagged, 1 rejected; 2 waiting, 4 blocked, 2 running; about 14m left"


def test_the_plain_display_tells_all_changes_and_the_totals_from_time_to_time() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    stream = io.StringIO()
    with PlainDisplay(stream, every_s=0.05) as display:
        display.update(batch.state, {})
        attempt = batch.launch(one)
        display.update(batch.state, {})
        batch.finish(attempt, 60.0)
        display.update(batch.state, {})
        wait_until(lambda: stream.getvalue().count("tasks done") + stream.getvalue().count("task done") >= 3)
    lines = [re.sub(r"^\d\d:\d\d:\d\d  ", "", line) for line in stream.getvalue().splitlines()]
    assert lines[0] == "0 of 1 task done; 1 waiting"
    assert lines.index("a/gpt/run1 running on eval1") < lines.index("a/gpt/run1 finished on eval1, exit code 0")


def test_a_resumed_batch_starts_with_its_totals_and_not_with_its_past() -> None:
    stream = io.StringIO()
    with PlainDisplay(stream) as display:
        display.update(seed_case().state)
    assert len(stream.getvalue().splitlines()) == 1


def test_updates_from_many_threads_lose_nothing() -> None:
    tasks = [task(f"t{n}") for n in range(40)]
    batch = Batch(tasks).ready()
    states = [batch.state]
    for one in tasks:
        batch.launch(one)
        states.append(batch.state)
    stream, lock = io.StringIO(), threading.Lock()
    remaining = iter(states[1:])
    with PlainDisplay(stream) as display:
        display.update(states[0])

        def push() -> None:
            while True:
                with lock:
                    state = next(remaining, None)
                    if state is None:
                        return
                    display.update(state, {"eval1": LaneLive(last_line="x")})

        threads = [threading.Thread(target=push) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert stream.getvalue().count(" running on eval1") == 40


class Gone(io.StringIO):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("display", [PlainDisplay(Gone()), LiveDisplay(Gone())])
def test_a_terminal_that_went_away_does_not_reach_the_controller(display: PlainDisplay | LiveDisplay) -> None:
    with display:
        for _ in range(3):
            display.update(seed_case().state, {})
            time.sleep(0.01)


def test_the_live_display_redraws_in_place_ticks_and_leaves_a_clean_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a real pseudo-terminal of 90 by 20."""
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.setenv("LINES", "20")
    monkeypatch.setenv("TERM", "xterm-256color")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 90, 0, 0))
    seen = bytearray()

    def drain() -> None:
        try:
            while chunk := os.read(master, 65_536):
                seen.extend(chunk)
        except OSError:
            return

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    batch = seed_case()
    with os.fdopen(slave, "w") as terminal:
        with LiveDisplay(terminal) as display:
            started = time.monotonic()
            for n in range(200):
                display.update(batch.state, {"eval2": LaneLive(last_line=f"step {n} {HOSTILE}")})
                time.sleep(0.002)
            took = time.monotonic() - started
            wait_until(lambda: b"step 199" in seen)
            frames = seen.count(b"phase8")
            wait_until(lambda: seen.count(b"phase8") > frames)
            print("talk from elsewhere", file=sys.stderr)
        assert sys.stderr is sys.__stderr__ or not type(sys.stderr).__module__.startswith("rich")
        terminal.write("END")
    wait_until(lambda: seen.endswith(b"END"))
    os.close(master)
    assert frames <= 4 * (took + 1) + 2
    assert b"owned" not in seen
    assert b"\x1b[2J" not in seen
    assert b"\x1b[?25l" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")
    assert seen.rindex(b"\x1b[2K") > seen.rindex(b"phase8")


def test_an_update_costs_the_controller_next_to_nothing_while_the_terminal_hangs() -> None:
    blocked = threading.Event()

    class Hanging(io.StringIO):
        def write(self, text: str) -> int:
            blocked.wait(5)
            return len(text)

    display = PlainDisplay(Hanging())
    display.__enter__()
    started = time.monotonic()
    for _ in range(100):
        display.update(seed_state())
    assert time.monotonic() - started < 1.0
    blocked.set()
    display.__exit__(None, None, None)


_STATE = seed_case().state


def seed_state() -> BatchState:
    return _STATE


def test_the_journals_phase_is_shown_while_the_controller_says_nothing() -> None:
    one = task("a")
    batch = Batch([one]).ready()
    attempt = batch.launch(one)
    batch.observe(attempt, AttemptState.RUNNING, phase="inference")
    (lane,) = lanes_of(batch.state, {}, batch.now + timedelta(seconds=30))
    assert (lane.phase, lane.task) == ("inference", "a/gpt/run1")
