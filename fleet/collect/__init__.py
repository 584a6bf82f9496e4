"""Brings results here: sealed manifest, hardened rsync into a staging directory, own verification, one exclusive rename."""

from __future__ import annotations

from fleet.collect.provenance import Provenance, read_provenance, task_facts
from fleet.collect.pull import collect_attempt
from fleet.collect.result import AttemptRef, Collected, NumberTaken

__all__ = ["AttemptRef", "Collected", "NumberTaken", "Provenance", "collect_attempt", "read_provenance", "task_facts"]
