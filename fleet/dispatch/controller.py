"""The shell around the pure scheduler: threads carry actions out, one loop owns the state and the journal.

    loop:  actions = decide(state, occupied hosts)      pure
           start each in a thread of its host           one action per host at a time
           take one message from a thread               records, a sign of life, an end, or trouble with the link
           journal its records (fsync), apply them      the state is never ahead of the disk
           with what follows from them (care.due)       in the same append: no other task begins in between

Trouble with a link never changes a task: the host is left alone for a while and then sent the same request again.
"""

from __future__ import annotations

import queue
import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleet.dispatch.clockwatch import LOOK_EVERY_S, ClockWatch
from fleet.dispatch.executor import Executor
from fleet.dispatch.files.journal import Journal, iso_ago, now_iso
from fleet.dispatch.lanes import PHASES, Lane, Live, Message, Observer, Trouble, start_thread
from fleet.dispatch.rules.care import Rules, due, is_ours_to_end
from fleet.dispatch.rules.retries import backoff_s
from fleet.dispatch.rules.scheduler import Action, Begin, Check, Launch, Tell, Wait, decide, may_be_running
from fleet.dispatch.rules.stalls import StallRule, Watch, signs_of
from fleet.dispatch.state.replay import apply
from fleet.dispatch.state.views import UNFIT, AttemptView, BatchState
from fleet.dispatch.state.waiting import WAITING
from fleet.errors import AgentError, AuthFailed, IdentityError, InputError, TransportError
from fleet.model.failures import FailureClass
from fleet.model.findings import HostReport
from fleet.model.names import plain
from fleet.model.records import (
    AnyRecord,
    AttemptIntended,
    AttemptMoving,
    AttemptRefused,
    AttemptStalled,
    CancelOrdered,
    ClockSet,
    HostChecked,
    LinkChanged,
    RetryOrdered,
)
from fleet.model.states import Link, TaskState

BACKOFF_S = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
RECHECK_S = 60.0
"""A host that was not ready is asked again this often while others work: the operator may have repaired it."""
STEADY_S = 30.0
"""A link that has carried signs of life for so long is no longer counted as failing."""
PATIENCE_S = 300.0
"""How long a controller with nothing else to do keeps calling hosts whose evals it cannot see."""


class Controller:
    """Runs a batch until every task has ended, a rule halts it, nothing more can be done, or it is detached."""

    def __init__(
        self,
        journal: Journal,
        executors: Mapping[str, Executor],
        *,
        survey: Callable[[Sequence[str]], Iterable[Sequence[HostReport]]],
        observer: Observer | None = None,
        only: frozenset[str] | None = None,
        collect: bool = True,
        rules: Rules | None = None,
        stall_rule: Callable[[AttemptView], StallRule] = lambda _: StallRule(),
        patience_s: float = PATIENCE_S,
        new_id: Callable[[], str] = lambda: secrets.token_hex(8),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = BatchState()
        self._journal = journal
        self._read_to = 0
        self._clock = clock
        self._delayed: dict[str, float] = {}
        """Task → when a retry of it by policy may begin."""
        self._catch_up()
        self._executors = executors
        self._survey = survey
        self._observer = observer
        self._only = only
        self._collect = collect
        self._rules = replace(rules or Rules(), only=only)
        self._stall_rule = stall_rule
        self._patience_s = patience_s
        self._new_id = new_id
        self._lanes = {name: Lane() for name in executors}
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._stuck_since: float | None = None
        self._clocks = ClockWatch()

    def run(self) -> bool:
        """Run to the end; return False when it was detached. Raises what a worker could not handle."""
        self._show()
        self._survey_first()
        while True:
            # One time for all three: a timer that came due between two of them would be seen by neither, and never again.
            # And from before the look at the clocks: a gap after it makes nothing come due in this round.
            now = self._clock()
            self._mind_the_clock()
            self._start_actions(now)
            if self._nothing_left(now):
                return True
            message = self._next_message(now)
            if message is None:
                continue
            if message.detach:
                return False
            # Signs of life that waited while we stood still are taken for what they are: the first after a gap.
            self._mind_the_clock()
            self._take(message)

    def nudge(self) -> None:
        """Read the journal again: another command has written an order. Safe in a signal handler."""
        self._inbox.put(Message(None, nudge=True))

    def detach(self) -> None:
        """End the loop and leave the evals running. Safe in a signal handler."""
        self._inbox.put(Message(None, detach=True))

    # --- actions out ---

    def _survey_first(self) -> None:
        """Check all hosts that want it in one go, so that their files can be compared; each goes on when it is judged."""
        wanted = [action.host for action in decide(self.state, frozenset(), only=self._only) if isinstance(action, Check)]
        wanted = [name for name in wanted if name in self._executors]
        if not wanted:
            return
        for name in wanted:
            self._occupy(name, "checking")

        def work() -> None:
            asked = dict.fromkeys(wanted)
            try:
                for reports in self._survey(wanted):
                    self._say(None, *(HostChecked(report=report) for report in reports))
                    for report in reports:
                        asked.pop(report.host, None)
                        self._inbox.put(Message(report.host, ended=True))
                for name in asked:
                    self._inbox.put(Message(name, ended=True))
            except BaseException as error:  # noqa: BLE001 - a worker's error is raised in the loop
                self._inbox.put(Message(None, fatal=error))

        start_thread("survey", work)

    def _start_actions(self, now: float) -> None:
        self._catch_up()
        if due(self.state, self._rules):
            # From another command's record, or one of a controller that died before it could write what follows.
            self._record()
        occupied = frozenset(
            name
            for name in self.state.hosts
            if name not in self._lanes or self._lanes[name].busy or (self._lanes[name].resume_at or 0.0) > now
        )
        again = frozenset(name for name, lane in self._lanes.items() if lane.recheck_at is not None and lane.recheck_at <= now)
        delayed = frozenset(label for label, at in self._delayed.items() if at > now)
        for action in decide(self.state, occupied, again, self._only, collect=self._collect, delayed=delayed):
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
        self._occupy(action.host, PHASES[type(action)])
        start_thread(f"{action.host} {PHASES[type(action)]}", self._work, action)

    def _work(self, action: Action) -> None:
        """Carry one action out in this thread; every way it can end becomes a message."""
        host = action.host
        executor = self._executors[host]
        try:
            self._perform(action, executor)
            if not isinstance(action, Check) and self.state.hosts[host].link is not Link.OK:
                self._say(host, LinkChanged(host=host, link=Link.OK))
            self._inbox.put(Message(host, ended=True))
        except (TransportError, AgentError, InputError) as error:
            executor.close()
            self._inbox.put(Message(host, ended=True, trouble=error))
        except BaseException as error:  # noqa: BLE001 - raised in the loop, where the operator sees it
            executor.close()
            self._inbox.put(Message(host, ended=True, fatal=error))

    def _perform(self, action: Action, executor: Executor) -> None:
        if isinstance(action, Check):
            report = executor.check()
            if report.link is not Link.OK:
                executor.close()
            self._say(action.host, HostChecked(report=report))
            return
        assert not isinstance(action, Begin)
        tell = self._teller(action.host)
        if isinstance(action, Tell):
            note = self.state.hosts[action.host].quarantine
            if note is not None:
                executor.quarantine(note, [self.state.attempts[one].task for one in note.attempts], tell)
            return
        attempt = self.state.attempts[action.attempt]
        view = self.state.tasks[attempt.task]
        if isinstance(action, Launch):
            after = tuple(one for one in view.attempts if one != attempt.attempt)
            executor.launch(view.task, attempt, after, tell)
        elif isinstance(action, Wait):
            beat = lambda status: self._inbox.put(Message(action.host, beat=status))  # noqa: E731
            executor.wait(attempt, tell, beat, lambda: self._ended_by_rule(attempt.attempt))
        else:
            executor.collect(view.task, attempt, tell)

    def _ended_by_rule(self, attempt: str) -> bool:
        """Tell whether a rule ordered the attempt's end; an operator's order is sent by the command that wrote it."""
        known = self.state.attempts.get(attempt)
        return known is not None and known.cancel_ordered and known.cancel_by != ""

    def _teller(self, host: str) -> Callable[..., None]:
        return lambda *records: self._say(host, *records)

    def _say(self, host: str | None, *records: AnyRecord) -> None:
        self._inbox.put(Message(host, records=records))

    def _mind_the_clock(self) -> None:
        """Note a wall clock that was set; after having stood still, give every host and our own patience a fresh start."""
        noticed = self._clocks.look()
        if noticed.wall_set_by_s:
            self._record(ClockSet(seconds=round(noticed.wall_set_by_s, 1)))
        if noticed.stood_still_s:
            self._stuck_since = None
            for lane in self._lanes.values():
                lane.watch = None
                if lane.resume_at is not None:
                    lane.resume_at = self._clock() + random.uniform(0.0, 1.0)  # noqa: S311

    # --- messages in ---

    def _next_message(self, now: float) -> Message | None:
        """Block until a thread speaks, the next timer is due, or it is time to look at the clocks."""
        timers = [at for lane in self._lanes.values() if not lane.busy for at in (lane.resume_at, lane.recheck_at) if at]
        timers += self._delayed.values()
        wait_s = min([LOOK_EVERY_S, *(max(0.0, at - now) for at in timers if at > now)])
        try:
            return self._inbox.get(timeout=wait_s)
        except queue.Empty:
            return None

    def _take(self, message: Message) -> None:
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

    def _after(self, host: str, lane: Lane, trouble: Trouble | None) -> None:
        """Note how the way to the host is, and when to go it again."""
        now = self._clock()
        if trouble is None:
            view = self.state.hosts[host]
            if view.link is Link.OK:
                lane.failures, lane.resume_at = 0, lane.rest_until(view.attempt, now)
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

    def _beat(self, lane: Lane, status: Mapping[str, Any]) -> None:
        host = next(name for name, one in self._lanes.items() if one is lane)
        lane.resume_at = None
        if self._clock() - lane.busy_since > STEADY_S:
            lane.failures = 0
        lane.live = replace(lane.live, last_line=plain(str(status.get("last_line") or ""), 300))
        self._watch(host, lane, status)
        if self.state.hosts[host].link is not Link.OK:
            self._record(LinkChanged(host=host, link=Link.OK))

    def _watch(self, host: str, lane: Lane, status: Mapping[str, Any]) -> None:
        """Note when a running eval has stood still for too long, and when it moves again."""
        attempt = self.state.attempts.get(self.state.hosts[host].attempt or "")
        if attempt is None or self.state.tasks[attempt.task].state is not TaskState.RUNNING:
            return
        if lane.watch is None or lane.watch.attempt != attempt.attempt:
            lane.watch = Watch(attempt.attempt)
        watch, now, rule = lane.watch, self._clock(), self._stall_rule(attempt)
        moved = watch.look(signs_of(status), now)
        if moved and attempt.stalled_since:
            self._record(AttemptMoving(attempt=attempt.attempt))
        elif not attempt.stalled_since and 0 < rule.after_s <= watch.idle_s(now):
            idle = round(watch.idle_s(now), 1)
            unknown = watch.signs.unknown(rule)
            found: list[AnyRecord] = [
                AttemptStalled(attempt=attempt.attempt, since=iso_ago(idle), idle_s=idle, unknown=unknown)
            ]
            # Never on half the evidence: a quiet log alone is no reason to end anything. Nor what another controller started.
            if rule.cancel and not unknown and is_ours_to_end(attempt):
                found.append(CancelOrdered(task=attempt.task, attempt=attempt.attempt, by="stall"))
            self._record(*found)

    def _record(self, *records: AnyRecord) -> list[AnyRecord]:
        """Write records and what follows from them durably, in one append; return all that is new in the journal."""
        before = self._catch_up()
        self._journal.append(*records, *due(apply(self.state, *records), self._rules))
        return before + self._catch_up()

    def _catch_up(self) -> list[AnyRecord]:
        """Take in what is new in the journal; the state comes from nowhere else, so that a crash changes nothing of it."""
        written, self._read_to = self._journal.read_from(self._read_to)
        self.state = apply(self.state, *written)
        for record in written:
            if isinstance(record, RetryOrdered) and record.by == "policy" and record.task in self.state.tasks:
                self._delayed[record.task] = self._clock() + backoff_s(self.state.tasks[record.task])
        return written

    def _waits_out(self, now: float) -> bool:
        """Tell whether a task that could run waits for nothing but its back-off."""
        waiting = (label for label, at in self._delayed.items() if at > now and (self._only is None or label in self._only))
        return self.state.halted is None and any(self.state.tasks[label].state is TaskState.PENDING for label in waiting)

    # --- the end ---

    def _nothing_left(self, now: float) -> bool:
        """Tell whether to stop: nothing in flight, and what is left cannot be had by waiting a little longer."""
        lanes = self._lanes.values()
        if any(lane.busy and lane.failures == 0 for lane in lanes):
            self._stuck_since = None
            return False
        if not self._inbox.empty() or self._waits_out(now):
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
