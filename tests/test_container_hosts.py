"""Container hosts are machines of their own: reached by SSH, each with its own engine, home and start/stop records."""

from __future__ import annotations

import subprocess
from pathlib import Path

from fleet.inventory import load_inventory
from tests.support import harness
from tests.support.containers import ContainerFleet
from tests.support.datasets import dataset, write_dataset

INSTANCE = "example-teapot-1"


def ssh(hosts: ContainerFleet, name: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command over OpenSSH's own client, as the users do by hand."""
    argv = ["ssh", "-F", str(hosts.ssh_config), "-o", "BatchMode=yes", f"aws-instance-{name}", command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)


def run_eval(hosts: ContainerFleet, name: str) -> int:
    """Run the stand-in harness on a host over SSH and return its exit code."""
    local = write_dataset(hosts.directory / "inputs" / f"{INSTANCE}.json", INSTANCE)
    hosts.put(name, local, f"inputs/{INSTANCE}.json")
    arguments = f"llm.gpt /home/ubuntu/inputs/{INSTANCE}.json 1 200 1"
    path = "PATH=$HOME/.local/bin:$PATH PYTHONPATH=$PWD"
    return ssh(hosts, name, f"cd {harness.WORKDIR} && {path} ./{harness.SCRIPT} {arguments} >~/log 2>&1").returncode


def test_every_host_lets_ubuntu_in_by_its_alias_and_is_another_machine(eval_hosts: ContainerFleet) -> None:
    answers = {name: ssh(eval_hosts, name, "hostname; id -un; cat /etc/machine-id") for name in eval_hosts.names}
    assert [answer.stderr for answer in answers.values()] == [""] * len(answers)
    lines = {name: answer.stdout.split() for name, answer in answers.items()}
    assert all(words[:2] == [name, "ubuntu"] for name, words in lines.items())
    assert len({words[2] for words in lines.values()}) == len(eval_hosts.names)


def test_the_inventory_reads_the_hosts_file_through_the_aliases(container_fleet: ContainerFleet) -> None:
    inventory = load_inventory(container_fleet.hosts_file)
    assert tuple(host.name for host in inventory.select(["@eval"])) == container_fleet.names
    host = inventory.get("eval2")
    assert host.hop.address == container_fleet.addresses["eval2"]
    assert (host.hop.user, host.hop.host_key_alias) == ("ubuntu", "aws-instance-eval2")
    assert host.hop.identity_files == (container_fleet.identity_file,)


def test_a_host_does_not_see_the_containers_and_images_of_another(eval_hosts: ContainerFleet) -> None:
    eval_hosts.shell("eval1", "docker run -d --network none --name leftover fleet-eval-base sleep 60")
    eval_hosts.shell("eval1", "docker tag fleet-eval-base mswebench/sweb.eval.x86_64.x:latest")
    assert eval_hosts.containers("eval1") == ["leftover"]
    assert eval_hosts.containers("eval2") == []
    assert ssh(eval_hosts, "eval1", "docker images -q mswebench/*").stdout != ""
    assert ssh(eval_hosts, "eval2", "docker images -q mswebench/*").stdout == ""


def test_an_eval_runs_real_containers_and_tags_its_image(eval_hosts: ContainerFleet) -> None:
    assert run_eval(eval_hosts, "eval1") == 0, eval_hosts.read("eval1", "log").decode()
    log = eval_hosts.read("eval1", "log").decode()
    assert "running without containers" not in log
    assert f"Image tagged: mswebench/sweb.eval.x86_64.{INSTANCE}:latest" in log
    tags = eval_hosts.shell("eval1", "docker images --format '{{.Repository}}:{{.Tag}}'").split()
    assert f"mswebench/{dataset(INSTANCE)['repo'].replace('/', '_m_')}:pr-{INSTANCE}" in tags
    assert eval_hosts.containers("eval1") == []
    assert eval_hosts.shell("eval1", f"find {harness.WORKDIR}/{harness.OUTPUTS} -name output.jsonl").count("\n") == 1
    records = eval_hosts.start_stop_records("eval1")
    assert [record["event"] for record in records] == ["start", "stop"]
    assert eval_hosts.start_stop_records("eval2") == []


def test_leftovers_and_the_scripts_own_dangerous_clean_up_are_real(eval_hosts: ContainerFleet) -> None:
    eval_hosts.shell("eval1", "docker run --network none --name stopped fleet-eval-base true")
    eval_hosts.exec("eval1", ["bash", "-c", "exec -a my-openhands-tool sleep 600 >/dev/null 2>&1 & disown"])
    eval_hosts.switch(
        "eval1", INSTANCE, {"behaviours": ["prune", "pkill", "leave-container", "leave-children"], "seconds": 0.2}
    )
    assert run_eval(eval_hosts, "eval1") == 0, eval_hosts.read("eval1", "log").decode()
    assert eval_hosts.containers("eval1") == [f"openhands-runtime-{INSTANCE}-left"]
    assert eval_hosts.exec("eval1", ["pgrep", "-f", "my-openhands-tool"], check=False).returncode == 1
    assert len(eval_hosts.exec("eval1", ["pgrep", "-f", "sleep 1987"]).stdout.split()) == 2
    eval_hosts.reset(["eval1"])
    assert eval_hosts.containers("eval1") == []
    assert eval_hosts.exec("eval1", ["pgrep", "-u", "ubuntu"], check=False).stdout.split() == []
    assert eval_hosts.read("eval1", harness.SWITCHES) == b""


def test_an_engine_that_crashed_is_back_after_a_reset(eval_hosts: ContainerFleet) -> None:
    eval_hosts.stop_docker("eval3")
    assert ssh(eval_hosts, "eval3", "docker ps").returncode != 0
    assert ssh(eval_hosts, "eval2", "docker ps").returncode == 0
    eval_hosts.reset(["eval3"])
    assert ssh(eval_hosts, "eval3", "docker ps").returncode == 0


def test_files_put_on_a_host_belong_to_its_user(eval_hosts: ContainerFleet, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_text("hello")
    eval_hosts.put("eval4", tmp_path / "tree", "here")
    assert ssh(eval_hosts, "eval4", "stat -c '%U %a' here/deep/file; cat here/deep/file").stdout == "ubuntu 644\nhello"
