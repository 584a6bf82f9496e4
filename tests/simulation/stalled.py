"""A request whose agent stops in the middle of carrying it out, with the locks that it has, and goes on later."""

from __future__ import annotations

from collections.abc import Callable
from threading import Semaphore, Thread

from tests.simulation.disk import Killed


class Stalled:
    """Runs `work` in a thread of its own until it pauses; exactly one of the two threads ever runs, so chance stays chance."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._turn, self._back = Semaphore(0), Semaphore(0)
        self._killed = False
        self.over = False
        self._thread = Thread(target=self._run, name="stalled agent", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            self._work()
        finally:
            self.over = True
            self._back.release()

    def go_on(self) -> None:
        """Let it run until it pauses or is over."""
        self._turn.release()
        self._back.acquire()

    def pause(self) -> None:
        """Called by the work itself: stop here until somebody lets it go on; a kill meanwhile ends it."""
        self._back.release()
        self._turn.acquire()
        if self._killed:
            raise Killed

    def kill(self) -> None:
        """End it where it stands; nothing of its own runs any more but its unwinding."""
        self._killed = True
        if not self.over:
            self.go_on()
        self._thread.join()
