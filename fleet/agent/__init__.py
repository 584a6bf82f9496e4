"""Typed calls of the host agent's verbs (remote_scripts/fleet_host.py)."""

from fleet.agent.client import AgentClient, LogPiece, SyncFile, agent_on, spec_digest

__all__ = ["AgentClient", "LogPiece", "SyncFile", "agent_on", "spec_digest"]
