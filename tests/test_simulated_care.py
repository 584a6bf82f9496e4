"""The simulation's promises about care can be broken: each safeguard taken away is noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from fleet.dispatch.rules import retries, scheduler
from fleet.model.failures import FailureClass
from fleet.model.states import TaskState
from tests.simulation.agent import AGENT
from tests.simulation.campaign import simulate

WITHIN = 600
"""Histories in which a missing safeguard must show."""


def _as_if_free(state: Any, host: Any, *rest: Any, decide: Callable[..., Any] = scheduler._for_host) -> Any:
    note = host.quarantine
    told = note is not None and note.told
    return decide(state, replace(host, quarantine=None) if told else host, *rest)


def _without_a_count(view: Any) -> bool:
    return bool(view.state is TaskState.LOST and view.failure in (FailureClass.LOST_KILLED, FailureClass.LOST_REBOOT))


SAFEGUARDS = {
    "the scheduler looks at the quarantine": (
        lambda: mock.patch.object(scheduler, "_for_host", _as_if_free),
        "which is in quarantine",
    ),
    "the host looks at its own quarantine": (
        lambda: mock.patch.object(AGENT, "refuse_quarantined", lambda: None),
        "although it is in quarantine",
    ),
    "the policy counts": (
        lambda: mock.patch.object(retries, "will_retry", lambda _state, view: _without_a_count(view)),
        "times by policy after lost",
    ),
}


@pytest.mark.parametrize("what", SAFEGUARDS)
def test_a_missing_safeguard_is_noticed(what: str) -> None:
    plant, sign = SAFEGUARDS[what]
    with plant():
        found = next((seed for seed in range(WITHIN) if sign in "; ".join(simulate(seed).broken)), None)
    assert found is not None, f"not noticed in {WITHIN} histories: {what}"
