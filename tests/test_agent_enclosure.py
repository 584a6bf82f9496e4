"""An eval outlives its SSH session on a host with logind: as a system unit, in a session, or not at all and said so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.agent import AgentClient
from fleet.errors import AgentError
from tests.support.agent_host import AgentHost, eventually
from tests.support.catalogue import fault
from tests.support.systemd_machine import SystemdMachine

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def machine(no_leftovers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdMachine]:
    with SystemdMachine(tmp_path_factory.mktemp("systemd")) as one:
        yield one


def launch(client: AgentClient, script: str, attempt: str = "a1", **spec: Any) -> dict[str, Any]:
    return client.launch(attempt=attempt, key=AgentHost.key(attempt), spec=AgentHost.spec(script, **spec), batch="phase8")


def state(machine: SystemdMachine, attempt: str = "a1") -> dict[str, Any]:
    with machine.login() as client:
        return dict(client.status([attempt])["attempts"][0])


def ended(machine: SystemdMachine, attempt: str = "a1") -> dict[str, Any]:
    with machine.login() as client:
        return [status for status, final in client.wait(attempt, max_s=30) if final][-1]


def unit_of(machine: SystemdMachine, pattern: str) -> str:
    """Return the systemd unit or scope in which a process runs."""
    script = f"cat /proc/$(pgrep -f '{pattern}' | head -1)/cgroup | grep -m1 -E 'name=systemd|^0::'"
    return machine.root(script).strip().rpartition("/")[2]


def running(machine: SystemdMachine, pattern: str) -> Callable[[], bool]:
    return lambda: machine.root(f"pgrep -cf '{pattern}' || true").strip() != "0"


@fault("H12")
def test_with_sudo_the_eval_is_a_system_unit_that_survives_logout(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    with machine.login() as client:
        assert client.probe({"logind": True})["logind"] == {"kill_user_processes": True, "linger": False, "systemd_run": True}
        begun = time.monotonic()
        assert launch(client, "sleep 4.4; exit 3")["outcome"] == "started"
        print(f"launch of a unit: {(time.monotonic() - begun) * 1000:.0f} ms")
        eventually(running(machine, "sleep 4[.]4"), "the eval runs")
        assert unit_of(machine, "sleep 4[.]4") == "fleet-a1.service"
    machine.await_logout()
    assert state(machine)["state"] == "running"
    with machine.login() as client, pytest.raises(AgentError) as caught:
        launch(client, "true", "b1")
    assert caught.value.code == "busy"
    status = ended(machine)
    assert (status["rc"], status["sealed"]) == (3, True)
    assert machine.root("systemctl list-units --all --no-legend 'fleet-*'").strip() == ""
    with machine.login() as client:
        assert launch(client, "true", "b1")["outcome"] == "started"


def test_a_unit_gives_the_eval_the_logins_identity_and_environment(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    machine.root("echo 'export FROM_BASHRC=yes' > /home/ubuntu/.bashrc")
    with machine.login() as client:
        launch(client, "id -un; id -gn; id -Gn; umask; pwd; echo $HOME $USER $FROM_BASHRC; env", env={"MORE": "$HOME/x"})
        assert ended(machine)["rc"] == 0
        lines = client.logs("a1").data.decode().splitlines()
    assert lines[:2] == ["ubuntu", "ubuntu"]
    assert set(lines[2].split()) == {"ubuntu", "sudo", "docker"}
    assert lines[3:6] == ["0022", "/home/ubuntu/work", "/home/ubuntu ubuntu yes"]
    assert "MORE=/home/ubuntu/x" in lines and "FLEET_ATTEMPT=a1" in lines
    assert not [line for line in lines if line.startswith(("SSH_", "XDG_RUNTIME_DIR", "FLEET_AGENT_DIR", "INVOCATION_ID="))]
    assert machine.root("ls /home/ubuntu/.fleet/attempts/a1 | grep -c env.json || true").strip() == "0"


def test_a_unit_is_cancelled_with_everything_in_it(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    with machine.login() as client:
        launch(client, "setsid sleep 61 & env -i setsid sleep 62 & trap '' TERM; while :; do sleep 0.1; done")
        eventually(running(machine, "sleep 62"), "the children run")
    machine.await_logout()
    with machine.login() as client:
        answer = client.cancel("a1", 1, 1)
    assert (answer["outcome"], answer["status"]["state"], answer["status"]["cancelled"]) == ("cancelled", "finished", True)
    assert machine.root("pgrep -cf 'sleep 6' || true").strip() == "0"


@fault("H7")
def test_a_killed_supervisor_does_not_take_its_unit_along(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    with machine.login() as client:
        launch(client, "sleep 1.5; exit 5")
        machine.root("systemctl kill --kill-who=main --signal=KILL fleet-a1.service")
        time.sleep(0.3)
        assert client.status(["a1"])["attempts"][0]["state"] == "running"
    status = ended(machine)
    assert (status["state"], status["rc"], status["sealed"]) == ("finished", 5, True)


def test_what_shed_every_mark_is_still_found_by_its_unit(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    child = "import subprocess;subprocess.Popen(['env','-i','setsid','sleep','66'],start_new_session=True)"
    with machine.login() as client:
        launch(client, f'python3 -c "{child}"; sleep 60')
        eventually(running(machine, "sleep 66"), "the daemon runs")
        machine.root("for pid in $(pgrep -f fleet_host.supervise); do kill -9 $pid; done; pkill -9 -f '^sleep 60'")
        eventually(lambda: client.status(["a1"])["attempts"][0]["state"] == "lost", "it is lost")
        assert running(machine, "sleep 66")()
        assert client.cancel("a1", 1, 1)["processes_ended"] == 1
    assert not running(machine, "sleep 66")()


def test_an_ordered_stop_of_the_unit_ends_the_eval_in_order(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    with machine.login() as client:
        launch(client, "trap 'exit 6' TERM; touch ~/trapped; sleep 60 & wait")
        eventually(lambda: machine.root("ls /home/ubuntu/trapped || true"), "the eval minds the signal")
        machine.root("systemctl stop fleet-a1.service")
    status = ended(machine)
    assert (status["rc"], status["cancelled"], status["sealed"]) == (6, False, True)
    assert "not from fleet" in status["reason"]


def test_a_unit_that_cannot_start_is_refused_and_the_same_launch_works_later(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    machine.root("printf '#!/bin/sh\\n[ \"$1\" = --version ] || { echo no bus >&2; exit 1; }\\n' > /usr/local/bin/systemd-run")
    machine.root("chmod +x /usr/local/bin/systemd-run; echo 'Defaults !secure_path' >> /etc/sudoers.d/ubuntu")
    try:
        with machine.login() as client, pytest.raises(AgentError, match="systemd-run: no bus") as caught:
            launch(client, "true")
    finally:
        machine.root("rm /usr/local/bin/systemd-run")
    assert caught.value.code == "not-ready"
    assert machine.root("ls /home/ubuntu/.fleet/attempts/a1 | grep -c env.json || true").strip() == "0"
    with machine.login() as client:
        assert launch(client, "true")["outcome"] == "started"
    assert ended(machine)["rc"] == 0
    assert machine.root("wc -l < /home/ubuntu/starts").strip() == "1"


@fault("H12")
def test_without_sudo_a_host_that_kills_at_logout_is_refused_with_the_reason(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=True, sudo=False)
    with machine.login() as client:
        assert client.probe({"logind": True})["logind"]["systemd_run"] is False
        with pytest.raises(AgentError, match="KillUserProcesses=yes") as caught:
            launch(client, "true")
        assert caught.value.code == "not-ready"
        assert client.status(["a1"])["attempts"][0]["state"] == "unknown"


def test_without_sudo_a_host_that_lets_live_keeps_the_eval_in_a_session_of_its_own(machine: SystemdMachine) -> None:
    machine.configure(kill_user_processes=False, sudo=False)
    with machine.login() as client:
        launch(client, "sleep 3.3; exit 4")
        eventually(running(machine, "sleep 3[.]3"), "the eval runs")
        assert unit_of(machine, "sleep 3[.]3").startswith("session-")
    time.sleep(0.5)
    assert state(machine)["state"] == "running"
    assert ended(machine)["rc"] == 4
    with machine.login() as client:
        launch(client, "trap '' TERM; setsid sleep 63 & while :; do sleep 0.1; done", "b1")
        answer = client.cancel("b1", 2, 0.5)
    assert (answer["outcome"], answer["processes_left"]) == ("cancelled", 0)


@fault("H1")
def test_a_reboot_makes_a_running_attempt_lost_and_frees_the_host(machine: SystemdMachine, tmp_path: Path) -> None:
    machine.configure(kill_user_processes=True, sudo=True)
    with machine.login() as client:
        launch(client, "echo '{}' > $FLEET_OUTPUT_DIR/output.jsonl; sleep 60")
        eventually(lambda: client.status(["a1"])["attempts"][0]["log_size"] == 0, "it runs")
    # A container shares its machine's boot id; the file is covered as a reboot would change it.
    machine.root("systemctl kill --kill-who=all --signal=KILL fleet-a1.service; sleep 0.3")
    machine.root(
        "echo 11111111-2222-3333-4444-555555555555 > /tmp/boot_id; mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id"
    )
    try:
        status = state(machine)
        assert (status["state"], status["reason"]) == ("lost", "the host rebooted during the eval")
        with machine.login() as client:
            assert [one["path"] for one in client.manifest("a1")["files"]] == ["output.jsonl"]
            assert launch(client, "true", "b1")["outcome"] == "started"
        assert ended(machine, "b1")["rc"] == 0
    finally:
        machine.root("umount /proc/sys/kernel/random/boot_id")
