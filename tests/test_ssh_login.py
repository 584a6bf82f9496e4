"""Only keys open a door: identity files first, then ssh-agent, and every refusal names the file and its fix."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.errors import AuthFailed
from fleet.inventory import load_inventory
from fleet.model.hosts import Host
from fleet.transport import PullRequest, SshConnector
from tests.support.catalogue import fault
from tests.support.sshd_farm import SshdFarm

pytestmark = pytest.mark.openssh


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdFarm]:
    with SshdFarm(1, tmp_path_factory.mktemp("login") / "farm") as running:
        yield running


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> Iterator[SshConnector]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with SshConnector() as opened:
        yield opened


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connector: SshConnector) -> Iterator[Path]:
    """A running ssh-agent without keys, as SSH_AUTH_SOCK."""
    sock = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
    # The socket is there a moment before it answers: 1 is an agent without keys, 2 none at all.
    while subprocess.run(["ssh-add", "-l"], capture_output=True).returncode != 1:
        assert process.poll() is None
        time.sleep(0.02)
    yield sock
    connector.close()
    os.kill(process.pid, signal.SIGTERM)
    process.wait(5)


def _host(farm: SshdFarm, *files: Path, only: bool = False) -> Host:
    host = load_inventory(farm.hosts_file).get("eval1")
    return host.model_copy(update={"hop": host.hop.model_copy(update={"identity_files": files, "identities_only": only})})


def _key(path: Path, passphrase: str = "") -> Path:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)], check=True)
    return path


def test_the_next_identity_file_is_tried(farm: SshdFarm, connector: SshConnector, tmp_path: Path) -> None:
    assert connector.open(_host(farm, _key(tmp_path / "wrong"), farm.identity)).alive(5)


@fault("O3")
def test_a_refused_key_is_named(farm: SshdFarm, connector: SshConnector, tmp_path: Path) -> None:
    wrong = _key(tmp_path / "wrong")
    with pytest.raises(AuthFailed, match=f"refuses {wrong}"):
        connector.open(_host(farm, wrong))


@fault("O3")
def test_a_key_that_others_can_read_is_named_with_its_fix(farm: SshdFarm, connector: SshConnector, tmp_path: Path) -> None:
    open_key = tmp_path / "open"
    open_key.write_bytes(farm.identity.read_bytes())
    open_key.chmod(0o644)
    with pytest.raises(AuthFailed, match=f"{open_key}: mode 0644") as caught:
        connector.open(_host(farm, open_key))
    assert caught.value.hint == f"chmod 600 {open_key}"
    open_key.chmod(0o600)
    assert connector.open(_host(farm, open_key)).alive(5)


def test_a_missing_key_is_named(farm: SshdFarm, connector: SshConnector, tmp_path: Path) -> None:
    with pytest.raises(AuthFailed, match=f"{tmp_path / 'gone'}: No such file"):
        connector.open(_host(farm, tmp_path / "gone"))


def test_a_file_that_is_no_key_is_named(farm: SshdFarm, connector: SshConnector, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("not a key")
    junk.chmod(0o600)
    with pytest.raises(AuthFailed, match="is not a private key"):
        connector.open(_host(farm, junk))


@fault("O3")
def test_a_passphrase_is_never_asked_for(farm: SshdFarm, connector: SshConnector, tmp_path: Path) -> None:
    locked = _key(tmp_path / "locked", "secret words")
    with pytest.raises(AuthFailed, match="needs its passphrase") as caught:
        connector.open(_host(farm, locked))
    assert caught.value.hint == f"ssh-add {locked}"


def test_the_agent_opens_the_connection_and_the_pull(
    farm: SshdFarm, connector: SshConnector, agent: Path, tmp_path: Path
) -> None:
    subprocess.run(["ssh-add", "-q", str(farm.identity)], check=True)
    transport = connector.open(_host(farm))
    (farm.homes["eval1"] / "result").write_text("42")
    target = tmp_path / "staging"
    target.mkdir()
    transport.pull(PullRequest(str(farm.homes["eval1"]), ("result",), target, 1000, 1000, 20))
    assert (target / "result").read_text() == "42"


def test_identities_only_keeps_other_agent_keys_back(
    farm: SshdFarm, connector: SshConnector, agent: Path, tmp_path: Path
) -> None:
    subprocess.run(["ssh-add", "-q", str(farm.identity)], check=True)
    wrong = _key(tmp_path / "wrong")
    with pytest.raises(AuthFailed):
        connector.open(_host(farm, wrong, only=True))
    assert connector.open(_host(farm, wrong)).alive(5)


def test_an_identity_file_may_live_in_the_agent_alone(
    farm: SshdFarm, connector: SshConnector, agent: Path, tmp_path: Path
) -> None:
    subprocess.run(["ssh-add", "-q", str(farm.identity)], check=True)
    absent = tmp_path / "moved"
    absent.with_name("moved.pub").write_text(farm.identity.with_name("id.pub").read_text())
    assert connector.open(_host(farm, absent, only=True)).alive(5)


def test_too_many_agent_keys_end_before_sshd_cuts_the_line(
    farm: SshdFarm, connector: SshConnector, agent: Path, tmp_path: Path
) -> None:
    for number in range(8):
        subprocess.run(["ssh-add", "-q", str(_key(tmp_path / f"k{number}"))], check=True)
    with pytest.raises(AuthFailed, match="more keys are left") as caught:
        connector.open(_host(farm))
    assert "identity_file" in caught.value.hint
