"""Consistency and readiness of hosts: one file per check, all asked in one round trip, judged here."""

from __future__ import annotations

from fleet.checks.base import Expectation
from fleet.checks.reference import expectations
from fleet.checks.survey import check_as_they_answer, check_hosts, judge_host, no_link_report, questions_for

__all__ = [
    "Expectation",
    "check_as_they_answer",
    "check_hosts",
    "expectations",
    "judge_host",
    "no_link_report",
    "questions_for",
]
