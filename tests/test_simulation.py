"""Simulated batches keep every promise, and the simulation notices when a safeguard is taken away."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.simulation.bugs import Bug
from tests.simulation.campaign import campaign, simulate
from tests.simulation.history import History
from tests.simulation.laptop import simulated_files

HISTORIES = 300
FOUND_WITHIN = 1500
"""Histories in which a planted bug must show; most show within a hundred."""

SIGNS = {
    Bug.LOCK_NOT_INHERITED: "runs, and the host says lost",
    Bug.NEW_ID_AFTER_LOST_ANSWER: "was started 2 times, 0 retries ordered",
    Bug.MARKER_AFTER_EXEC: "is started a second time",
    Bug.JOURNAL_AFTER_LAUNCH: "was started and is in no journal",
    Bug.NO_DUPLICATE_CHECK: "repeats the task of",
    Bug.MARKER_NOT_EXCLUSIVE: "runs, and the host says finished",
    Bug.LOST_IS_PENDING: "was started 2 times, 0 retries ordered",
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

    @rule(number=st.integers(0, 11))
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
                self.files.__exit__(None, None, None)


TestBatches = Batches.TestCase
TestBatches.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
