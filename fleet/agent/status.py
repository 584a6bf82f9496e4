"""From a host's account of an attempt, of which no byte is trusted, to the journal's records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.model.names import plain
from fleet.model.records import AttemptObserved, AttemptStarted
from fleet.model.states import AttemptState

MAX_REASON = 500
MAX_WORD = 64
MAX_NUMBER = 2**53


def state_of(status: Mapping[str, Any]) -> AttemptState:
    """Return the state in a host's status; a word that is not one is UNKNOWN."""
    try:
        return AttemptState(str(status.get("state")))
    except ValueError:
        return AttemptState.UNKNOWN


def identity_of(status: Mapping[str, Any]) -> tuple[int, str]:
    """Return the attempt's epoch (0: not known) and the boot id it started under."""
    epoch = status.get("epoch")
    return whole(epoch) or 0, _word(status, "boot_id", MAX_WORD)


def started_record(attempt: str, status: Mapping[str, Any]) -> AttemptStarted:
    """Return the record of an attempt that the host has durably taken."""
    epoch, boot_id = identity_of(status)
    return AttemptStarted(attempt=attempt, epoch=epoch, boot_id=boot_id, started_at=_word(status, "started_at", MAX_WORD))


def observed_record(attempt: str, status: Mapping[str, Any], state: AttemptState | None = None) -> AttemptObserved:
    """Return the record of what the host says; `state` where the controller knows better than the word in it."""
    return AttemptObserved(
        attempt=attempt,
        state=state_of(status) if state is None else state,
        reason=_word(status, "reason", MAX_REASON),
        rc=whole(status.get("rc")),
        timed_out=status.get("timed_out") is True,
        cancelled=status.get("cancelled") is True,
        elapsed_s=amount(status.get("elapsed_s")),
    )


def amount(value: Any) -> float | None:
    """Return a number that can be counted with; a host may send NaN, or an integer too large for a float."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < MAX_NUMBER
    return float(value) if usable else None


def whole(value: Any) -> int | None:
    """Return an integer of a sensible size."""
    return value if type(value) is int and abs(value) < MAX_NUMBER else None


def part(answer: Any, name: str) -> dict[str, Any]:
    """Return an object of an answer, an empty one when there is none."""
    value = answer.get(name) if isinstance(answer, Mapping) else None
    return value if isinstance(value, dict) else {}


def listed(answer: Any) -> list[dict[str, Any]]:
    """Return the attempts in an answer; what is not an object is left out."""
    value = answer.get("attempts") if isinstance(answer, Mapping) else None
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _word(status: Mapping[str, Any], name: str, limit: int) -> str:
    return plain(str(status.get(name) or ""), limit)
