"""No secret is in an argument list, nor in anything that fleet writes or prints, whatever goes wrong.

What the host itself prints is not fleet's to keep secret: it stays in the raw files, and is redacted wherever it is shown.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from fleet.cli.main import run
from fleet.errors import AgentError
from fleet.model.names import plain, redact
from tests.support.agent_host import agent_host
from tests.support.canary import LeakyBatch, Watch, forms, held, new_canaries
from tests.support.catalogue import attack

pytestmark = pytest.mark.openssh

ENDS = {
    "leak-good/gpt/run1": "accepted",
    "leak-error/gpt/run1": "rejected",
    "leak-fails/gpt/run1": "rejected",
    "leak-lost/gpt/run1": "lost",
    "leak-slow/gpt/run1": "cancelled",
    "leak-noise/gpt/run1": "blocked",
    "leak-unready/gpt/run1": "blocked",
    "leak-dead/gpt/run1": "blocked",
}


def test_the_night_had_everything_in_it_that_can_go_wrong(leaky: LeakyBatch) -> None:
    """What the other tests of this file look at is worth looking at."""
    tasks = json.loads(leaky.said["status --offline --json"].out)["tasks"]
    assert {row["task"]: row["state"] for row in tasks} == ENDS
    given = (leaky.farm.homes["eval1"] / "environment").read_text()
    assert f"TASK_KEY={leaky.canaries.task}" in given
    assert f"PIPELINE_KEY={leaky.canaries.pipeline}" in given
    assert any("Traceback" in said.err for said in leaky.said.values()), "--debug shows tracebacks"


# ---------------------------------------------------------------- S38


@attack("S38")
def test_no_secret_stands_in_any_command_line_on_either_end(leaky: LeakyBatch) -> None:
    watch = leaky.watch
    assert watch.looks > 200
    for expected in (b"eval.sh", b"rsync", b"fleet_host", b"ssh"):
        assert any(expected in line for line in watch.seen), expected
    assert watch.leaks == set()


@attack("S38")
def test_the_watch_would_have_seen_a_secret_that_is_an_argument() -> None:
    """What passes a key with `env KEY=… command`, or on the command line, shows it to everybody on the machine."""
    canaries = new_canaries()
    with Watch(canaries) as watch:
        process = subprocess.Popen(["env", f"KEY={canaries.task}", "sh", "-c", "sleep 30", canaries.pipeline])
        try:
            deadline = time.monotonic() + 10
            while not watch.leaks and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
    assert watch.leaks


@attack("S38", "S46")
def test_another_user_cannot_read_the_environment_of_a_running_eval(leaky: LeakyBatch) -> None:
    assert "Permission denied" in leaky.environ_for_others


# ---------------------------------------------------------------- S39


@attack("S39")
def test_no_command_says_a_secret_in_any_form(leaky: LeakyBatch) -> None:
    assert len(leaky.said) > 25
    for words, said in leaky.said.items():
        assert held((said.out + said.err).encode(), leaky.canaries) == [], words


@attack("S39")
def test_no_file_of_fleet_on_this_machine_holds_a_secret_in_any_form(leaky: LeakyBatch) -> None:
    files = leaky.files(leaky.operator.collected, leaky.state_home, leaky.directory / "home", leaky.directory / "tmp")
    names = {path.name for path in files}
    expected = {"journal.jsonl", "assignment.json", "summary.json", "results.csv", "verdict.json", "fleet.json", "dispatch.log"}
    assert expected <= names
    raw = 0
    for path in files:
        found = held(path.read_bytes(), leaky.canaries)
        if leaky.is_hosts(path):
            raw += "output" in found
            found = [place for place in found if place != "output"]
        assert found == [], path
    assert raw >= 5, "the raw files of the host keep what it wrote"


@attack("S39")
def test_a_host_has_the_secrets_of_a_task_in_one_private_file_and_only_until_its_result_is_here(leaky: LeakyBatch) -> None:
    acknowledged = 0
    for name in leaky.farm.names:
        for path in leaky.files(leaky.farm.homes[name] / ".fleet"):
            found = set(held(path.read_bytes(), leaky.canaries))
            if path.name == "spec.json":
                acknowledged += (path.parent / "acked").exists()
                allowed = set() if (path.parent / "acked").exists() else {"task", "pipeline"}
            elif "inputs" in path.parts:
                allowed = {"dataset"}
            else:
                allowed = {"output"} if path.name == "log" or "out" in path.parts else set()
            assert found <= allowed, path
    assert acknowledged == 5


@attack("S39")
def test_while_an_attempt_is_not_acknowledged_its_secrets_are_in_its_private_spec_alone(tmp_path: Path) -> None:
    canaries = new_canaries()
    with agent_host(tmp_path / "eval1") as host:
        host.launch("exit 3", env={"KEY": canaries.task})
        host.wait()
        holding = [path for path in host.fleet.rglob("*") if path.is_file() and held(path.read_bytes(), canaries)]
        assert holding == [host.dir() / "spec.json"]
        assert holding[0].stat().st_mode & 0o777 == 0o600
        assert "env" not in host.client.evidence("a1")["intent"]["spec"]
        host.client.ack("a1", host.status()["epoch"], "rejected")
        assert held(holding[0].read_bytes(), canaries) == []
        # The same launch is still known for what it is.
        assert host.launch("exit 3", env={"KEY": canaries.task})["outcome"] == "already"


@attack("S39")
@pytest.mark.parametrize("field", ["env", "command", "outputs"])
def test_a_mistake_beside_a_secret_is_named_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    """A template with an unknown field, in a variable that holds a key."""
    key = new_canaries().pipeline
    folder = tmp_path / "remote_scripts" / "leaky"
    folder.mkdir(parents=True)
    command = f"{key}{{unknown}}" if field == "command" else "true"
    root = f"/x/{key}{{unknown}}" if field == "outputs" else "/x"
    value = f"{key}{{unknown}}" if field == "env" else "x"
    (folder / "pipeline.yaml").write_text(
        f'{{schema: fleet.pipeline/1, name: leaky, workdir: ~/w, command: ["{command}"], env: {{K: "{value}"}}, '
        f'outputs: {{root: "{root}"}}}}'
    )
    (tmp_path / "hosts.yaml").write_text("hosts: {a: {address: 127.0.0.1, port: 1, pipeline: leaky}}\n")
    monkeypatch.setenv("FLEET_REMOTE_SCRIPTS", str(tmp_path / "remote_scripts"))
    for more in ([], ["--debug"], ["--json"]):
        assert run(["check", "--hosts-file", str(tmp_path / "hosts.yaml"), *more]) == 1
        said = capsys.readouterr()
        assert "unknown" in said.err
        assert not any(form.decode() in said.out + said.err for form in forms(key)), more


# ---------------------------------------------------------------- S42


@attack("S42")
def test_what_looks_like_a_key_in_a_hosts_output_is_redacted_wherever_it_is_shown(leaky: LeakyBatch) -> None:
    shown_in = [
        "logs leak-slow", "logs leak-error --all", "why leak-error", "check", "check --json", "why eval2", "why eval3",
        "dashboard night", "validate " + str(leaky.operator.collected / "night"),
    ]  # fmt: skip
    silent = [words for words in shown_in if "[redacted]" not in leaky.said[words].out]
    assert silent == []
    log = leaky.operator.collected / "night/leak-good/gpt/run1/attempt1/fleet.log"
    assert leaky.canaries.output.encode() in log.read_bytes(), "the raw file has it"


SHAPES = {
    "OpenAI": "sk-proj-Ab12Cd34Ef56Gh78Ij90",
    "Anthropic": "sk-ant-api03-Ab12Cd34Ef56Gh78Ij90_-AA",
    "OpenRouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "Stripe": "rk_live_0123456789abcdefABCDEF",
    "AWS id": "AKIAIOSFODNN7EXAMPLE",
    "AWS temporary id": "ASIAIOSFODNN7EXAMPLE",
    "AWS secret": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "GitHub": "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "GitHub fine-grained": "github_pat_11ABCDEFG0123456789_abcdefghij",
    "GitLab": "glpat-0123456789abcdefghij",
    "Hugging Face": "hf_abcdefghijklmnopqrstuvwxyzABCDEF",
    "Google": "AIzaSyA0123456789abcdefghijklmnopqrstuv",
    "Google token": "ya29.a0AfH6SMBx0123456789abcdef",
    "Groq": "gsk_0123456789abcdefghijABCDEFGHIJ",
    "xAI": "xai-0123456789abcdefghijABCDEFGHIJ",
    "Replicate": "r8_0123456789abcdefghijABCDEFGHIJ01234",
    "NVIDIA": "nvapi-0123456789abcdefghijABCDEFGHIJ",
    "Slack": "xoxb-0123456789-abcdefghij",
    "npm": "npm_0123456789abcdefghijABCDEFGHIJ012345",
    "PyPI": "pypi-AgEIcHlwaS5vcmcCJDAxMjM0NTY3LTg5YWItY2RlZg",
    "Databricks": "dapi0123456789abcdef0123456789abcdef",
    "Vault": "hvs.CAESIJ0123456789abcdefghijklm",
    "SendGrid": "SG.0123456789abcdefghij.0123456789abcdefghijklmnop",
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.SflKxwRJSMeKKF2QT4",
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "bearer": "Authorization: Bearer abcdefghijklmnop0123",
    "basic": "Authorization: Basic dXNlcjpwYXNzd29yZA==",
    "header": "x-api-key: 0123456789abcdef",
    "JSON": '{"api_key": "0123456789abcdef"}',
    "JSON in JSON": '{\\"client_secret\\": \\"0123456789abcdef\\"}',
    "address with a password": "https://bot:hunter2hunter2@example.org/x.git",
    "presigned address": "https://b.s3.amazonaws.com/k?X-Amz-Signature=0123456789abcdef&X-Amz-Security-Token=IQoJb3Jp",
    "password": "PGPASSWORD=correct-horse",
}


@attack("S42")
@pytest.mark.parametrize("provider", SHAPES)
def test_keys_of_common_providers_are_known_by_their_shape(provider: str) -> None:
    secret = max(SHAPES[provider].replace("=", " ").replace('"', " ").replace("\\", " ").split(), key=len)
    for text in (SHAPES[provider], f"error: {SHAPES[provider]} was refused", f"\x1b[31m{SHAPES[provider]}\x1b[0m"):
        assert "[redacted]" in plain(text)
        tail = secret[-8:]
        assert provider in ("address with a password", "private key") or tail not in plain(text)
    assert "hunter2" not in redact(SHAPES["address with a password"])


@attack("S42")
@pytest.mark.parametrize(
    "text",
    [
        "risk-assessment-of-the-desk-organizer", "prompt_tokens: 90000", "tests/test_token.py::test_secret_is_kept PASSED",
        "https://example.org:8443/a/b@c", "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "task-manager-and-scheduler-of-things", "basic block", "the bearer of this",
    ],
)  # fmt: skip
def test_what_is_no_key_stays_readable(text: str) -> None:
    assert redact(text) == text


@attack("S42")
def test_a_line_made_to_exhaust_the_redaction_takes_no_time() -> None:
    for piece in (
        "sk-",
        "eyJ",
        "token ",
        "a:b@",
        "://:",
        "-----BEGIN ",
        "secret" + "_" * 39,
        "SG.",
        "x-amz-signature",
        '\\"' * 4,
    ):
        began = time.process_time()
        redact(piece * (200_000 // len(piece)))
        assert time.process_time() - began < 3, piece


@attack("S39", "S42")
@pytest.mark.parametrize("as_json", [False, True])
def test_an_error_and_its_traceback_show_neither_keys_nor_escapes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    key = new_canaries().output
    text = f"the host said {key}\x1b]0;owned\x07"

    def fail(*_: object) -> int:
        raise AgentError(text, code="internal", hint=f"export KEY={key}") from ValueError(text)

    monkeypatch.setattr("fleet.cli.main._invoke", fail)
    assert run(["check", "--debug", *(["--json"] if as_json else [])]) == 4
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "[redacted]" in said
    assert key not in said
    assert "\x1b" not in said
