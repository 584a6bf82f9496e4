"""What rsync's exit code and first words mean, and whose trouble it is."""

from __future__ import annotations

import re
from typing import NoReturn

from fleet.errors import AuthFailed, HostKeyChanged, StorageError, TamperedTransfer, TransferFailed
from fleet.model.names import plain
from fleet.transport.supervised import Ended

_LOCAL_DISK = re.compile(rb"No space left on device|Disk quota exceeded|Read-only file system|Input/output error")
_HERE = re.compile(rb"^rsync: \[(?:receiver|generator)\]")
"""rsync says which of its processes speaks; these two run on this machine, and older ones leave it out."""
_HUNG_UP = re.compile(rb"kex_exchange_identification|Connection (?:closed|reset) by|Connection reset|stdio forwarding failed")
_MEANING = {
    1: ("rsync refused its own options", "fleet check HOST shows the version there"),
    3: ("the source directory could not be read", "does the output directory still exist on the host?"),
    5: ("rsync could not start on the host", "fleet check HOST"),
    10: ("the connection broke", "fleet collect"),
    12: ("the link was lost, or the host's rsync broke the protocol", "fleet collect resumes where it stopped"),
    20: ("rsync was interrupted", "fleet collect resumes where it stopped"),
    23: ("some files could not be read on the host", "was the output directory changed after the eval ended?"),
    24: ("files vanished on the host during the transfer", "is something still writing there? fleet why HOST"),
    30: ("the transfer stood still", "fleet collect resumes where it stopped"),
    35: ("the host did not answer in time", "fleet collect resumes where it stopped"),
    255: ("ssh could not reach the host", "fleet check HOST"),
}


def dropped_unheard(ended: Ended) -> bool:
    """Tell whether sshd hung up before the login, as it does above MaxStartups; worth another try."""
    return ended.killed is None and _HUNG_UP.search(ended.stderr) is not None and b"Permission denied" not in ended.stderr


def raise_for(ended: Ended, host: str) -> NoReturn:
    """Raise the error that a failed rsync stands for."""
    words = _first_words(ended.stderr)
    if ended.killed == "deadline":
        raise TransferFailed(f"{host}: the transfer took too long and was ended", hint="fleet collect resumes it", host=host)
    if ended.killed == "limit":
        text = f"{host}: the host sends more than its cap; the transfer was ended"
        raise TamperedTransfer(text, hint="outputs.max_total_mb in the pipeline is the cap", host=host)
    if b"File too large" in ended.stderr:
        text = f"{host}: a file outgrew its cap while it was sent{words}"
        raise TamperedTransfer(text, hint="outputs.max_file_mb in the pipeline is the cap", host=host)
    if b"Host key verification failed" in ended.stderr or b"IDENTIFICATION HAS CHANGED" in ended.stderr:
        text = f"{host}: the host key is not the one proven on this connection{words}"
        raise HostKeyChanged(text, hint=f"fleet trust {host}", host=host)
    if b"Permission denied (" in ended.stderr:
        raise AuthFailed(f"{host}: rsync's ssh was not let in{words}", hint=f"fleet check {host}", host=host)
    full = _local_disk(ended)
    if full:
        text = f"cannot write what {host} sends{_first_words(full)}"
        raise StorageError(text, hint="df -h . ; the host keeps its files", host=host)
    if ended.code == 127 or b"rsync: command not found" in ended.stderr or b"rsync: not found" in ended.stderr:
        raise TransferFailed(f"{host}: rsync is not installed there", hint="apt install rsync (on the host)", host=host)
    if ended.code == 2:
        text = f"{host}: the host's shell spoke before rsync did{words}"
        raise TransferFailed(text, hint="is your shell clean? let .bashrc print nothing when it is not interactive", host=host)
    if b"rejecting" in ended.stderr or b"unrequested" in ended.stderr.lower():
        text = f"{host}: the host sent names that nobody asked for{words}"
        raise TamperedTransfer(text, hint="do not trust this host before you know why; nothing was accepted", host=host)
    meaning, hint = _MEANING.get(ended.code, (f"rsync ended with code {ended.code}", "fleet collect"))
    raise TransferFailed(f"{host}: {meaning}{words}", hint=hint.replace("HOST", host), host=host)


def _local_disk(ended: Ended) -> bytes:
    """Return the line in which rsync complains about a disk of this machine, else nothing.

    The sender, which meets a closed pipe then, may speak before or after it; a file that cannot be created is code 23.
    """
    complaints = [line for line in ended.stderr.split(b"\n") if _LOCAL_DISK.search(line) and b"[sender]" not in line]
    ours = complaints if ended.code == 11 else [line for line in complaints if _HERE.match(line)]
    return ours[0] if ours else b""


def _first_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").split("\n") if line.strip()]
    telling = [line for line in lines if not line.startswith("rsync error:")] or lines
    return f" ({plain(telling[0], 200)})" if telling else ""
