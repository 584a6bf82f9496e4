"""paramiko, imported the way fleet needs it; every other file of this room takes it from here."""

from __future__ import annotations

import logging
import sys

# paramiko imports invoke (45 ms) only to run `Match exec` commands of an ssh_config, which fleet never lets it do.
_hidden = "invoke" not in sys.modules
if _hidden:
    sys.modules["invoke"] = None  # type: ignore[assignment]
try:
    import paramiko
    from paramiko.agent import Agent, AgentKey
    from paramiko.common import (
        MSG_CHANNEL_EXTENDED_DATA,
        MSG_REQUEST_FAILURE,
        MSG_REQUEST_SUCCESS,
        cMSG_CHANNEL_REQUEST,
        cMSG_CHANNEL_WINDOW_ADJUST,
        cMSG_GLOBAL_REQUEST,
    )
    from paramiko.message import Message
    from paramiko.packet import Packetizer
    from paramiko.pkey import UnknownKeyType
    from paramiko.ssh_exception import IncompatiblePeer
finally:
    if _hidden:
        del sys.modules["invoke"]

# Without a handler paramiko's errors, tracebacks included, would be printed to stderr by logging's last resort.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

__all__ = [
    "MSG_CHANNEL_EXTENDED_DATA",
    "MSG_REQUEST_FAILURE",
    "MSG_REQUEST_SUCCESS",
    "Agent",
    "AgentKey",
    "IncompatiblePeer",
    "Message",
    "Packetizer",
    "UnknownKeyType",
    "cMSG_CHANNEL_REQUEST",
    "cMSG_CHANNEL_WINDOW_ADJUST",
    "cMSG_GLOBAL_REQUEST",
    "paramiko",
]
