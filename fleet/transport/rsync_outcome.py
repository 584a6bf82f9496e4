"""What rsync's exit code and first words mean.

Both are the host's to choose: its rsync can print any line, also one that seems to come from this machine. So neither says
that a disk here is full; that is for `fleet.transport.disk` to find out.
"""

from __future__ import annotations

import re
from typing import NoReturn

from fleet.errors import AuthFailed, HostKeyChanged, OutputsChanged, TamperedTransfer, TransferFailed
from fleet.model.names import plain
from fleet.transport.supervised import Ended

_HUNG_UP = re.compile(rb"kex_exchange_identification|Connection (?:closed|reset) by|Connection reset|stdio forwarding failed")
_CUT = re.compile(rb"closed by remote host|client_loop|Broken pipe|Timeout, server|not responding|Connection reset")
"""ssh ends with 255 whether it never came through or was cut off in the middle; these words tell the second."""
_LINK_LOST = 12
_MEANING = {
    1: ("rsync refused its own options", "fleet check HOST shows the version there"),
    3: ("the source directory could not be read", "does the output directory still exist on the host?"),
    5: ("rsync could not start on the host", "fleet check HOST"),
    10: ("the connection broke", "fleet collect"),
    11: ("rsync tells of a disk error, and the disk here is in order", "is the host's disk? then: fleet collect"),
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
    if ended.code == 127 or b"rsync: command not found" in ended.stderr or b"rsync: not found" in ended.stderr:
        raise TransferFailed(f"{host}: rsync is not installed there", hint="apt install rsync (on the host)", host=host)
    if ended.code == 2:
        text = f"{host}: the host's shell spoke before rsync did, so its .bashrc prints something{words}"
        raise TransferFailed(text, hint="is your shell clean? let .bashrc print nothing when it is not interactive", host=host)
    if b"rejecting" in ended.stderr or b"unrequested" in ended.stderr.lower():
        text = f"{host}: the host sent names that nobody asked for{words}"
        raise TamperedTransfer(text, hint="do not trust this host before you know why; nothing was accepted", host=host)
    cut = ended.code == 255 and _CUT.search(ended.stderr) is not None
    meaning, hint = _MEANING.get(_LINK_LOST if cut else ended.code, (f"rsync ended with code {ended.code}", "fleet collect"))
    gone = ended.code == 24 or (ended.code == 23 and b"No such file or directory" in ended.stderr)
    kind = OutputsChanged if gone else TransferFailed
    raise kind(f"{host}: {meaning}{words}", hint=hint.replace("HOST", host), host=host)


def _first_words(stderr: bytes) -> str:
    lines = [line for line in stderr.decode("utf-8", "replace").split("\n") if line.strip()]
    telling = [line for line in lines if not line.startswith("rsync error:")] or lines
    return f" ({plain(telling[0], 200)})" if telling else ""
