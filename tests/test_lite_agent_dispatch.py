"""The pipeline swebench_agent on container hosts: its own Python, its key, a scripted provider on each; what comes of it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary import forms
from tests.support.containers import ContainerFleet
from tests.support.engine import Engine, cache_directory
from tests.support.lite import FOLDER, lite, lite_image, result, write_task
from tests.support.lite_agent import KEY, RIGHT, SUBMIT, WRONG, hidden_task, project, step, use
from tests.support.operator import Operator, finish, wait_until
from tests.test_lite_dispatch import IMAGE, load

pytestmark = pytest.mark.timeout(900)
HOSTS = ("eval1", "eval2")
PLACE = ".fleet/pipelines/swebench_agent"
SERVER = Path(__file__).parent / "support" / "scripted_model.py"


def wheels(python: str) -> Path:
    """Return a directory with the packages of an agent for the hosts' Python, as for a host without a way to an index."""
    pins = subprocess.run(
        [sys.executable, "-B", "-c", "import agent_setup; print(*agent_setup.PINS['plain'])"],
        cwd=FOLDER, capture_output=True, text=True, check=True, timeout=30,
    ).stdout.split()  # fmt: skip
    key = hashlib.sha256(f"{pins} {python}".encode()).hexdigest()[:12]
    directory = cache_directory() / f"agent-wheels-{key}"
    if not (directory / "complete").exists():
        argv = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(directory), "--only-binary=:all:"]
        subprocess.run([*argv, "--python-version", python, "pip", *pins], check=True, timeout=300, stderr=subprocess.DEVNULL)
        (directory / "complete").touch()
    return directory


def provider(hosts: ContainerFleet, name: str, steps: list[dict[str, Any]]) -> str:
    """Start a scripted model on a host, beside one that refuses the key, and return the base URL."""
    hosts.put(name, SERVER, "scripted_model.py")
    hosts.put(name, json.dumps({"coder": steps, "closed": [{"status": 401}]}).encode(), "script.json")
    hosts.exec(name, ["sh", "-c", "setsid -f python3 scripted_model.py script.json port requests </dev/null >server.log 2>&1"])
    wait_until(lambda: hosts.read(name, "/home/ubuntu/port"))
    return f"http://127.0.0.1:{hosts.read(name, '/home/ubuntu/port').decode()}/v1"


def kept_environment(docker: Engine, directory: Path, row: dict[str, Any]) -> str:
    """Return the image that keeps the small project; the engines of the hosts have no network to make it on."""
    lite_image(docker)
    return str(result(lite(docker, "run", write_task(directory / "warm.json", row), "--gold", cwd=directory))["environment"])


def test_agents_work_on_hosts_and_their_results_are_accepted(eval_hosts: ContainerFleet, tmp_path: Path) -> None:
    operator = Operator(tmp_path, eval_hosts.hosts_file)
    repository = project(tmp_path)
    row = hidden_task(repository)
    assert operator.run("sync", *HOSTS, "--pipeline", "swebench_agent", "--yes").code == 0
    bare = operator.run("check", "eval1", "--pipeline", "swebench_agent")
    assert bare.code == 2
    for fix in ("python3 lite.py image", "python3 lite.py agent-setup", "write the provider's key to"):
        assert fix in bare.out, bare

    load(eval_hosts, HOSTS, [IMAGE, kept_environment(eval_hosts.docker, tmp_path, row)], tmp_path / "images.tar")
    version = eval_hosts.shell("eval1", "python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'").strip()
    turns = [step(use("swe_list")), step(use("swe_read", path="calc.py")), step(use("swe_pytest"))]
    patches = {"eval1": RIGHT, "eval2": WRONG}
    tasks = {}
    for name in HOSTS:
        eval_hosts.put(name, wheels(version), "wheels")
        eval_hosts.put(name, repository, "calc")
        eval_hosts.put(name, KEY.encode(), ".config/swebench-lite/key", mode=0o600)
        setup = ["python3", "lite.py", "agent-setup", "--wheels", "/home/ubuntu/wheels"]
        made = eval_hosts.exec(name, ["env", "-C", PLACE, *setup], timeout_s=300)
        assert json.loads(made.stdout)["made"] is True
        url = provider(eval_hosts, name, [*turns, step(use("swe_apply_patch", patch=patches[name])), SUBMIT])
        body = {**row, "instance_id": f"calc-{name}", "repo": "example/calc", "source": "/home/ubuntu/calc"}
        body["base_commit"] = body.pop("ref")
        del body["task_id"]
        file = write_task(tmp_path / f"{name}.json", body).name
        task = {"instance_id": f"calc-{name}", "model": "coder", "dataset_file": file, "task_name": name}
        tasks[name] = [{**task, "pipeline": "swebench_agent", "max_iterations": 10, "env": {"LITE_BASE_URL": url}}]
    tasks["eval1"].append({**tasks["eval1"][0], "model": "closed"})
    ready = operator.run("check", *HOSTS, "--pipeline", "swebench_agent")
    assert ready.code == 0, ready

    (tmp_path / "agents.json").write_text(json.dumps(tasks))
    dispatched = finish(operator.start("dispatch", "agents.json", "--json"), 400)
    assert dispatched.code == 2, dispatched.err + dispatched.out[-3000:]
    states = {"calc-eval1/coder/run1": "accepted", "calc-eval2/coder/run1": "accepted", "calc-eval1/closed/run1": "rejected"}
    assert operator.states("agents") == states
    verdicts = operator.run("validate", operator.collected / "agents", "--json").json
    assert verdicts["summary"] == {"accepted": 2, "flagged": 0, "rejected": 1, "resolved": 1}
    found = {one["model"]: one for one in verdicts["results"]}
    assert (found["closed"]["cause"], found["closed"]["facts"]["tokens"]) == ("provider", None)
    assert (found["coder"]["facts"]["tokens"], found["coder"]["facts"]["cost_usd"]) == (5 * 110, None)
    tokens = operator.run("dashboard", "agents", "--json").json["total"]["tokens"]
    assert (tokens["value"], tokens["known"]) == (1100, 2)
    for name in HOSTS:
        assert eval_hosts.containers(name) == []
        asked = [json.loads(line) for line in eval_hosts.read(name, "/home/ubuntu/requests").splitlines()]
        assert {request["key"] for request in asked} == {KEY}
    collected = [path for path in operator.collected.rglob("*") if path.is_file()]
    assert [path for path in collected if any(form in path.read_bytes() for form in forms(KEY))] == []
    assert sum(path.name == "transcript.jsonl" for path in collected) == 3
