"""What a new journal is made of, decided purely: thousands of simulated losses, and the cases that matter one by one."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.dispatch.files.journal import Journal
from fleet.dispatch.files.journal_line import encode
from fleet.dispatch.recovery.casebook import Silent, Sources
from fleet.dispatch.recovery.evidence import Claim, claims_of
from fleet.dispatch.recovery.rebuild import Rebuilt, _Rebuild, rebuild
from fleet.dispatch.recovery.salvage import records_in
from fleet.errors import StorageError
from fleet.model.failures import FailureClass
from fleet.model.records import (
    AnyRecord,
    AttemptAdopted,
    AttemptIntended,
    AttemptObserved,
    AttemptRefused,
    AttemptStarted,
    BatchOpened,
    CancelOrdered,
    ResultCollected,
    ResultJudged,
    RetryOrdered,
)
from fleet.model.states import AttemptState, Link, TaskState
from fleet.model.verdict import Outcome
from tests.simulation.losses import losses
from tests.support.batches import task

NOW = "2026-11-21T06:00:00.000Z"
LABEL = "t-1/gpt/run1"
SHARED = ("h1", "h2", "h3")
SILENT = Silent(Link.UNREACHABLE, "no answer")


def claim(host: str, attempt: str, state: str = "running", **status: Any) -> Claim:
    key = task("t-1").key.model_dump(mode="json")
    told = {"attempt": attempt, "key": key, "batch": "b", "state": state, "epoch": 1, "sealed": True, **status}
    (found,), unclear = claims_of(host, {"attempts": [told]})
    assert unclear == ""
    return found


def recovered(*records: AnyRecord, hosts: tuple[str, ...] = SHARED, silent: tuple[str, ...] = (), **claims: Claim) -> Rebuilt:
    opening = BatchOpened(
        batch="b", assignment_sha256="0", controller="c", tasks=(task("t-1", "gpt", *hosts),), hosts=dict.fromkeys(SHARED, "p")
    )
    answered = {name: [claims[name]] if name in claims else [] for name in SHARED if name not in silent}
    return rebuild(Sources(opening, records, answered, dict.fromkeys(silent, SILENT), now=NOW))


def intended(attempt: str, host: str, number: int = 1) -> AttemptIntended:
    return AttemptIntended(t=NOW, task=LABEL, host=host, attempt=attempt, number=number)


def started(attempt: str) -> AttemptStarted:
    return AttemptStarted(t=NOW, attempt=attempt, epoch=1, boot_id="x")


def rejected(attempt: str) -> tuple[AnyRecord, ...]:
    return (
        started(attempt),
        AttemptObserved(t=NOW, attempt=attempt, state=AttemptState.FINISHED, rc=0),
        ResultCollected(t=NOW, attempt=attempt, path="t-1/gpt/run1/attempt1", files=1, bytes=1),
        ResultJudged(t=NOW, attempt=attempt, verdict=Outcome.REJECTED),
    )


def test_simulated_laptops_that_lose_their_journal_start_nothing_twice_and_lose_no_result() -> None:
    figures = losses(range(180, 300))
    assert figures.broken == []
    # A property of laptops that have nothing to lose would always hold.
    assert min(figures.held, figures.accepted, figures.running) > 5


@pytest.mark.parametrize("safeguard", ["_held", "_read_claims", "_read_results"])
def test_the_simulation_notices_when_a_safeguard_of_the_recovery_is_taken_away(safeguard: str) -> None:
    with mock.patch.object(_Rebuild, safeguard, lambda *_: {}):
        assert losses(range(190, 400), enough=1).broken


def test_what_a_host_runs_is_followed_and_not_begun_elsewhere() -> None:
    view = recovered(h2=claim("h2", "a1")).state.tasks[LABEL]
    assert (view.state, view.host, view.attempt) == (TaskState.RUNNING, "h2", "a1")


def test_a_task_that_may_be_on_a_silent_host_is_held() -> None:
    made = recovered(silent=("h3",))
    view = made.state.tasks[LABEL]
    assert (view.state, view.failure) == (TaskState.HELD, FailureClass.UNCERTAIN)
    assert "h3" in made.held[LABEL]
    assert recovered(hosts=("h1",), silent=("h3",)).state.tasks[LABEL].state is TaskState.PENDING


def test_an_attempt_that_its_host_has_not_got_is_sent_again_under_its_id() -> None:
    made = recovered(intended("a1", "h1"))
    assert (made.state.tasks[LABEL].state, made.state.tasks[LABEL].attempt) == (TaskState.LAUNCHING, "a1")
    assert made.state.hosts["h1"].attempt == "a1"


def test_an_attempt_that_was_passed_over_is_not_sent_again_though_its_refusal_is_lost() -> None:
    made = recovered(intended("a1", "h1"), h2=claim("h2", "a2"))
    view = made.state.tasks[LABEL]
    assert (view.state, view.attempt) == (TaskState.RUNNING, "a2")
    assert made.state.hosts["h1"].attempt is None
    assert made.state.attempts["a1"].refused == "recovered"


def test_an_attempt_is_not_sent_again_while_a_host_that_may_have_its_successor_is_silent() -> None:
    assert recovered(intended("a1", "h1"), silent=("h2",)).state.tasks[LABEL].state is TaskState.HELD
    # Of its own host there is nothing to fear: whatever it has of the task, it says so when it is asked again.
    assert recovered(intended("a1", "h1"), silent=("h1",)).state.tasks[LABEL].state is TaskState.LAUNCHING


def test_an_ended_task_waits_again_only_on_an_order_that_follows_its_last_attempt() -> None:
    ended = (intended("a1", "h1"), *rejected("a1"))
    assert recovered(*ended).state.tasks[LABEL].state is TaskState.REJECTED
    ordered = RetryOrdered(t=NOW, task=LABEL, after="a1")
    assert recovered(*ended, ordered).state.tasks[LABEL].state is TaskState.PENDING
    consumed = recovered(*ended, ordered, h2=claim("h2", "a2", "lost", reason="killed"))
    assert (consumed.state.tasks[LABEL].state, consumed.state.tasks[LABEL].attempt) == (TaskState.LOST, "a2")
    assert consumed.state.attempts["a2"].number == 2


def test_a_cancel_of_a_waiting_task_holds_unless_something_came_after_it() -> None:
    cancel = CancelOrdered(t=NOW, task=LABEL)
    assert recovered(cancel).state.tasks[LABEL].state is TaskState.CANCELLED
    again = RetryOrdered(t=NOW, task=LABEL)
    assert recovered(cancel, again).state.tasks[LABEL].state is TaskState.PENDING


def test_a_refusal_is_not_believed_against_the_host_that_runs_it() -> None:
    refusal = AttemptRefused(t=NOW, attempt="a1", code="busy", reason="busy", failure=FailureClass.HOST_BUSY)
    made = recovered(intended("a1", "h1"), refusal, h1=claim("h1", "a1"))
    assert made.state.tasks[LABEL].state is TaskState.RUNNING


def test_a_host_cannot_take_over_what_another_one_runs_by_naming_it() -> None:
    made = recovered(intended("a1", "h1"), started("a1"), silent=("h1",), h2=claim("h2", "a1", "finished"))
    assert made.state.attempts["a1"].host == "h1"
    assert any("not believed" in note for note in made.notes)


def test_a_host_that_was_not_given_the_task_stops_it_and_gets_nothing() -> None:
    made = recovered(hosts=("h1", "h2"), h3=claim("h3", "a9"))
    assert "h3 has an attempt of it" in made.held[LABEL]
    assert made.state.attempts == {}


def test_another_batchs_attempt_of_the_same_task_is_followed_unless_it_is_void() -> None:
    theirs = claim("h2", "a7", "finished", batch="other", acked=True, verdict="accepted")
    assert recovered(h2=theirs).state.tasks[LABEL].attempt == "a7"
    void = claim("h2", "a7", "finished", batch="other", acked=True, verdict="rejected")
    assert recovered(h2=void).state.tasks[LABEL].state is TaskState.PENDING


def test_what_a_host_promised_never_to_start_is_not_sent_again() -> None:
    made = recovered(intended("a1", "h1"), h1=claim("h1", "a1", "refused"))
    assert made.state.tasks[LABEL].state is TaskState.PENDING


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_every_undamaged_line_of_a_damaged_journal_is_used_and_no_damaged_one(data: st.DataObject) -> None:
    records = [intended("a1", "h1"), *rejected("a1"), RetryOrdered(t=NOW, task=LABEL, after="a1"), intended("a2", "h2", 2)]
    lines = [encode(record) for record in records]
    number = data.draw(st.integers(0, len(lines) - 1))
    line = bytearray(lines[number])
    where = data.draw(st.integers(0, len(line) - 1))
    line[where] ^= data.draw(st.integers(1, 255))
    found, _ = records_in(b"".join([*lines[:number], bytes(line), *lines[number + 1 :]]))
    others = [record for index, record in enumerate(records) if index != number]
    assert [record for record in found if record in others] == others
    assert all(record in records for record in found)


def test_what_waits_to_write_while_the_journal_is_replaced_is_told_and_not_lost_in_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "b" / "journal.jsonl"
    path.parent.mkdir()
    Journal(path).append(intended("a1", "h1"))
    said: list[str] = []

    def order() -> None:
        try:
            Journal(path).append(CancelOrdered(task=LABEL))
        except StorageError as error:
            said.append(error.message)

    with path.open("rb") as old:
        fcntl.flock(old, fcntl.LOCK_EX)
        writer = threading.Thread(target=order)
        writer.start()
        time.sleep(0.1)
        (tmp_path / "b" / "new").write_bytes(path.read_bytes())
        path.rename(path.with_name("journal.jsonl.damaged-1"))
        (tmp_path / "b" / "new").rename(path)
    writer.join(10)
    assert len(said) == 1 and "was replaced" in said[0]
    assert path.read_bytes() == path.with_name("journal.jsonl.damaged-1").read_bytes()


_KEYS = st.sampled_from(["attempts", "attempt", "key", "state", "batch", "instance_id", "model", "verdict"])
_ANYTHING = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(answer=st.dictionaries(_KEYS, _ANYTHING))
@settings(max_examples=80, deadline=None)
def test_nonsense_from_a_host_is_no_claim(answer: dict[str, Any]) -> None:
    found, unclear = claims_of("h1", answer)
    assert found == []
    assert unclear or isinstance(answer.get("attempts"), list)


def test_another_controllers_eval_stays_another_controllers() -> None:
    journal = (intended("ours", "h1"), AttemptAdopted(t=NOW, intended="ours", attempt="theirs", epoch=1, boot_id="x"))
    once = recovered(*journal, h1=claim("h1", "theirs", batch="another"))
    again = recovered(*once.records, h1=claim("h1", "theirs", batch="another"))
    without = recovered(h1=claim("h1", "theirs", batch="another"))
    for one in (once, again, without):
        assert one.state.tasks[LABEL].state is TaskState.RUNNING
        assert one.state.attempts["theirs"].followed, "a cancel or a rule would end it"


def test_a_batch_without_its_journal_began_with_its_first_attempt_and_no_clock_was_set() -> None:
    times = {"accepted_at": "2026-11-21T04:00:00.000Z", "started_at": "2026-11-21T04:00:01.000Z"}
    state = recovered(h1=claim("h1", "a1", **times)).state
    assert state.opened_at == "2026-11-21T04:00:00.000Z"
    assert not state.clock_set  # the news of the hosts, which stand first, are of NOW
