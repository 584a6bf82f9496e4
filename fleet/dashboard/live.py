"""Observers for a controller at work: `LiveDisplay` on a terminal, `PlainDisplay` anywhere else.

Both take `update(state, lanes)` from any thread at any rate. Neither ever blocks or fails the controller: a painter thread
does the writing, and a terminal that has gone away only ends the display.
"""

from __future__ import annotations

import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

from fleet.dashboard.lanes import LaneLive, changes, totals_line
from fleet.dispatch.state.replay import BatchState

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["LaneLive", "LiveDisplay", "PlainDisplay"]

MIN_INTERVAL_S = 0.25
"""At most four frames a second, however often the state changes."""
TICK_S = 1.0
SUMMARY_EVERY_S = 60.0


class _Painter(ABC):
    """A thread that calls `_paint` after changes and at least every `_tick` seconds, between `__enter__` and `__exit__`."""

    _tick = TICK_S
    _gap = MIN_INTERVAL_S

    def __init__(self) -> None:
        self._state = BatchState()
        self._lanes: Mapping[str, LaneLive] = {}
        self._wake = threading.Condition()
        self._dirty = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def update(self, state: BatchState, lanes: Mapping[str, LaneLive] | None = None) -> None:
        """Take the newest state; returns at once."""
        with self._wake:
            self._state, self._dirty = state, True
            self._lanes = dict(lanes or {})
            self._wake.notify()

    def __enter__(self) -> Self:
        """Start to display."""
        self._thread = threading.Thread(target=self._run, name="display", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Display the last state and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _run(self) -> None:
        # OSError: the terminal is gone; ValueError: its stream was closed. The evals and the journal do not care.
        with suppress(OSError, ValueError):
            while True:
                with self._wake:
                    if not self._dirty and not self._stopping:
                        self._wake.wait(self._tick)
                    stopping, dirty, self._dirty = self._stopping, self._dirty, False
                    state, lanes = self._state, self._lanes
                self._paint(state, lanes, dirty)
                if stopping:
                    return
                with self._wake:
                    if not self._stopping:
                        self._wake.wait_for(lambda: self._stopping, self._gap)

    @abstractmethod
    def _paint(self, state: BatchState, lanes: Mapping[str, LaneLive], dirty: bool) -> None:
        """Show the newest state; `dirty` tells whether it is another one than last time."""


class LiveDisplay(_Painter):
    """Lanes of all hosts under an overall bar, redrawn in place on stderr; gone when the context ends."""

    def __init__(self, stream: TextIO | None = None, *, no_color: bool = False) -> None:
        super().__init__()
        self._stream = stream
        self._no_color = no_color
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Take over the lower part of the terminal."""
        from fleet.dashboard.terminal_live import open_live

        self._live = open_live(self._stream, no_color=self._no_color)
        with suppress(OSError, ValueError):
            self._live.start()
        return super().__enter__()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the terminal as it was."""
        super().__exit__(kind, error, trace)
        # Still alive = stuck in a terminal that takes no output (Ctrl-S): waiting for it would hold up the controller.
        if self._live is not None and self._thread is not None and not self._thread.is_alive():
            with suppress(OSError, ValueError):
                self._live.stop()

    def _paint(self, state: BatchState, lanes: Mapping[str, LaneLive], dirty: bool) -> None:  # noqa: ARG002
        from fleet.dashboard.terminal_live import LiveView

        if self._live is not None and state.tasks:
            self._live.update(LiveView(state, lanes, datetime.now(UTC)), refresh=True)


class PlainDisplay(_Painter):
    """One line per change on stderr, and the totals every minute: for logs, pipes and screen readers."""

    def __init__(self, stream: TextIO | None = None, every_s: float = SUMMARY_EVERY_S) -> None:
        super().__init__()
        self._stream = stream
        self._every_s = every_s
        self._pending: list[str] = []
        self._begun = False
        self._summed_at = time.monotonic()
        self._tick = min(TICK_S, every_s)
        self._gap = 0.0

    def update(self, state: BatchState, lanes: Mapping[str, LaneLive] | None = None) -> None:
        """Note what changed since the last update; no change is left out, however fast they come."""
        with self._wake:
            if self._begun:
                self._pending.extend(changes(self._state, state))
            elif state.tasks:
                # A resumed batch has a past; it is one line, not five hundred.
                self._begun = True
                self._pending.append(totals_line(state, datetime.now(UTC)))
        super().update(state, lanes)

    def _paint(self, state: BatchState, lanes: Mapping[str, LaneLive], dirty: bool) -> None:  # noqa: ARG002
        with self._wake:
            lines, self._pending = self._pending, []
        if self._begun and time.monotonic() - self._summed_at >= self._every_s:
            self._summed_at = time.monotonic()
            lines.append(totals_line(state, datetime.now(UTC)))
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        stream = self._stream if self._stream is not None else sys.stderr
        stamp, encoding = time.strftime("%H:%M:%S"), stream.encoding or "utf-8"
        for line in lines:
            stream.write(f"{stamp}  {line}\n".encode(encoding, "backslashreplace").decode(encoding))
        if lines:
            stream.flush()
