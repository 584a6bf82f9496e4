"""Bugs that can be planted: a simulator that finds none of them proves nothing."""

from __future__ import annotations

from enum import Enum


class Bug(Enum):
    """One safeguard taken away."""

    NONE = "nothing is broken"
    LOCK_NOT_INHERITED = "the eval does not inherit the host lock"
    NEW_ID_AFTER_LOST_ANSWER = "a launch without an answer is given up, and the task gets a new attempt id"
    MARKER_AFTER_EXEC = "the start marker is written after the eval was executed"
    JOURNAL_AFTER_LAUNCH = "the attempt id is journaled after the launch was sent"
    NO_DUPLICATE_CHECK = "the host does not look for another attempt of the same task"
    MARKER_NOT_EXCLUSIVE = "the start marker overwrites the one that is there, and a second supervisor goes on"
    LOST_IS_PENDING = "a lost task waits for a host again, without an order"
    REFUSAL_NOT_NOTED = "a refusal counts at once, and the host keeps no note of it"
    SILENCE_IS_PROOF = "who waits takes silence for a proof, also while there is nothing to watch"
    INTENT_AFTER_CANCEL = "an intent that another command's cancel forestalled counts"
    VERDICT_OVERWRITTEN = "a late report of the host moves a task that has ended"
