"""The shell around the pure scheduler: threads carry actions out, one loop owns the state and the journal.

    loop:  actions = decide(state, occupied hosts)      pure
           start each in a thread of its host           one action per host at a time
           take one message from a thread               records, a sign of life, an end, or trouble with the link
           journal its records (fsync), apply them      the state is never ahead of the disk

Trouble with a link never changes a task: the host is left alone for a while and then sent the same request again.
"""

from __future__ import annotations

import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from fleet.dispatch.executor import Executor
from fleet.dispatch.halt import HaltRule
from fleet.dispatch.journal import Journal, now_iso
from fleet.dispatch.scheduler import Action, Begin, Check, Collect, Launch, Wait, decide, may_be_running
from fleet.dispatch.state import apply
from fleet.dispatch.views import BatchState
from fleet.dispatch.waiting import UNFIT, WAITING
from fleet.errors import AgentError, AuthFailed, FleetError, IdentityError, TransportError
from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.names import plain
from fleet.model.records import (
    AnyRecord,
    AttemptIntended,
    AttemptRefused,
    BatchHalted,
    CancelOrdered,
    HostChecked,
    LinkChanged,
)
from fleet.model.states import Link

BACKOFF_S = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
RECHECK_S = 60.0
"""A host that was not ready is asked again this often while others work: the operator may have repaired it."""
STEADY_S = 30.0
"""A link that has carried signs of life for so long is no longer counted as failing."""
PATIENCE_S = 300.0
"""How long a controller with nothing else to do keeps calling hosts whose evals it cannot see."""


@dataclass(frozen=True)
class Live:
    """What only the running controller knows of a host, for displays."""

    phase: str = ""
    last_line: str = ""
    since: str = ""


class Observer(Protocol):
    """Somebody who is shown each new state, e.g. a terminal display."""

    def update(self, state: BatchState, lanes: Mapping[str, Any]) -> None:
        """Take the newest state; must return at once."""


@dataclass(frozen=True)
class _Message:
    """What a worker thread says; `host` is None for the outside world."""

    host: str | None
    records: tuple[AnyRecord, ...] = ()
    beat: Mapping[str, Any] | None = None
    ended: bool = False
    trouble: TransportError | AgentError | None = None
    fatal: BaseException | None = None
    nudge: bool = False
    detach: bool = False


@dataclass
class _Lane:
    """The controller's own bookkeeping for one host; none of it is worth keeping."""

    busy: bool = False
    busy_since: float = 0.0
    failures: int = 0
    """Troubles in a row."""
    resume_at: float | None = None
    """While set, the host is left alone until then."""
    recheck_at: float | None = None
    live: Live = field(default_factory=Live)


_PHASES = {Check: "checking", Begin: "staging", Launch: "launching", Wait: "running", Collect: "collecting"}


class Controller:
    """Runs a batch until every task has ended, a rule halts it, nothing more can be done, or it is detached."""

    def __init__(
        self,
        journal: Journal,
        executors: Mapping[str, Executor],
        *,
        survey: Callable[[Sequence[str]], Sequence[HostReport]],
        observer: Observer | None = None,
        only: frozenset[str] | None = None,
        collect: bool = True,
        halt: HaltRule | None = None,
        patience_s: float = PATIENCE_S,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = BatchState()
        self._journal = journal
        self._read_to = 0
        self._catch_up()
        self._executors = executors
        self._survey = survey
        self._observer = observer
        self._only = only
        self._collect = collect
        self._halt = halt
        self._patience_s = patience_s
        self._new_id = new_id
        self._clock = clock
        self._lanes = {name: _Lane() for name in executors}
        self._inbox: queue.SimpleQueue[_Message] = queue.SimpleQueue()
        self._stuck_since: float | None = None

    def run(self) -> bool:
        """Run to the end; return False when it was detached. Raises what a worker could not handle."""
        self._show()
        self._survey_first()
        while True:
            # One time for all three: a timer that came due between two of them would be seen by neither, and never again.
            now = self._clock()
            self._start_actions(now)
            if self._nothing_left(now):
                return True
            message = self._next_message(now)
            if message is None:
                continue
            if message.detach:
                return False
            self._take(message)

    def nudge(self) -> None:
        """Read the journal again: another command has written an order. Safe in a signal handler."""
        self._inbox.put(_Message(None, nudge=True))

    def detach(self) -> None:
        """End the loop and leave the evals running. Safe in a signal handler."""
        self._inbox.put(_Message(None, detach=True))

    # --- actions out ---

    def _survey_first(self) -> None:
        """Check all hosts that want it in one go, so that their files can be compared with each other."""
        wanted = [action.host for action in decide(self.state, frozenset(), only=self._only) if isinstance(action, Check)]
        wanted = [name for name in wanted if name in self._executors]
        if not wanted:
            return
        for name in wanted:
            self._occupy(name, "checking")

        def work() -> None:
            try:
                reports = self._survey(wanted)
                self._say(None, *(HostChecked(report=report) for report in reports))
                for name in wanted:
                    self._inbox.put(_Message(name, ended=True))
            except BaseException as error:  # noqa: BLE001 - a worker's error is raised in the loop
                self._inbox.put(_Message(None, fatal=error))

        threading.Thread(target=work, name="survey", daemon=True).start()

    def _start_actions(self, now: float) -> None:
        self._catch_up()
        occupied = frozenset(
            name
            for name in self.state.hosts
            if name not in self._lanes or self._lanes[name].busy or (self._lanes[name].resume_at or 0.0) > now
        )
        due = frozenset(name for name, lane in self._lanes.items() if lane.recheck_at is not None and lane.recheck_at <= now)
        for action in decide(self.state, occupied, due, self._only, collect=self._collect):
            if isinstance(action, Begin):
                self._begin(action)
            else:
                self._start(action)

    def _begin(self, action: Begin) -> None:
        """Journal the attempt; only when that is on disk may the launch be sent."""
        view = self.state.tasks[action.task]
        if view.state not in WAITING:
            # Each record of this round reads the journal again: another command has cancelled or taken the task since.
            self.nudge()
            return
        number = 1 + max((self.state.attempts[one].number for one in view.attempts), default=0)
        intended = AttemptIntended(task=action.task, host=action.host, attempt=self._new_id(), number=number)
        written = self._record(intended)
        cancelled = any(isinstance(record, CancelOrdered) and record.task == action.task for record in written)
        if cancelled or self.state.tasks[action.task].attempt != intended.attempt:
            # Nothing has been sent yet. The operator was told that it would not be started, or `fleet collect` noted another
            # controller's attempt first, and that one counts.
            why = {"code": "cancelled", "reason": "cancelled before it was sent", "failure": FailureClass.CANCELLED}
            self._record(AttemptRefused.model_validate({"attempt": intended.attempt, **why}))
            self.nudge()
            return
        self._start(Launch(action.host, intended.attempt))

    def _start(self, action: Action) -> None:
        lane = self._lanes[action.host]
        lane.recheck_at = None
        self._occupy(action.host, _PHASES[type(action)])
        threading.Thread(target=self._work, args=(action,), name=f"{action.host} {_PHASES[type(action)]}", daemon=True).start()

    def _work(self, action: Action) -> None:
        """Carry one action out in this thread; every way it can end becomes a message."""
        host = action.host
        executor = self._executors[host]
        try:
            self._perform(action, executor)
            if not isinstance(action, Check) and self.state.hosts[host].link is not Link.OK:
                self._say(host, LinkChanged(host=host, link=Link.OK))
            self._inbox.put(_Message(host, ended=True))
        except (TransportError, AgentError) as error:
            executor.close()
            self._inbox.put(_Message(host, ended=True, trouble=error))
        except BaseException as error:  # noqa: BLE001 - raised in the loop, where the operator sees it
            executor.close()
            self._inbox.put(_Message(host, ended=True, fatal=error))

    def _perform(self, action: Action, executor: Executor) -> None:
        if isinstance(action, Check):
            report = executor.check()
            if report.link is not Link.OK:
                executor.close()
            self._say(action.host, HostChecked(report=report))
            return
        assert not isinstance(action, Begin)
        attempt = self.state.attempts[action.attempt]
        view = self.state.tasks[attempt.task]
        tell = self._teller(action.host)
        if isinstance(action, Launch):
            after = tuple(one for one in view.attempts if one != attempt.attempt)
            executor.launch(view.task, attempt, after, tell)
        elif isinstance(action, Wait):
            executor.wait(attempt, tell, lambda status: self._inbox.put(_Message(action.host, beat=status)))
        else:
            executor.collect(view.task, attempt, tell)

    def _teller(self, host: str) -> Callable[..., None]:
        return lambda *records: self._say(host, *records)

    def _say(self, host: str | None, *records: AnyRecord) -> None:
        self._inbox.put(_Message(host, records=records))

    # --- messages in ---

    def _next_message(self, now: float) -> _Message | None:
        """Block until a thread speaks or the next timer is due."""
        timers = [at for lane in self._lanes.values() if not lane.busy for at in (lane.resume_at, lane.recheck_at) if at]
        wait_s = min((max(0.0, at - now) for at in timers if at > now), default=None)
        try:
            return self._inbox.get(timeout=wait_s)
        except queue.Empty:
            return None

    def _take(self, message: _Message) -> None:
        if message.fatal is not None:
            raise message.fatal
        if message.nudge:
            self._catch_up()
        if message.records:
            self._record(*message.records)
        lane = self._lanes.get(message.host or "")
        if lane is None or message.host is None:
            self._show()
            return
        if message.beat is not None:
            self._beat(lane, message.beat)
        if message.ended:
            lane.busy = False
            lane.live = Live()
            self._after(message.host, lane, message.trouble)
        self._show()

    def _after(self, host: str, lane: _Lane, trouble: TransportError | AgentError | None) -> None:
        """Note how the way to the host is, and when to go it again."""
        now = self._clock()
        if trouble is None:
            view = self.state.hosts[host]
            if view.link is Link.OK:
                lane.failures, lane.resume_at = 0, None
            if view.state in UNFIT:
                lane.recheck_at = now + RECHECK_S
            attempt = self.state.attempts.get(view.attempt or "")
            if attempt is not None and attempt.collect_failures:
                lane.resume_at = now + BACKOFF_S[min(attempt.collect_failures, len(BACKOFF_S)) - 1]
            return
        lane.failures += 1
        pause = BACKOFF_S[min(lane.failures, len(BACKOFF_S)) - 1]
        # Jitter: after a switch comes back, fifty hosts must not be called in the same instant.
        lane.resume_at = now + pause * random.uniform(0.7, 1.3)  # noqa: S311
        if isinstance(trouble, AuthFailed | IdentityError):
            lane.resume_at = now + RECHECK_S
        # An agent that answers nonsense is the host's trouble, not its link's, and never the other hosts'.
        link = Link(trouble.link) if isinstance(trouble, TransportError) else Link.OK
        self._record(LinkChanged(host=host, link=link, error=plain(trouble.message, 300)))

    def _beat(self, lane: _Lane, status: Mapping[str, Any]) -> None:
        host = next(name for name, one in self._lanes.items() if one is lane)
        lane.resume_at = None
        if self._clock() - lane.busy_since > STEADY_S:
            lane.failures = 0
        lane.live = replace(lane.live, last_line=plain(str(status.get("last_line") or ""), 300))
        if self.state.hosts[host].link is not Link.OK:
            self._record(LinkChanged(host=host, link=Link.OK))

    def _record(self, *records: AnyRecord) -> list[AnyRecord]:
        """Write records durably; return them and what other commands have written since the journal was last read."""
        self._journal.append(*records)
        written = self._catch_up()
        if self._halt is not None and self.state.halted is None:
            reason = self._halt.verdict(self.state)
            if reason:
                self._journal.append(BatchHalted(reason=reason))
                written += self._catch_up()
        return written

    def _catch_up(self) -> list[AnyRecord]:
        """Take in what is new in the journal; the state comes from nowhere else, so that a crash changes nothing of it."""
        written, self._read_to = self._journal.read_from(self._read_to)
        self.state = apply(self.state, *written)
        return written

    # --- the end ---

    def _nothing_left(self, now: float) -> bool:
        """Tell whether to stop: nothing in flight, and what is left cannot be had by waiting a little longer."""
        lanes = self._lanes.values()
        if any(lane.busy and lane.failures == 0 for lane in lanes):
            self._stuck_since = None
            return False
        if not self._inbox.empty():
            return False
        waiting = {view.host for view in may_be_running(self.state)}
        hopeful = [name for name in waiting if name in self._lanes and self._hopeful(name, now)]
        if not hopeful and not any(lane.busy for lane in lanes):
            return True
        if self._stuck_since is None:
            self._stuck_since = now
        return now - self._stuck_since > self._patience_s

    def _hopeful(self, name: str, now: float) -> bool:
        """Tell whether the host is being asked, or will be again; nobody gets in by asking again with the wrong key."""
        lane = self._lanes[name]
        again = lane.busy or (lane.resume_at or 0.0) > now
        return again and self.state.hosts[name].link in (Link.OK, Link.UNREACHABLE)

    def _occupy(self, host: str, phase: str) -> None:
        lane = self._lanes[host]
        lane.busy, lane.busy_since, lane.resume_at = True, self._clock(), None
        lane.live = Live(phase=phase, since=now_iso())
        self._show()

    def _show(self) -> None:
        if self._observer is not None:
            self._observer.update(self.state, {name: lane.live for name, lane in self._lanes.items()})


def close_all(executors: Mapping[str, Executor]) -> None:
    """Close every connection; a link that fails while it is closed is of no interest."""
    for executor in executors.values():
        try:
            executor.close()
        except (FleetError, OSError):
            continue
