"""`fleet trust` pins what a person has seen, `fleet hosts` shows what is pinned; nothing is accepted silently."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.catalogue import attack
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[SshdFarm]:
    with SshdFarm(2, tmp_path / "farm", options=["LogLevel DEBUG1"]) as running:
        running.known_hosts.write_text("")
        yield running


def _fleet(farm: SshdFarm, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "fleet", *arguments, "--hosts-file", str(farm.hosts_file)]
    environment = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment, check=False)


def _json(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document = json.loads(done.stdout)
    assert isinstance(document, dict)
    return document


def _fingerprint(farm: SshdFarm, name: str) -> str:
    key = farm.directory / "sshd" / f"{name}.key.pub"
    return subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True).stdout.split()[1]


@attack("S34")
def test_without_a_person_and_without_yes_nothing_is_pinned(farm: SshdFarm) -> None:
    done = _fleet(farm, "trust", "eval1")
    assert done.returncode == 1
    assert _fingerprint(farm, "eval1") in done.stderr
    assert "--fingerprint" in done.stderr
    assert farm.known_hosts.read_text() == ""


@attack("S34")
def test_yes_pins_after_showing_and_tries_no_login(farm: SshdFarm) -> None:
    done = _fleet(farm, "trust", "eval*", "--yes")
    assert done.returncode == 0, done.stderr
    assert _fingerprint(farm, "eval1") in done.stderr
    assert len(farm.known_hosts.read_text().splitlines()) == 2
    assert farm.known_hosts.stat().st_mode & 0o777 == 0o600
    assert "userauth-request" not in farm.log("eval1")
    again = _json(_fleet(farm, "trust", "eval1", "--json"))
    assert again["schema"] == "fleet.trust/1"
    assert again["results"][0]["state"] == "already pinned"


@attack("S34")
def test_a_fingerprint_is_compared(farm: SshdFarm) -> None:
    wrong = _fleet(farm, "trust", "eval1", "--fingerprint", _fingerprint(farm, "eval2"))
    assert wrong.returncode == 16
    assert "→ compare on the machine's own console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub" in wrong.stderr
    assert farm.known_hosts.read_text() == ""
    assert _fleet(farm, "trust", "eval1", "--fingerprint", _fingerprint(farm, "eval1")).returncode == 0
    assert _fleet(farm, "trust", "eval*", "--fingerprint", "SHA256:x").returncode == 1


@attack("S33")
def test_a_changed_key_needs_replace(farm: SshdFarm) -> None:
    assert _fleet(farm, "trust", "eval1", "--yes").returncode == 0
    before = farm.known_hosts.read_text()
    farm.stop_host("eval1")
    farm.start_host("eval1", key=farm.new_key("other"))
    refused = _fleet(farm, "trust", "eval1", "--yes")
    assert refused.returncode == 16
    assert "fleet trust eval1 --replace" in refused.stderr
    assert farm.known_hosts.read_text() == before
    assert _fleet(farm, "trust", "eval1", "--yes", "--replace").returncode == 0
    assert len(farm.known_hosts.read_text().splitlines()) == 1
    assert farm.known_hosts.read_text() != before


def test_a_host_that_is_down_does_not_keep_the_other_from_being_pinned(farm: SshdFarm) -> None:
    farm.stop_host("eval1")
    done = _fleet(farm, "trust", "eval1", "eval2", "--yes", "--json")
    assert done.returncode == 4
    assert [result["state"] for result in _json(done)["results"]] == ["error", "pinned"]


def test_the_way_through_a_bastion_is_pinned_from_the_near_end(tmp_path: Path) -> None:
    with SshdFarm(2, tmp_path / "farm", bastion=True) as farm:
        farm.known_hosts.write_text("")
        done = _fleet(farm, "trust", "eval*", "--yes", "--json")
        assert done.returncode == 0, done.stderr
        assert [result["alias"] for result in _json(done)["results"]] == ["bastion", "aws-instance-eval1", "aws-instance-eval2"]
        hosts = _json(_fleet(farm, "hosts", "--json"))["hosts"]
        assert all(len(host["pinned"]) == 1 for host in hosts)


def test_hosts_shows_the_inventory_as_resolved(farm: SshdFarm) -> None:
    shown = _fleet(farm, "hosts")
    assert shown.returncode == 0
    assert shown.stdout.count("not pinned") == 2
    assert f"{farm.user}@{farm.addresses['eval1']}:{farm.port}" in shown.stdout
    document = _json(_fleet(farm, "hosts", "@eval", "!eval2", "--json"))
    assert document["schema"] == "fleet.hosts/1"
    assert [host["name"] for host in document["hosts"]] == ["eval1"]
    assert document["groups"] == {"eval": ["eval1"]}
    typo = _fleet(farm, "hosts", "evla1")
    assert typo.returncode == 1
    assert "did you mean 'eval1'" in typo.stderr


def test_showing_the_inventory_loads_no_ssh_library(farm: SshdFarm) -> None:
    argv = [sys.executable, "-X", "importtime", "-m", "fleet", "hosts", "--hosts-file", str(farm.hosts_file)]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True)
    assert "fleet.inventory" in done.stderr
    assert "paramiko" not in done.stderr
