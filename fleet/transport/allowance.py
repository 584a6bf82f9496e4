"""How many files this machine lets a process have open, and how many hosts fit into that."""

from __future__ import annotations

import resource
from contextlib import suppress

from fleet.errors import InputError

_OWN = 32
"""Terminal, journal, lock, name lookups, what libraries keep open."""
_CONNECTION = 2
_WORK = 8
"""The pipes of one rsync, the files of one transfer."""
_ENOUGH = 65_536


def allowed() -> int:
    """Return how many files this process may have open, after raising its own limit as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = _ENOUGH
    if soft != resource.RLIM_INFINITY and soft < min(hard, _ENOUGH):
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _ENOUGH), resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def affordable(wanted: int, kept: int = 0) -> int:
    """Return how many hosts, at most `wanted`, can be worked on at once beside `kept` connections that stay open.

    InputError when not even one can: found out later, it would look as if the hosts were out of reach.
    """
    limit = allowed()
    room = (limit - _OWN - kept * _CONNECTION) // (_CONNECTION + _WORK)
    if room < 1:
        need = _OWN + kept * _CONNECTION + _CONNECTION + _WORK
        raise InputError(
            f"{kept} hosts at once need {need} open files, and this machine allows {limit}",
            hint=f"ulimit -n {max(1024, 2 * need)}, or fewer hosts at a time: --hosts PATTERN",
        )
    return min(wanted, room)
