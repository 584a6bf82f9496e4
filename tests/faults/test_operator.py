"""What operators do by mistake or twice: cancel, lose a key, delete results, ask for two models at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.dispatch.files.journal import Journal
from fleet.model.records import AttemptAdopted, AttemptIntended
from fleet.model.states import TaskState
from tests.support.catalogue import fault
from tests.support.collect_bench import Bench, writes
from tests.support.finished import tree
from tests.support.results import INSTANCE
from tests.support.sshd_farm import SshdFarm

LABEL = f"{INSTANCE}/gpt/run1"


def journal_of(bench: Bench) -> bytes:
    return (bench.collected / "phase8" / "journal.jsonl").read_bytes()


def state_on_host(bench: Bench, attempt: str) -> str:
    (status,) = bench.hosts["eval1"].client.status([attempt])["attempts"]
    return str(status["state"])


@fault("O1")
def test_a_cancel_ends_the_eval_once_and_a_second_cancel_changes_nothing(bench: Bench) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    bench.hosts["eval1"].start("echo $$ > ~/pid; sleep 60")
    code, out, err = bench.said("cancel", INSTANCE, "--yes", "--grace", "2")
    assert code == 0
    # Whether the eval's child was still dying when the host looked is chance; that nothing is left is not.
    assert out.startswith(f"{LABEL} on eval1: cancelled; 0 processes, 0 containers left")
    assert "fleet collect phase8" in err, "no controller is there to bring what was written"
    assert state_on_host(bench, "a1") == "finished"
    code, document = bench.typed("cancel", INSTANCE, "--yes", "--grace", "2")
    assert (code, [row["outcome"] for row in document["cancelled"]]) == (0, ["already-over"])
    code, document = bench.fleet("phase8")
    assert [row["got"] for row in document["results"]] == ["collected"]
    assert bench.journal().tasks[LABEL].state is TaskState.CANCELLED
    before = journal_of(bench)
    code, out, _ = bench.said("cancel", INSTANCE)
    assert (code, out) == (0, f"{LABEL}: cancelled, nothing to end\n")
    assert journal_of(bench) == before


@fault("O1")
def test_a_cancel_of_an_accepted_task_neither_asks_nor_connects_nor_takes_the_result_away(
    bench: Bench, tmp_path: Path, farm_hosts: SshdFarm
) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    bench.hosts["eval1"].run(writes(tmp_path))
    assert bench.fleet("phase8")[0] == 0
    before, logins = journal_of(bench), farm_hosts.log("eval1").count("Accepted publickey")
    for words in ([INSTANCE], ["--all"]):
        code, document = bench.typed("cancel", *words)
        assert code == 0
        assert [row["outcome"] for row in document["cancelled"]] == (["accepted"] if words == [INSTANCE] else [])
    assert journal_of(bench) == before
    assert farm_hosts.log("eval1").count("Accepted publickey") == logins
    assert bench.journal().tasks[LABEL].state is TaskState.ACCEPTED


@fault("O1")
def test_a_cancel_of_an_eval_that_another_controller_started_is_refused_until_it_is_meant(bench: Bench) -> None:
    bench.opened(bench.task())
    bench.hosts["eval1"].start("sleep 60", "theirs", batch="other")
    intended = AttemptIntended(task=LABEL, host="eval1", attempt="mine", number=1)
    adopted = AttemptAdopted(intended="mine", attempt="theirs", epoch=1, boot_id="b")
    Journal(bench.collected / "phase8" / "journal.jsonl").append(intended, adopted)
    before = journal_of(bench)
    code, document = bench.typed("cancel", INSTANCE, "--yes")
    (row,) = document["cancelled"]
    assert (code, row["outcome"]) == (64, "followed")
    assert "another controller started this eval" in row["text"] and "--followed" in row["text"]
    assert (state_on_host(bench, "theirs"), journal_of(bench)) == ("running", before)
    code, document = bench.typed("cancel", INSTANCE, "--yes", "--followed", "--grace", "2")
    assert (code, document["cancelled"][0]["outcome"]) == (0, "cancelled")
    assert state_on_host(bench, "theirs") == "finished"


@fault("O1")
def test_a_cancel_of_an_unknown_task_names_the_nearest_and_touches_nothing(bench: Bench, farm_hosts: SshdFarm) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    before, logins = journal_of(bench), farm_hosts.log("eval1").count("Accepted publickey")
    code, document = bench.typed("cancel", "1319603449576648", "--yes")
    assert (code, document["error"]["code"]) == (1, "input")
    assert f"did you mean {LABEL}?" in document["error"]["message"]
    assert journal_of(bench) == before
    assert farm_hosts.log("eval1").count("Accepted publickey") == logins


@fault("O3")
@pytest.mark.parametrize("trouble", ["another key", "mode 0644", "an empty agent"])
def test_a_key_that_does_not_open_the_door_is_named_and_nobody_is_asked_for_a_password(
    farm_hosts: SshdFarm, tmp_path: Path, trouble: str
) -> None:
    key = tmp_path / "key"
    if trouble == "another key":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True)
    else:
        key.write_bytes(farm_hosts.identity.read_bytes())
        key.chmod(0o644)
    lines = farm_hosts.ssh_config.read_text().split("Host ")[1].replace(str(farm_hosts.identity), str(key))
    if trouble == "an empty agent":
        lines = "\n".join(line for line in lines.split("\n") if "IdentityFile" not in line and "IdentitiesOnly" not in line)
    (tmp_path / "ssh_config").write_text(f"Host {lines}")
    hosts = tmp_path / "hosts.yaml"
    hosts.write_text('defaults: {alias: "aws-instance-{name}", ssh_config: ssh_config}\nhosts: {eval1: }\n')
    sock = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(sock)], stdout=subprocess.DEVNULL)
    try:
        while not sock.exists():
            assert agent.poll() is None
        home = {**os.environ, "HOME": str(tmp_path), "SSH_AUTH_SOCK": str(sock)}
        # A terminal of its own: whoever asked for a password would find it, and stand still at the deadline.
        argv = ["script", "-qec", f"{sys.executable} -m fleet check --hosts-file {hosts} 2>&1", "/dev/null"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, env=home, check=False)
    finally:
        agent.terminate()
        agent.wait(5)
    assert done.returncode == 4, done.stdout
    said = " ".join(done.stdout.split())
    if trouble == "another key":
        assert f"{farm_hosts.addresses['eval1']} refuses {key}" in said and f"ssh-copy-id -i {key}" in said
    elif trouble == "mode 0644":
        assert f"{key}: mode 0644" in said and f"chmod 600 {key}" in said
    else:
        assert f"the agent at {sock} holds none" in said and "ssh-add KEY" in said
    assert "password" not in said.lower() and "passphrase" not in said.lower()


@fault("O4")
def test_deleted_results_come_back_byte_for_byte_when_asked_for(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    bench.hosts["eval1"].run(writes(tmp_path))
    assert bench.fleet("phase8")[0] == 0
    place = bench.collected / "phase8" / LABEL / "attempt1"
    before = {name: body for name, body in tree(place).items() if name != "fleet.json"}
    assert (bench.hosts["eval1"].fleet / "attempts/a1/acked").is_file(), "acknowledged, and still kept"
    shutil.rmtree(bench.collected / "phase8" / INSTANCE)
    code, document = bench.fleet("phase8")
    assert (code, document["results"][0]["hint"]) == (4, "to bring it again: fleet collect phase8 --again")
    assert bench.fleet("phase8", "--again")[0] == 0
    assert {name: body for name, body in tree(place).items() if name != "fleet.json"} == before


@fault("O4")
def test_results_deleted_together_with_their_journal_come_back_from_the_hosts(bench: Bench, tmp_path: Path) -> None:
    bench.opened(bench.task(), attempts={"a1": LABEL})
    bench.hosts["eval1"].run(writes(tmp_path))
    assert bench.fleet("phase8")[0] == 0
    place = bench.collected / "phase8" / LABEL / "attempt1"
    before = {name: body for name, body in tree(place).items() if name not in ("fleet.json", "verdict.json")}
    shutil.rmtree(bench.collected)
    assert bench.fleet()[1]["results"] == [], "acknowledged is brought only when asked for"
    code, document = bench.fleet("--again")
    assert (code, [(row["path"], row["verdict"]) for row in document["results"]]) == (
        0,
        [(f"phase8/{LABEL}/attempt1", "accepted")],
    )
    assert {name: body for name, body in tree(place).items() if name not in ("fleet.json", "verdict.json")} == before


@fault("O5")
def test_two_models_of_one_instance_on_one_host_are_two_results(bench: Bench, tmp_path: Path) -> None:
    labels = {model: f"{INSTANCE}/{model}/run1" for model in ("gpt", "claude")}
    bench.opened(*(bench.task(model=model) for model in labels), attempts={f"a-{m}": label for m, label in labels.items()})
    for model in labels:
        bench.hosts["eval1"].run(writes(tmp_path, model, model=model, resolved=model == "gpt"), f"a-{model}", model=model)
    code, document = bench.fleet("phase8")
    assert (code, {row["path"] for row in document["results"]}) == (
        0,
        {f"phase8/{label}/attempt1" for label in labels.values()},
    )
    for model, label in labels.items():
        report = (bench.collected / "phase8" / label / "attempt1/eval_outputs/report.json").read_text()
        assert ('"resolved": true' in report) == (model == "gpt"), "neither took the other's place"
        assert bench.journal().tasks[label].attempt == f"a-{model}"
    code, document = bench.typed("cancel", INSTANCE, "--yes")
    assert (code, "is 2 tasks of batch phase8" in document["error"]["message"]) == (1, True)
