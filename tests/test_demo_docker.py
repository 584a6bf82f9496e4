"""`fleet demo --docker` on a real engine: the same story in offline containers, and clear words where Docker is not ready."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.demo import docker as demo_docker
from fleet.demo.docker import IMAGE, LABEL
from fleet.demo.embedded import EmbeddedHosts
from tests.support.engine import Engine
from tests.support.lite import lite_image
from tests.support.operator import Operator, wait_until
from tests.test_embedded_hosts import ssh

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


def operator(directory: Path, **env: str) -> Operator:
    """Return an operator whose temporary files, those of the hosts too, are in a directory of their own."""
    (directory / "tmp").mkdir(exist_ok=True)
    return Operator(directory, directory / "hosts.yaml", {"TMPDIR": str(directory / "tmp"), **env})


def containers(docker: Engine, below: Path) -> list[str]:
    """Return the containers of demos that keep their hosts below a directory."""
    lines = docker.lines("ps", "--all", "--filter", f"label={LABEL}", "--format", f'{{{{.Label "{LABEL}"}}}} {{{{.Names}}}}')
    return [line for line in lines if line.startswith(str(below))]


def host_of(docker: Engine) -> dict[str, str]:
    return {key: value for key, value in docker.env.items() if key == "DOCKER_HOST"}


def test_the_story_is_the_same_in_containers(docker: Engine, tmp_path: Path) -> None:
    said = operator(tmp_path, **host_of(docker)).run("demo", "--docker", "--keep", tmp_path / "kept", "--json")
    assert said.code == 0, said.err
    assert (said.json["sandbox"], said.json["missing"]) == ("docker", [])
    assert [step["command"].split()[1] for step in said.json["steps"]] == ["sync", "check", "dispatch"]
    runs = [json.loads(path.read_text()) for path in (tmp_path / "kept").rglob("result.json")]
    assert {run["sandbox"] for run in runs} == {"docker"}
    assert {run["image_id"] for run in runs if run["patch"]["state"] != "refused"} == {lite_image(docker)}
    assert containers(docker, tmp_path) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_interrupted_demo_leaves_no_container(docker: Engine, tmp_path: Path) -> None:
    process = operator(tmp_path, **host_of(docker)).start("demo", "--docker")
    wait_until(lambda: containers(docker, tmp_path))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert containers(docker, tmp_path) == []
    assert not list((tmp_path / "tmp").glob("fleet-demo-hosts-*"))


def test_a_host_sees_its_own_containers_and_no_other(docker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in host_of(docker).items():
        monkeypatch.setenv(key, value)
    program = shutil.which("docker")
    assert program is not None
    with EmbeddedHosts(2, tmp_path / "hosts", engine=demo_docker.Engine(program)) as hosts:
        started = ssh(hosts, "demo1", f"docker run --detach --network none --entrypoint sleep {IMAGE} 600")
        container = started.stdout.decode().strip()
        assert started.returncode == 0, started.stderr
        assert ssh(hosts, "demo1", "docker ps --quiet --no-trunc").stdout.decode().split() == [container]
        assert ssh(hosts, "demo2", "docker ps --all --quiet").stdout == b""
        assert container in docker.lines("ps", "--quiet", "--no-trunc")
    assert container not in docker.lines("ps", "--all", "--quiet", "--no-trunc")


def test_a_machine_without_docker_is_told_what_to_install(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("git", "rsync", "ssh"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    said = operator(tmp_path, PATH=str(tools)).run("demo", "--docker", "--keep", "kept")
    assert said.code == 1
    assert "needs docker, which is not on PATH" in said.err
    assert "sudo apt install -y docker.io" in said.err
    assert not (tmp_path / "kept").exists()


def test_an_engine_that_does_not_answer_is_named_with_the_command_that_starts_it(tmp_path: Path) -> None:
    said = operator(tmp_path, DOCKER_HOST=f"unix://{tmp_path}/nothing.sock").run("demo", "--docker", "--json")
    assert (said.code, said.out) == (1, "")
    error = json.loads(said.err)
    assert "the Docker engine does not answer: " in error["message"] and "nothing.sock" in error["message"]
    assert error["hint"] == "sudo systemctl start docker"
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.root
def test_a_user_who_may_not_ask_the_engine_is_told_the_group(docker: Engine) -> None:
    ask = "import os, fleet.demo.docker as d, fleet.model.names; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    words = [
        sys.executable,
        "-c",
        f"{ask}\ntry: d.find_engine()\nexcept d.InputError as e: print(e.message, e.hint, sep='\\n')",
    ]
    done = subprocess.run(words, env=docker.env, capture_output=True, text=True, timeout=60, check=True)
    message, hint = done.stdout.splitlines()
    assert message.startswith("the Docker engine does not answer: ") and "permission denied" in message.lower()
    assert hint == 'sudo usermod -aG docker "$USER", and log in again'


@contextmanager
def bare_engine() -> Iterator[str]:
    """Yield the address of an engine without images, that reaches no registry."""
    # Short, because a unix socket's path may have 108 characters at most.
    directory = Path(tempfile.mkdtemp(prefix="bare-", dir="/tmp"))
    address = f"unix://{directory}/docker.sock"
    # In a network of its own: an engine without a bridge removes docker0, whoever uses it.
    argv = [
        "unshare",
        "--net",
        "dockerd",
        "--host",
        address,
        "--data-root",
        directory / "data",
        "--exec-root",
        directory / "exec",
    ]
    argv += ["--pidfile", directory / "pid", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    env = os.environ | {"HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    with subprocess.Popen([*map(str, argv)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            wait_until(Engine(address).answers)
            yield address
        finally:
            daemon.terminate()
            daemon.wait(30)
            shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.root
def test_an_image_that_cannot_be_built_is_told_with_the_way_round_a_registry(tmp_path: Path) -> None:
    with bare_engine() as address:
        said = operator(tmp_path, DOCKER_HOST=address).run("demo", "--docker")
    assert said.code == 1, said.err
    assert "$ fleet lite image" in said.err
    assert f"there is no image {IMAGE}, and it could not be built" in said.err
    assert "fleet lite image --base IMAGE" in said.err
    assert "SSH hosts are up" not in said.err
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.root
def test_an_image_that_is_not_there_is_built_first(docker: Engine, tmp_path: Path) -> None:
    """On an engine that has the base under the name that the recipe asks for, as a registry would give it."""
    with bare_engine() as address:
        bare = Engine(address)
        archive = tmp_path / "base.tar"
        docker.run("save", "--output", str(archive), IMAGE, timeout_s=300)
        bare.run("load", "--input", str(archive), timeout_s=300)
        # What the recipe installs and removes is there to be installed and removed, because this engine has no network.
        tests = "import pandas, pathlib; (pathlib.Path(pandas.__file__).parent / 'tests').mkdir()"
        bare.run("run", "--name", "base", "--network", "none", IMAGE, "python3", "-c", tests)
        bare.run("commit", "base", "python:3.10-slim-bookworm")
        bare.run("rm", "base")
        bare.run("rmi", IMAGE)
        said = operator(tmp_path, DOCKER_HOST=address).run("demo", "--docker", "--json")
        assert bare.run("image", "inspect", IMAGE, check=False).returncode == 0, said.err
    assert said.code == 0, said.err
    assert said.json["missing"] == []
