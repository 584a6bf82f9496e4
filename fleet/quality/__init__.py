"""Readers → facts → rules → verdict: what a result directory proves, and what it does not.

A verdict is a pure function of the files, the task and the thresholds: offline, repeatable, no host needed. The readers are
tolerant and the rules are strict; nothing is guessed, and nothing that a file holds raises an exception.
"""

from fleet.quality.batch import judge_many
from fleet.quality.evidence import Expected
from fleet.quality.images import flag_differing
from fleet.quality.judge import judge
from fleet.quality.kinds import Kind
from fleet.quality.provenance import Provenance, provenance_of
from fleet.quality.rules import BY_CODE, RULES, Rule
from fleet.quality.sources import Source, find_sources
from fleet.quality.store import document, is_collected, read_verdict, write_verdict

__all__ = [
    "BY_CODE",
    "RULES",
    "Expected",
    "Kind",
    "Provenance",
    "Rule",
    "Source",
    "document",
    "find_sources",
    "flag_differing",
    "is_collected",
    "judge",
    "judge_many",
    "provenance_of",
    "read_verdict",
    "write_verdict",
]
