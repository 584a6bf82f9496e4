"""The way to the hosts, and the only room that knows paramiko, ssh and rsync."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleet.transport.protocol import Connector, PullRequest, PullResult, Session, Transport

if TYPE_CHECKING:
    from fleet.transport.ssh import SshConnector

__all__ = ["Connector", "PullRequest", "PullResult", "Session", "SshConnector", "Transport"]


def __getattr__(name: str) -> Any:
    """Load the SSH library on first use: it costs 60 ms that tests with fakes and offline commands do not need."""
    if name == "SshConnector":
        from fleet.transport.ssh import SshConnector

        return SshConnector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
