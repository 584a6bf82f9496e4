"""Makes assignments: datasets × models × runs, minus what is already accepted, spread over hosts."""

from __future__ import annotations

from fleet.plan.planner import Plan, Want, make_plan

__all__ = ["Plan", "Want", "make_plan"]
