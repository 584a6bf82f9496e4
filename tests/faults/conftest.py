"""Hosts behind links that tests may break: one set for all of them, given back whole and empty to each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import end_processes_of
from tests.support.netns import NetnsFarm


@pytest.fixture(scope="session")
def netns_farm(no_leftovers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetnsFarm]:
    """Yield three hosts in network namespaces; ask for `network` to get them whole."""
    with NetnsFarm(3, tmp_path_factory.mktemp("netns"), options=["LogLevel VERBOSE"]) as farm:
        yield farm


@pytest.fixture
def network(netns_farm: NetnsFarm) -> Iterator[NetnsFarm]:
    """Return the hosts with their links whole, their sshd running, nothing in their homes."""
    farm = netns_farm
    for name in farm.names:
        home = farm.homes[name]
        end_processes_of(home)
        shutil.rmtree(home)
        home.mkdir()
    yield farm
    farm.ways.clear()
    farm.write_ssh_config()
    for name in farm.names:
        farm.heal(name)
        farm.move_back(name)
        if name in farm.listeners:
            farm.stop_host(name)
        farm.start_host(name)
