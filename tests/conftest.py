"""Hosts for the tests: started when the first test asks for them, given back clean to each test, gone after the run."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleet.inventory import load_inventory
from fleet.transport import SshConnector
from tests.support.agent_host import AgentHost, agent_host
from tests.support.archives import Desk, desk_in, fill
from tests.support.collect_bench import Bench, collect_bench
from tests.support.containers import ContainerFleet
from tests.support.engine import Engine, engine
from tests.support.lite import lite_image, orphans
from tests.support.operator import end_what_was_left
from tests.support.sshd_farm import SshdFarm
from tests.support.yard import Yard

if TYPE_CHECKING:
    from tests.support.buckets import Front

FLEET_SIZE = 4
_CONTAINER_FIXTURES = {"container_fleet", "eval_hosts"}
_OPENSSH_FIXTURES = {"sshd_farm", "farm_hosts"}
_FIRST_BUILD_S = 900
"""The test that comes first pays for building the host image on a new machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the hosts they use, so that `-m 'not containers'` needs no discipline."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & _CONTAINER_FIXTURES:
            item.add_marker(pytest.mark.containers)
        if fixtures & _OPENSSH_FIXTURES:
            item.add_marker(pytest.mark.openssh)
        if item.get_closest_marker("containers") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_FIRST_BUILD_S))


@pytest.fixture(scope="session", autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the settings, pinned keys and SSH agent of whoever runs them."""
    home = tmp_path_factory.mktemp("xdg")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("FLEET_", "HARNESS_")) or name in ("NO_COLOR", "FORCE_COLOR", "SSH_AUTH_SOCK", "COLUMNS"):
                patch.delenv(name)
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, str(home / name.lower()))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_leftovers(own_environment: None) -> Iterator[None]:
    """Fail the run when a process that it started is still there at its end."""
    yield
    left = [_command(pid) for pid in _children(os.getpid())]
    assert not [command for command in left if "resource_tracker" not in command]


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """End the commands that a failed test left, so that it fails alone."""
    yield
    end_what_was_left()


@pytest.fixture(scope="session")
def sshd_farm(no_leftovers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdFarm]:
    """Yield OpenSSH hosts on loopback; ask for `farm_hosts` to get them with empty homes."""
    with SshdFarm(FLEET_SIZE, tmp_path_factory.mktemp("farm")) as farm:
        yield farm


@pytest.fixture
def farm_hosts(sshd_farm: SshdFarm) -> SshdFarm:
    """Return the OpenSSH hosts on loopback, no process of theirs running, their homes empty."""
    for name in sshd_farm.names:
        home = sshd_farm.homes[name]
        end_processes_of(home)
        for entry in home.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    return sshd_farm


@pytest.fixture
def bench(
    farm_hosts: SshdFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Bench]:
    """Return an operator's directory for `fleet collect`, and two OpenSSH hosts where evals have ended."""
    with collect_bench(farm_hosts, tmp_path, monkeypatch, capsys) as found:
        yield found


@pytest.fixture
def yard(farm_hosts: SshdFarm, tmp_path: Path) -> Iterator[Yard]:
    """Return one OpenSSH host to pull from, over an open connection."""
    with SshConnector() as connector:
        yield Yard(farm_hosts, connector.open(load_inventory(farm_hosts.hosts_file).get("eval1")), tmp_path)


@pytest.fixture(scope="session")
def container_fleet(no_leftovers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerFleet]:
    """Yield eval hosts with their own sshd and Docker engine; ask for `eval_hosts` to get them in their first state."""
    with ContainerFleet(FLEET_SIZE, tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def eval_hosts(container_fleet: ContainerFleet) -> ContainerFleet:
    """Return the container hosts as they were when they came up: the harness in the home, nothing running."""
    container_fleet.reset()
    return container_fleet


@pytest.fixture(scope="session")
def moto(no_leftovers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a moto server; ask for `store` to get an empty one."""
    # boto3 takes half a second to import, which most runs need not wait for.
    from tests.support.buckets import moto_server

    with moto_server(tmp_path_factory.mktemp("moto")) as url:
        yield url


@pytest.fixture
def store(moto: str, no_aws: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """Return an empty S3 that judges signatures and policies; its address is in the environment, nobody's credentials are."""
    from tests.support.buckets import front_of

    with front_of(moto) as front:
        front.reset()
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        yield front


@pytest.fixture
def no_aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take away the AWS settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture
def desk(tmp_path: Path, no_aws: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Return an operator's directory for assignments with image archives, with hosts that nobody could reach."""
    return desk_in(tmp_path, capsys, monkeypatch)


@pytest.fixture
def filled(store: Front, desk: Desk) -> Front:
    """Return the store with three archives in a private bucket, the operator with a key that reads them and nothing else."""
    return fill(store, desk)


@pytest.fixture(scope="session")
def docker(no_leftovers: None) -> Iterator[Engine]:
    """Yield a Docker engine that has the image of swebench_lite; no container of its runs may be left in the end."""
    with engine() as running:
        lite_image(running)
        yield running
        assert orphans(running) == []


def end_processes_of(home: Path) -> None:
    """Kill what runs with this HOME: what an earlier test left on a host that shares this machine."""
    # Again until a look finds nothing: a shell may have forked between the look at it and its end.
    while sum(_killed(entry, home) for entry in Path("/proc").iterdir()):
        pass


def _killed(entry: Path, home: Path) -> bool:
    with suppress(OSError, ValueError):
        if f"HOME={home}".encode() in (entry / "environ").read_bytes().split(b"\0"):
            os.kill(int(entry.name), signal.SIGKILL)
            return True
    return False


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end while we look.
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[AgentHost]:
    """Return a host with the agent on it, asked in this process; modules that need it with something on it have their own."""
    with agent_host(tmp_path / "eval1") as one:
        yield one
