"""The catalogue of faults and attacks, by id: what each test of them is marked with, and what none can do here.

    @fault("N1")            a test that injects the fault and asserts what must follow from it
    @attack("S25")          a test that tries the attack and asserts that it fails

`tests/test_catalogue.py` reads these marks from the sources: a row without a test is a failure, so is a mark without a row.
`python -m tests.support.catalogue` prints the rows with the tests of each.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

fault = pytest.mark.fault
attack = pytest.mark.attack

FAULTS = {
    "C1": "the controller is killed at any step of a launch",
    "C2": "the controller is killed while it collects",
    "C3": "Ctrl-C, SIGTERM and SIGHUP, at any time, also twice",
    "C4": "the laptop sleeps, and its connections die meanwhile",
    "C5": "the same batch is started twice on one machine",
    "C6": "two operators with two machines and the same hosts",
    "C7": "the controller's disk is full",
    "C8": "the journal is torn, cut, garbled, empty or gone",
    "C9": "the batch directory is read-only, another user's, or a link",
    "C10": "fsync or rename of the journal fails",
    "C11": "descriptors or threads run out",
    "C12": "the controller's clock jumps by a day",
    "C13": "no terminal, closed stdin, a reader that goes away",
    "C14": "the host has another version of the agent",
    "N1": "packets to a host vanish",
    "N2": "a server accepts and never speaks",
    "N3": "the network parts while a command runs",
    "N4": "the request arrives and the answer is lost",
    "N5": "the connection is reset or closed after any number of bytes",
    "N6": "bytes are changed on the way",
    "N7": "packets are lost, the line is slow",
    "N8": "links fail and come back one by one",
    "N9": "sshd restarts, or refuses under load",
    "N10": "names no longer resolve, or resolve to another address",
    "N11": "a middlebox forgets an idle connection",
    "H1": "the host reboots during an eval",
    "H2": "the host comes back with another address",
    "H3": "another machine answers at the host's address",
    "H4": "the host's disk fills up during an eval",
    "H5": "no space, or no inodes, before a launch",
    "H6": "the host's disk becomes read-only or fails",
    "H7": "eval, supervisor, runner or engine are killed for want of memory",
    "H8": "the host hangs",
    "H9": "sshd is dead and the host is not",
    "H10": "the login shell prints, sleeps or exits",
    "H11": "a program that the host needs is missing or too old",
    "H12": "the host kills a user's processes at logout",
    "H13": "an eval runs that fleet did not start",
    "H14": "lock and run directory are deleted while an eval runs",
    "H15": "a process id is used again",
    "H16": "the host's clock is two hours off",
    "D1": "the Docker engine is down at launch",
    "D2": "the Docker engine is killed during an eval",
    "D3": "the eval's container is killed",
    "D4": "a dead attempt leaves a container running",
    "D5": "the image is another one than it should be",
    "D6": "images fill the disk",
    "E1": "exit code and outputs contradict each other",
    "E2": "the eval never ends, in silence or with endless output",
    "E3": "the eval leaves children, sessions and containers behind",
    "E4": "the eval ignores SIGTERM",
    "E5": "the eval closes descriptors and kills its parent",
    "E6": "the eval kills by name and prunes containers",
    "E7": "the eval writes into another attempt's directory",
    "T1": "ssh dies during a transfer",
    "T2": "a transfer stands still",
    "T3": "this machine's disk fills up during a transfer",
    "T4": "bytes change, size and time do not",
    "T5": "a file vanishes or grows during a transfer",
    "T6": "files are too large, or links",
    "T7": "two collectors bring the same result",
    "T8": "outputs are not the JSON that they should be",
    "T9": "the assignment file is wrong in any way, or changes",
    "T10": "the outputs are those of another instance",
    "O1": "a cancel of what has ended, is foreign, or unknown; cancelled twice",
    "O2": "a host is taken from hosts.yaml while its eval runs",
    "O3": "the wrong key, a key open to others, an empty agent",
    "O4": "the collected results are deleted",
    "O5": "two models, one instance, one host",
}

ATTACKS = {
    "S1": "links to files outside among the outputs",
    "S2": "devices, pipes, sockets, setuid files among the outputs",
    "S3": "a remote rsync that sends more than was asked for",
    "S4": "file names that are options, escapes, paths or twins",
    "S5": "a link planted where the next transfer will write",
    "S6": "sparse, countless and endless files",
    "S7": "a sender that sleeps, floods, or lifts the client's timeout",
    "S8": "a file that becomes a link between list and transfer",
    "S9": "changed bytes under an unchanged size and time",
    "S10": "a host that lies consistently",
    "S11": "another program that calls itself rsync",
    "S12": "terminal escapes in logs",
    "S13": "invisible and reordering characters in names",
    "S14": "JSON made to exhaust or deceive a parser",
    "S15": "wrong types everywhere",
    "S16": "archive bombs",
    "S17": "markup in every field that a page shows",
    "S18": "a foreign Host header (DNS rebinding)",
    "S19": "a foreign Origin, a cross-site form",
    "S20": "no token, a wrong one, one in the address",
    "S21": "a listener that is not on loopback",
    "S22": "paths in log addresses",
    "S23": "slow, many and huge requests",
    "S24": "shell syntax, options, paths and control characters in a task's fields",
    "S25": "a host name that is an option",
    "S26": "a user name that ssh would expand",
    "S27": "an ssh_config whose Match exec runs a host's name",
    "S28": "a ProxyCommand fed with a host name",
    "S29": "environment values as shell text",
    "S30": "a planted configuration of an SSH library",
    "S31": "remote paths as shell text",
    "S32": "oversized and malformed requests to the agent",
    "S33": "a changed host key",
    "S34": "an unknown host key",
    "S35": "a library default that accepts any key",
    "S36": "a server that offers only another type of key",
    "S37": "a host that asks for the agent, X11 or ports",
    "S38": "secrets in argument lists, on either end",
    "S39": "a secret in anything written or printed",
    "S40": "a umask that gives everything to everyone",
    "S41": "a prepared agent directory of somebody else",
    "S42": "secrets in a host's own output",
    "S43": "a replaced image archive",
    "S44": "a bucket open to everyone, credentials that can do too much",
    "S45": "orders with an old epoch",
    "S46": "another user of the controller's machine",
}

NOT_INJECTED: dict[str, str] = {}
"""Rows, or parts of them, that cannot be produced on a test machine, with the reason; docs/guarantees.md lists the same."""


def marks() -> dict[str, list[str]]:
    """Return row → tests marked with it (`file::test`, or `file` for a whole file), read from the sources."""
    found: dict[str, list[str]] = defaultdict(list)
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree):
            named = isinstance(node, ast.FunctionDef | ast.ClassDef)
            for call in ast.walk(ast.Module(list(node.decorator_list), [])) if named else _module_marks(node):
                for row in _rows(call):
                    where = f"{path.relative_to(root)}::{node.name}" if named else str(path.relative_to(root))
                    found[row].append(where)
    return dict(found)


def _module_marks(node: ast.AST) -> list[ast.AST]:
    is_mark = isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == "pytestmark" for one in node.targets)
    return list(ast.walk(node.value)) if is_mark and isinstance(node, ast.Assign) else []


def _rows(call: ast.AST) -> list[str]:
    if not isinstance(call, ast.Call):
        return []
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name not in ("fault", "attack"):
        return []
    return [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]


if __name__ == "__main__":
    covered = marks()
    for row, title in {**FAULTS, **ATTACKS}.items():
        print(f"{row:4} {len(covered.get(row, ())):3}  {title}")
        for test in covered.get(row, ()):
            print(f"          {test}")
