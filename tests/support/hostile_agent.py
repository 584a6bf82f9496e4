"""A host whose agent answers whatever a test wants: the interpreter that hosts.yaml names is this program.

The answers are in ~/answers.json on the host: verb → list of frames (JSON values, or text that is sent as it is). `NONCE`
in text stands for the request's nonce.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.sshd_farm import SshdFarm

_PROGRAM = """#!/usr/bin/env -S python3 -I
import json, os, sys
stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
stdin.readline()
while line := stdin.readline():
    request = json.loads(line)
    with open(os.path.expanduser("~/answers.json")) as file:
        answers = json.load(file)
    for frame in answers.get(request["verb"], []):
        if isinstance(frame, str):
            stdout.write(frame.replace("NONCE", request["nonce"]).encode())
        else:
            stdout.write(("<<%s %s>>\\n" % (request["nonce"], json.dumps(frame))).encode())
        stdout.flush()
    if not request.get("more"):
        stdin.read()
"""


class HostileHost:
    """The first host of a farm, taken over; `hosts_file` is the inventory that reaches it."""

    def __init__(self, farm: SshdFarm, directory: Path, **defaults: str) -> None:
        self.name = farm.names[0]
        self.home = farm.homes[self.name]
        program = directory / "agent"
        program.write_text(_PROGRAM)
        program.chmod(0o755)
        self.hosts_file = directory / "hosts.yaml"
        settings = {"alias": "aws-instance-{name}", "ssh_config": str(farm.ssh_config), "known_hosts": str(farm.known_hosts)}
        settings |= {"python": str(program), **defaults}
        self.hosts_file.write_text(json.dumps({"defaults": settings, "hosts": {self.name: None}}))

    def answers(self, **by_verb: Sequence[Any]) -> None:
        """Let the agent answer each verb with these frames."""
        (self.home / "answers.json").write_text(json.dumps(by_verb))


def corrupted(document: Mapping[str, Any], values: Sequence[Any]) -> list[dict[str, Any]]:
    """Return the document with each of its parts, at any depth, replaced by each of `values`, one at a time."""
    found: list[dict[str, Any]] = []
    for path in _paths(document, ()):
        for value in values:
            copy = json.loads(json.dumps(document))
            inner = copy
            for step in path[:-1]:
                inner = inner[step]
            inner[path[-1]] = value
            found.append(copy)
    return found


def _paths(value: Any, path: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [(*path, key) for key, _ in items]
    return below + [deeper for key, inner in items for deeper in _paths(inner, (*path, key))]
