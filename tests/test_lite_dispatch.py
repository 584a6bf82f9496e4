"""The pipeline swebench_lite on container hosts, each with its own engine: check, sync, dispatch, accepted results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.containers import ContainerFleet
from tests.support.engine import Engine
from tests.support.lite import FLASK, flask_task, lite, lite_image, result, write_task
from tests.support.operator import Operator

pytestmark = pytest.mark.timeout(900)
IMAGE = "swebench-lite:py3.10"
INSTANCES = (FLASK, "flask-2", "flask-3", "flask-4")
HOSTS = ("eval1", "eval2", "eval3", "eval4")


def kept_environment(docker: Engine, directory: Path) -> str:
    """Return the image that keeps the installed project; a host without a network to the package index needs it."""
    lite_image(docker)
    warm = result(lite(docker, "run", write_task(directory / "warm.json", flask_task()), "--gold", cwd=directory))
    assert warm["status"] == "pass"
    return str(warm["environment"])


def load(hosts: ContainerFleet, names: Sequence[str], images: Sequence[str], archive: Path) -> None:
    """Put images into the engines of hosts."""
    hosts.docker.run("save", "--output", str(archive), *images, timeout_s=300)

    def into(name: str) -> None:
        with archive.open("rb") as file:
            hosts.docker.run("exec", "-i", hosts.container(name), "docker", "load", stdin=file, timeout_s=300)

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(into, names))


def test_an_assignment_of_lite_tasks_over_four_hosts_ends_in_accepted_results(
    eval_hosts: ContainerFleet, tmp_path: Path
) -> None:
    operator = Operator(tmp_path, eval_hosts.hosts_file)
    assert operator.run("sync", *HOSTS, "--pipeline", "swebench_lite", "--yes").code == 0
    bare = operator.run("check", "eval1", "--pipeline", "swebench_lite")
    assert bare.code == 2 and "python3 lite.py image" in bare.out, bare
    environment = kept_environment(eval_hosts.docker, tmp_path)
    load(eval_hosts, HOSTS, [IMAGE, environment], tmp_path / "images.tar")
    tasks = []
    for instance in INSTANCES:
        row = flask_task(instance_id=instance, model_patches={"lazy": flask_task()["patch"].replace("not name", "name == 0")})
        name = write_task(tmp_path / f"{instance}.json", row).name
        tasks += [
            {"instance_id": instance, "model": model, "dataset_file": name, "task_name": instance, "pipeline": "swebench_lite"}
            for model in ("gold", "lazy")
        ]
    (tmp_path / "lite.json").write_text(json.dumps({"eval[1-4]": tasks}))
    dispatched = operator.run("dispatch", "lite.json", "--json")
    assert dispatched.code == 0, dispatched.err + dispatched.out[-3000:]
    assert set(operator.states("lite").values()) == {"accepted"}
    verdicts = operator.run("validate", operator.collected / "lite", "--json").json
    assert verdicts["summary"] == {"accepted": 8, "flagged": 0, "rejected": 0, "resolved": 4}
    ran_on = {json.loads(path.read_text())["host"] for path in operator.collected.rglob("fleet.json")}
    assert ran_on == set(HOSTS)
    image_ids = {json.loads(path.read_text())["image_id"] for path in operator.collected.rglob("result.json")}
    assert image_ids == {lite_image(eval_hosts.docker)}
    for name in HOSTS:
        assert eval_hosts.containers(name) == []
