"""Public fakes of fleet's seams: the real agent without SSH, and a link that fails on a plan.

connector = LocalConnector({"eval1": tmp_path / "eval1"})
connector = FlakyConnector(connector, lambda host, number: Fault(drop="answer") if number == 0 else None)
"""

from __future__ import annotations

from fleet.testing.flaky import Fault, FlakyConnector, FlakyTransport
from fleet.testing.local import LocalConnector, LocalTransport, local_host

__all__ = ["Fault", "FlakyConnector", "FlakyTransport", "LocalConnector", "LocalTransport", "local_host"]
