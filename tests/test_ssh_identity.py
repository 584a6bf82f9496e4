"""Who answers is proven before anything is sent to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet.errors import HostKeyChanged, HostKeyUnknown, InputError
from fleet.inventory import Inventory, load_inventory
from fleet.model.hosts import Host
from fleet.transport import SshConnector
from fleet.transport.known_hosts import HostKey, lookup, names_of, pin
from tests.support.catalogue import attack, fault
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[SshdFarm]:
    with SshdFarm(1, tmp_path / "farm", options=["LogLevel DEBUG1"]) as running:
        yield running


def _host(farm: SshdFarm) -> Host:
    return load_inventory(farm.hosts_file).get("eval1")


def _open(host: Host) -> None:
    with SshConnector() as connector:
        connector.open(host).close()


def _logins(farm: SshdFarm) -> int:
    return farm.log("eval1").count("userauth-request")


def test_the_pinned_key_is_let_through(farm: SshdFarm) -> None:
    _open(_host(farm))
    assert _logins(farm) > 0


@attack("S33")
def test_a_changed_key_is_refused_before_any_login_with_both_fingerprints(farm: SshdFarm) -> None:
    old = lookup([farm.known_hosts], names_of("-", farm.addresses["eval1"], farm.port)).keys[0]
    farm.stop_host("eval1")
    farm.start_host("eval1", key=farm.new_key("other"))
    with pytest.raises(HostKeyChanged) as caught:
        _open(_host(farm))
    assert old.fingerprint in caught.value.message
    assert caught.value.message.count("SHA256:") == 2
    assert "--replace" in caught.value.hint
    assert _logins(farm) == 0


@attack("S34")
def test_an_unknown_key_is_refused_before_any_login_and_nothing_is_written(farm: SshdFarm) -> None:
    farm.known_hosts.write_text("")
    with pytest.raises(HostKeyUnknown) as caught:
        _open(_host(farm))
    assert "SHA256:" in caught.value.message
    assert caught.value.hint == "fleet trust eval1"
    assert _logins(farm) == 0
    assert farm.known_hosts.read_text() == ""


@attack("S36")
def test_a_server_that_offers_only_another_key_type_is_refused(farm: SshdFarm) -> None:
    farm.stop_host("eval1")
    farm.start_host("eval1", key=farm.new_key("weaker", "ecdsa"))
    with pytest.raises(HostKeyChanged, match="offers no key of that type"):
        _open(_host(farm))
    assert _logins(farm) == 0


@attack("S36")
def test_a_server_with_several_keys_must_prove_the_pinned_type(farm: SshdFarm) -> None:
    other = farm.new_key("second", "ecdsa")
    public = " ".join(other.with_name("second.key.pub").read_text().split()[:2])
    farm.known_hosts.write_text(f"[{farm.addresses['eval1']}]:{farm.port} {public}\n")
    farm.stop_host("eval1")
    farm.start_host("eval1", options=[f"HostKey {other}"])
    _open(_host(farm))


def test_a_revoked_key_is_refused(farm: SshdFarm) -> None:
    line = farm.known_hosts.read_text()
    farm.known_hosts.write_text(line + "@revoked * " + line.split(" ", 1)[1])
    with pytest.raises(HostKeyChanged, match="revoked"):
        _open(_host(farm))
    assert _logins(farm) == 0


@attack("S34")
def test_accept_new_pins_once_and_refuses_a_change_afterwards(farm: SshdFarm, tmp_path: Path) -> None:
    own = tmp_path / "state" / "known_hosts"
    host = _host(farm).model_copy(update={"known_hosts": (own,), "accept_new_key": True})
    old = os.umask(0)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(_open, [host] * 8))
    finally:
        os.umask(old)
    assert len(own.read_text().splitlines()) == 1
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.parent.stat().st_mode & 0o777 == 0o700
    farm.stop_host("eval1")
    farm.start_host("eval1", key=farm.new_key("other"))
    with pytest.raises(HostKeyChanged):
        _open(host)
    assert len(own.read_text().splitlines()) == 1


@fault("H2")
def test_the_pin_follows_the_name_when_the_address_changes(tmp_path: Path) -> None:
    with SshdFarm(2, tmp_path / "farm") as farm:
        first, second = load_inventory(farm.hosts_file).hosts
        moved = first.model_copy(update={"hop": first.hop.model_copy(update={"address": second.hop.address})})
        key = lookup(first.known_hosts, names_of("-", second.hop.address, farm.port)).keys[0]
        pin(farm.known_hosts, first.hop.host_key_alias, key)
        _open(moved)
        with pytest.raises(HostKeyChanged):
            _open(first)


def test_hashed_names_and_plain_ssh_entries_are_understood(farm: SshdFarm) -> None:
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(farm.known_hosts)], check=True, capture_output=True)
    assert farm.addresses["eval1"] not in farm.known_hosts.read_text()
    farm.known_hosts.chmod(0o600)
    _open(_host(farm))


def test_a_known_hosts_file_that_others_can_change_is_refused(farm: SshdFarm) -> None:
    farm.known_hosts.chmod(0o666)
    with pytest.raises(InputError, match="can be changed by other users"):
        _open(_host(farm))
    farm.known_hosts.chmod(0o660)
    _open(_host(farm))


def test_a_stale_pin_does_not_survive_a_replacement(tmp_path: Path) -> None:
    own = tmp_path / "known_hosts"
    old, new = HostKey("ssh-ed25519", b"old"), HostKey("ssh-ed25519", b"new")
    own.write_text("# kept\n" + old.line("eval1,eval2"))
    own.chmod(0o600)
    pin(own, "eval1", new, replace=True)
    assert lookup([own], ["eval1"]).keys == (new,)
    assert lookup([own], ["eval2"]).keys == (old,)
    assert own.read_text().startswith("# kept\n")


def test_a_host_that_is_not_trusted_costs_nothing_to_the_others(tmp_path: Path) -> None:
    with SshdFarm(3, tmp_path / "farm") as farm:
        inventory: Inventory = load_inventory(farm.hosts_file)
        lines = farm.known_hosts.read_text().splitlines(keepends=True)
        farm.known_hosts.write_text("".join(lines[1:]))
        with SshConnector() as connector:
            with pytest.raises(HostKeyUnknown):
                connector.open(inventory.get("eval1"))
            for name in ("eval2", "eval3"):
                assert connector.open(inventory.get(name)).alive(5)
