"""What an attacker would write where a name, a path or a value is expected; whatever runs it leaves a mark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.errors import InputError

SHOWABLE = re.compile(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e]*\Z")
"""Text that does nothing to a terminal."""


def refusal(act: Callable[[], object]) -> str:
    """Return the message with which `act` is refused; it may be shown on a terminal, and it is not endless."""
    with pytest.raises(InputError) as caught:
        act()
    assert SHOWABLE.match(caught.value.message)
    assert len(caught.value.message) < 5000
    return caught.value.message


def shell_payloads(mark: Path) -> dict[str, str]:
    """Return texts that create `mark` when a shell, ssh or rsync reads them as anything but data."""
    touch = f"touch {mark}"
    return {
        "semicolon": f"; {touch}",
        "after a name": f"a; {touch}",
        "substitution": f"$({touch})",
        "backtick": f"`{touch}`",
        "pipe": f"a | {touch}",
        "background": f"a & {touch} &",
        "and": f"a && {touch}",
        "newline": f"a\n{touch}\n",
        "newline option": f"a\n  ProxyCommand {touch}",
        "quotes": f"a'; {touch}; '\"; {touch}; \"",
        "ssh option": f"-oProxyCommand={touch}",
        "ssh option in a word": f"a -oProxyCommand={touch.replace(' ', '${IFS}')}",
        "rsync option": f"--rsync-path={touch}",
        "backslash": f"a\\$({touch})",
        "python": f"__import__('os').system('{touch}')",
    }


def broken_names(mark: Path) -> dict[str, str]:
    """Return `shell_payloads` and what is no name for other reasons."""
    return {
        **shell_payloads(mark),
        "path upwards": "../../x",
        "dots": "..",
        "absolute": "/etc/passwd",
        "NUL": "a\0b",
        "10 kB": "a" * 10_240,
        "escape": "a\x1b]0;owned\x07",
        "bidi": "a\u202egpj",
        "zero width": "a\u200bb",
        "not ASCII": "\u0430dmin",
        "template": "{workdir}",
        "ssh token": "%h",
        "space": "a b",
    }
