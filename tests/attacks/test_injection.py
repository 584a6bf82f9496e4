"""No name, path or value from a file of somebody else is ever read as an option, a path or shell text.

Every payload would leave a mark, a file, if anything ran it. Where a row says that an attack works on the naive
implementation, a test shows that here first: the attack is real, and its mark is seen when it is made.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fleet.dispatch.resolve import resolve_assignment
from fleet.errors import InputError
from fleet.inventory import Inventory, load_inventory
from fleet.inventory.pipelines import Pipelines
from fleet.model.assignment import read_assignment
from fleet.model.dataset import read_dataset
from fleet.model.hosts import Defaults
from fleet.testing import local_host
from tests.support.agent_host import agent_host
from tests.support.catalogue import attack
from tests.support.datasets import dataset, task, write_dataset
from tests.support.hostile import SHOWABLE, broken_names, refusal, shell_payloads

INSTANCE = "example-teapot-1"


# ---------------------------------------------------------------- S24: assignment, dataset, hosts.yaml


def resolve(directory: Path, place: str, entry: dict[str, Any]) -> object:
    """Resolve an assignment of one entry, as `fleet dispatch` does before it touches any host."""
    path = directory / "a.json"
    path.write_text(json.dumps({place: [entry]}))
    inventory = Inventory(directory / "hosts.yaml", [local_host("eval1", pipeline="openhands")], Defaults(), {})
    return resolve_assignment(path, inventory, Pipelines())


@attack("S24")
@pytest.mark.parametrize("field", ["instance_id", "model", "task_name", "pipeline", "agent"])
def test_a_name_in_an_assignment_that_is_not_a_name_is_refused_with_file_place_and_field(
    tmp_path: Path, mark: Path, field: str
) -> None:
    write_dataset(tmp_path / "d.json", INSTANCE)
    resolve(tmp_path, "eval1", task(INSTANCE, "gpt", "d.json"))
    for payload in broken_names(mark).values():
        said = refusal(lambda value=payload: resolve(tmp_path, "eval1", task(INSTANCE, "gpt", "d.json") | {field: value}))
        assert said.startswith(f"{tmp_path}/a.json: eval1[0]: {field}: "), said
    assert not mark.exists()


@attack("S24")
@pytest.mark.parametrize("field", ["run", "max_iterations", "eval_limit", "num_workers", "timeout"])
def test_a_number_in_an_assignment_that_is_not_a_number_is_refused_with_file_place_and_field(
    tmp_path: Path, mark: Path, field: str
) -> None:
    write_dataset(tmp_path / "d.json", INSTANCE)
    for payload in broken_names(mark).values():
        said = refusal(lambda value=payload: resolve(tmp_path, "eval1", task(INSTANCE, "gpt", "d.json") | {field: value}))
        assert said.startswith(f"{tmp_path}/a.json: eval1[0]: {field}: "), said
    assert not mark.exists()


@attack("S24")
def test_a_place_a_dataset_file_and_a_variable_name_are_refused_alike(tmp_path: Path, mark: Path) -> None:
    write_dataset(tmp_path / "d.json", INSTANCE)
    good = task(INSTANCE, "gpt", "d.json")
    for name, payload in broken_names(mark).items():
        said = refusal(lambda value=payload: resolve(tmp_path, value, good))
        assert said.startswith(f"{tmp_path}/a.json: "), name
        said = refusal(lambda value=payload: resolve(tmp_path, "eval1", good | {"dataset_file": value}))
        assert f"{tmp_path}/a.json: eval1" in said or said.startswith("/etc/passwd: not JSON"), name
        said = refusal(lambda value=payload: resolve(tmp_path, "eval1", good | {"env": {value: "x"}}))
        assert said.startswith(f"{tmp_path}/a.json: eval1[0]: env: "), name
    refusal(lambda: resolve(tmp_path, "eval1", good | {"env": {"A": "x\0y"}}))
    refusal(lambda: resolve(tmp_path, "eval1", good | {"env": {"A": "x" * 200_000}}))
    assert not mark.exists()


@attack("S24")
@pytest.mark.parametrize("place", ["/dev/zero", "/proc/self/mem", "pipe", ".", "~nobody-of-that-name/x"])
def test_a_dataset_file_that_is_no_plain_file_is_refused_at_once(tmp_path: Path, place: str) -> None:
    subprocess.run(["mkfifo", tmp_path / "pipe"], check=True)
    said = refusal(lambda: resolve(tmp_path, "eval1", task(INSTANCE, "gpt", place)))
    assert "dataset_file" in said


@attack("S24")
@pytest.mark.parametrize("field", ["instance_id", "repo", "base_commit", "image_storage_uri"])
def test_a_name_in_a_dataset_that_is_not_a_name_is_refused_with_the_file(tmp_path: Path, mark: Path, field: str) -> None:
    for name, payload in broken_names(mark).items():
        path = tmp_path / "d.json"
        path.write_text(json.dumps(dataset(INSTANCE) | {field: payload}))
        said = refusal(lambda: resolve(tmp_path, "eval1", task(INSTANCE, "gpt", "d.json")))
        assert str(path) in said, name
        assert field.split("_")[0] in said, name
    assert not mark.exists()


@attack("S24")
def test_the_free_text_of_a_dataset_reaches_the_host_as_the_bytes_of_a_file(tmp_path: Path, mark: Path) -> None:
    """A test command is shell text by its nature; it is the harness's, and nothing of fleet reads it."""
    payload = "\n".join(shell_payloads(mark).values())
    fields = ("test_command", "test_output_parser", "problem_statement", "test_patch", "FAIL_TO_PASS")
    record = dataset(INSTANCE) | {name: [payload] if name == "FAIL_TO_PASS" else payload for name in fields}
    raw = json.dumps(record).encode()
    read_dataset(raw, "d.json")
    with agent_host(tmp_path / "eval1") as host:
        sha = hashlib.sha256(raw).hexdigest()
        host.client.stage({sha: ("d.json", raw)})
        assert (host.fleet / "inputs" / sha / "d.json").read_bytes() == raw
    assert not mark.exists()


HOST_FIELDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "hosts": lambda text: {"hosts": {text: {"address": "127.0.0.1"}}},
    "hosts.a.address": lambda text: {"hosts": {"a": {"address": text}}},
    "hosts.a.user": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "user": text}}},
    "hosts.a.port": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "port": text}}},
    "hosts.a.alias": lambda text: {"hosts": {"a": {"alias": text}}},
    "hosts.a.pipeline": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "pipeline": text}}},
    "hosts.a.workdir": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "workdir": text}}},
    "hosts.a.python": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "python": text}}},
    "hosts.a.host_key": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "host_key": text}}},
    "hosts.a.host_key_alias": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "host_key_alias": text}}},
    "hosts.a.groups": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "groups": [text]}}},
    "hosts.a.jump as text": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "jump": text}}},
    "hosts.a.jump user": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "jump": f"{text}@bastion"}}},
    "hosts.a.jump.address": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "jump": [{"address": text}]}}},
    "hosts.a.jump.user": lambda text: {"hosts": {"a": {"address": "127.0.0.1", "jump": [{"address": "b", "user": text}]}}},
    "groups": lambda text: {"hosts": {"a": {"address": "127.0.0.1"}}, "groups": {text: {"hosts": ["a"]}}},
    "groups.g.hosts": lambda text: {"hosts": {"a": {"address": "127.0.0.1"}}, "groups": {"g": {"hosts": [text]}}},
    "defaults.user": lambda text: {"defaults": {"user": text}, "hosts": {"a": {"address": "127.0.0.1"}}},
}
MAY_BE = {
    "hosts.a.workdir": {"absolute"},
    "hosts.a.python": {"absolute", "path upwards", "dots", "10 kB"},
}
"""A work directory or an interpreter may be an absolute path; neither is ever more than one word of the remote command."""


@attack("S24", "S25", "S26")
@pytest.mark.parametrize("field", HOST_FIELDS)
def test_a_field_of_hosts_yaml_that_is_not_what_it_should_be_is_refused_with_file_and_path(
    tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "hosts.yaml"
    for name, payload in broken_names(mark).items():
        if name in MAY_BE.get(field, ()):
            continue
        path.write_text(yaml.safe_dump(HOST_FIELDS[field](payload)))
        said = refusal(lambda: load_inventory(path))
        assert said.startswith(f"{path}: "), (name, said)
        assert field.split(".")[0].split(" ")[0] in said, (name, said)
    assert not mark.exists()


@attack("S24")
@given(text=st.text(min_size=1, max_size=60))
def test_whatever_is_taken_for_a_name_consists_of_harmless_characters(text: str) -> None:
    raw = json.dumps({"eval1": [{"instance_id": text, "model": text, "dataset_file": "d"}]}).encode()
    try:
        read_assignment(raw, "a.json", "")
    except InputError as error:
        assert SHOWABLE.match(error.message)
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text)


@attack("S24", "S29")
def test_below_the_checks_task_fields_still_are_data(tmp_path: Path, mark: Path) -> None:
    """Were every check removed, argv, variables, directory and key would reach the eval as they are, unread by any shell."""
    payloads = list(shell_payloads(mark).values())
    show = (
        "import json, os, sys; v = {k: t for k, t in os.environ.items() if k[:2] == 'V_'}; "
        "print(json.dumps([sys.argv[1:], v, os.getcwd()]))"
    )
    with agent_host(tmp_path / "eval1") as host:
        odd = host.home / f"$(touch {mark.name}) 'q\" ; x\n"
        odd.mkdir()
        variables = {f"V_{number}": text for number, text in enumerate(payloads)}
        key = host.key(payloads[0], payloads[1]) | {"dataset_sha256": payloads[2]}
        argv = [sys.executable, "-c", show, *payloads]
        host.launch("", key=key, argv=argv, env=variables, workdir=str(odd))
        assert host.wait()["rc"] == 0
        seen = json.loads((host.dir() / "log").read_text())
        assert seen == [payloads, variables, str(odd)]
        assert host.document("spec.json")["key"] == key
    assert not list(tmp_path.rglob(mark.name))


@attack("S29")
def test_composing_a_command_line_of_variables_would_have_run_them(tmp_path: Path, mark: Path) -> None:
    """What a library does that prefixes `export NAME=VALUE &&` to the remote command without quoting."""
    value = f"a; touch {mark}"
    subprocess.run(["sh", "-c", f"export V={value} && true"], check=True, timeout=20)
    assert mark.exists()
