"""No code path accepts a host key unseen, not even by a library's default."""

from __future__ import annotations

import re
from pathlib import Path

import paramiko
import pytest

import fleet
from fleet.errors import HostKeyUnknown
from fleet.inventory import load_inventory
from fleet.transport import SshConnector
from tests.support.catalogue import attack
from tests.support.sshd_farm import SshdFarm

PACKAGE = Path(fleet.__file__).parent


@attack("S35")
def test_no_source_names_a_policy_that_accepts_unknown_keys() -> None:
    forbidden = re.compile(r"AutoAddPolicy|WarningPolicy|SSHClient|StrictHostKeyChecking[ =\"']+(?:no|off|accept-new)")
    sources = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "remote_scripts").rglob("*.py")]
    assert len(sources) > 20
    found = [str(path) for path in sources if forbidden.search(path.read_text())]
    assert found == []


def test_only_the_transport_room_and_the_embedded_demo_hosts_know_an_ssh_library() -> None:
    importing = re.compile(r"^\s*(?:import|from)\s+paramiko\b", re.MULTILINE)
    found = {path.parent.name for path in PACKAGE.rglob("*.py") if importing.search(path.read_text())}
    assert found == {"transport"}


@attack("S35")
@pytest.mark.openssh
def test_the_library_policies_are_never_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a host key policy of the library was asked")

    monkeypatch.setattr(paramiko.MissingHostKeyPolicy, "missing_host_key", never)
    for policy in (paramiko.AutoAddPolicy, paramiko.WarningPolicy, paramiko.RejectPolicy):
        monkeypatch.setattr(policy, "missing_host_key", never)
    with SshdFarm(2, tmp_path / "farm") as farm, SshConnector() as connector:
        inventory = load_inventory(farm.hosts_file)
        farm.known_hosts.write_text(farm.known_hosts.read_text().splitlines()[0] + "\n")
        assert connector.open(inventory.get("eval1")).alive(5)
        with pytest.raises(HostKeyUnknown):
            connector.open(inventory.get("eval2"))
