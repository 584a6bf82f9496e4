"""Simulated batches keep every promise, and the simulation notices when a safeguard is taken away."""

from __future__ import annotations

from contextlib import nullcontext
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.simulation.agent import AGENT
from tests.simulation.bugs import Bug
from tests.simulation.campaign import campaign, simulate
from tests.simulation.history import History
from tests.simulation.laptop import simulated_files
from tests.simulation.machine import Machine

HISTORIES = 300
FOUND_WITHIN = 1500
"""Histories in which a planted bug must show; most show within a hundred."""

SIGNS = {
    Bug.LOCK_NOT_INHERITED: "runs, and the host says lost",
    Bug.NEW_ID_AFTER_LOST_ANSWER: "was told that it would not be",
    Bug.MARKER_AFTER_EXEC: "is started a second time",
    Bug.JOURNAL_AFTER_LAUNCH: "was started and is in no journal",
    Bug.NO_DUPLICATE_CHECK: "repeats the task of",
    Bug.MARKER_NOT_EXCLUSIVE: "is started a second time",
    Bug.LOST_IS_PENDING: "was started 2 times, 0 retries ordered",
    Bug.REFUSAL_NOT_NOTED: "was told that it would not be",
    Bug.SILENCE_IS_PROOF: "is told starting, and it is accepted",
    Bug.INTENT_AFTER_CANCEL: "was cancelled before it began",
    Bug.VERDICT_OVERWRITTEN: "was lost and is",
}


def test_no_history_breaks_a_promise() -> None:
    figures = campaign(range(HISTORIES))
    assert [(history.seed, history.broken) for history in figures.broken] == []
    # A simulation in which nothing happens would keep every promise too.
    assert figures.evals > HISTORIES
    assert len(figures.states) > 5 * HISTORIES


@pytest.mark.parametrize("seed", [7, 92, 2053])
def test_a_seed_replays_exactly(seed: int) -> None:
    first, again = simulate(seed), simulate(seed)
    assert len(first.told) > 20
    assert first.told == again.told
    assert [laptop.journal.lines for laptop in first.laptops] == [laptop.journal.lines for laptop in again.laptops]


def test_every_planted_bug_has_its_sign() -> None:
    assert set(SIGNS) == set(Bug) - {Bug.NONE}


@pytest.mark.parametrize("bug", SIGNS, ids=lambda bug: bug.name.lower())
def test_a_planted_bug_is_found(bug: Bug) -> None:
    found = (seed for seed in range(FOUND_WITHIN) if SIGNS[bug] in "; ".join(simulate(seed, bug).broken))
    assert next(found, None) is not None, f"{bug.value}: not noticed in {FOUND_WITHIN} histories"


@pytest.mark.parametrize("superseded", [True, False])
def test_a_unit_that_comes_up_when_another_attempt_is_over_starts_nothing(superseded: bool) -> None:
    """The order of seed 5225, which chance seldom finds: it starts a task again only with the safeguard taken away."""
    broken: list[str] = []
    machine = Machine("h1", Bug.NONE, broken.append)
    machine.enclosure, machine.slow = "unit", 1
    taken = nullcontext() if superseded else mock.patch.object(AGENT, "supersede", lambda attempt: None)
    with taken:
        assert [launched(machine, attempt) for attempt in ("a1", "a2")] == ["internal", "started"]
    late, other = machine.trees
    machine.order_stop("a2")
    for _ in range(6):
        machine.settle(other)
    assert not other.lives
    for _ in range(6):
        machine.settle(late)
    assert dict(machine.starts) == ({"a2": 1} if superseded else {"a1": 1, "a2": 1})
    if superseded:
        assert launched(machine, "a1") == "duplicate"


def launched(machine: Machine, attempt: str) -> str:
    request = {
        "verb": "launch",
        "attempt": attempt,
        "key": {"instance_id": "t1"},
        "spec": {"argv": ["eval"], "workdir": "~/work", "outputs": {"root": "{output_dir}"}},
        "spec_sha256": "0",
        "after": [],
        "nonce": "0",
    }
    frame = (machine.call(request) or [{}])[-1]
    return str(frame.get("outcome") or frame["error"]["code"])


class Batches(RuleBasedStateMachine):
    """The same rules, chosen by Hypothesis, which shrinks a failing history to the steps that matter."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.history = History(seed)
        self.files = simulated_files()
        self.files.__enter__()

    @rule(times=st.integers(1, 12))
    def work(self, times: int) -> None:
        """Let controllers and machines do what they would do by themselves."""
        for _ in range(times):
            able = [step for step, _, enabled in self.history.usual if enabled()]
            self.history.random.choice(able)()

    @rule(number=st.integers(0, 13))
    def trouble(self, number: int) -> None:
        self.history.all_troubles[number][0]()

    @precondition(lambda self: hasattr(self, "history"))
    @invariant()
    def promises_hold(self) -> None:
        self.history.hold()

    def teardown(self) -> None:
        if hasattr(self, "history"):
            try:
                self.history.end()
            finally:
                self.history.close()
                self.files.__exit__(None, None, None)


TestBatches = Batches.TestCase
TestBatches.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
