"""What evals can do wrong, on container hosts: each ends in the right state, with the reason, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.containers import ContainerFleet
from tests.support.harness import CHILDREN
from tests.support.operator import Operator, finish, wait_until
from tests.test_dispatch_main_job import assert_each_ran_once, one_task, operator, starts

__all__ = ["operator"]

LABEL = "one-1/gpt/run1"


def reasons(operator: Operator) -> set[str]:
    """Return the codes of the reasons in the last verdict."""
    judged = [record for record in operator.journal() if record["type"] == "judged"]
    return {reason["code"] for reason in judged[-1]["reasons"]}


@fault("E1")
@fault("E6")
@pytest.mark.parametrize(
    ("behaviour", "code", "state", "reason"),
    [
        ("unresolved", 0, "accepted", None),
        ("exit-1-when-unresolved", 0, "accepted", None),
        ("no-patch-exit-0", 2, "rejected", "eval-missing"),
        ("crash-phase-1", 2, "rejected", None),
        ("empty-output", 2, "rejected", "output-empty"),
        ("zero-tests", 2, "rejected", "no-tests-executed"),
        ("env-broken", 2, "rejected", "environment-broken"),
        ("agent-error", 0, "flagged", "agent-error"),
        ("no-metadata", 0, "flagged", "metadata-missing"),
        ("wrong-instance", 2, "rejected", "instance-mismatch"),
        ("prune", 0, "accepted", None),
        ("pkill", 0, "accepted", None),
    ],
)
def test_the_outputs_decide_and_the_exit_code_is_only_evidence(
    operator: Operator, eval_hosts: ContainerFleet, behaviour: str, code: int, state: str, reason: str | None
) -> None:
    said = operator.run("dispatch", one_task(operator.directory, behaviour, seconds=0.6))
    assert operator.states() == {LABEL: state}, said.err
    assert said.code == code
    if reason is not None:
        assert reason in reasons(operator)
    assert_each_ran_once(eval_hosts, 1)


@fault("E3")
def test_what_an_eval_leaves_behind_is_gone_before_the_next_one(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory, "leave-children", "leave-container", seconds=0.6)
    assert operator.run("dispatch", path).code == 0
    assert eval_hosts.containers("eval1") == []
    children = eval_hosts.read("eval1", CHILDREN).split()
    assert len(children) == 2
    alive = [pid for pid in children if eval_hosts.exec("eval1", ["kill", "-0", pid.decode()], check=False).returncode == 0]
    assert alive == []


@fault("E3")
@fault("E4")
def test_cancelling_a_stubborn_eval_ends_it_and_its_container(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory, "slow", "ignore-term", "leave-children", "leave-container", seconds=60)
    process = operator.start("dispatch", path)
    wait_until(lambda: bool(eval_hosts.containers("eval1")))
    said = operator.run("cancel", "one-1", "--yes", "--grace", "1", "--json")
    assert said.code == 0, said.err + said.out
    row = said.json["cancelled"][0]
    assert (row["processes_left"], row["containers_left"]) == (0, 0)
    assert finish(process).code == 2
    assert operator.states() == {LABEL: "cancelled"}
    assert eval_hosts.containers("eval1") == []
    assert eval_hosts.exec("eval1", ["pgrep", "-f", "run_infer"], check=False).stdout == b""
    assert operator.run("cancel", "one-1", "--yes").code == 0


def test_cancelling_a_waiting_task_means_it_is_never_started(operator: Operator, eval_hosts: ContainerFleet) -> None:
    eval_hosts.stop_docker("eval1")
    try:
        path = one_task(operator.directory)
        assert operator.run("dispatch", path).code == 2
        assert operator.run("cancel", "--all", "--yes").code == 0
    finally:
        eval_hosts.start_docker("eval1")
    assert operator.run("dispatch", path).code == 2
    assert operator.states() == {LABEL: "cancelled"}
    assert starts(eval_hosts) == {}


def test_a_retry_is_a_second_attempt_beside_the_first(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory, "zero-tests", seconds=0.6)
    assert operator.run("dispatch", path).code == 2
    assert operator.run("dispatch", path).code == 2
    assert sum(starts(eval_hosts).values()) == 1
    eval_hosts.switch("eval1", "one-1", {"behaviours": []})
    ordered = operator.run("retry", "one-1", "--json")
    assert ordered.json["ordered"] == [LABEL]
    assert operator.run("dispatch", path).code == 2
    run = operator.collected / "phase8/one-1/gpt/run1"
    assert sorted(entry.name for entry in run.iterdir()) == ["attempt1", "attempt2"]
    assert (run / "attempt1/verdict.json").exists()


def test_retrying_by_state_runs_only_what_failed(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory, "crash-phase-1", seconds=0.6)
    assert operator.run("dispatch", path).code == 2
    plan = operator.run("dispatch", path, "--only", "rejected", "--dry-run", "--json").json
    assert plan["to_run"] == 1
    assert operator.run("dispatch", path, "--only", "rejected").code == 2
    assert sum(starts(eval_hosts).values()) == 2
    assert operator.run("retry", "--class", "lost-reboot", "--json").json["ordered"] == []


@fault("E2")
def test_an_eval_past_its_timeout_is_ended_and_called_so(operator: Operator, eval_hosts: ContainerFleet) -> None:
    import json

    path = one_task(operator.directory, "slow", seconds=60)
    document = json.loads(path.read_text())
    document["eval1"][0]["timeout"] = 2
    path.write_text(json.dumps(document))
    assert operator.run("dispatch", path).code == 2
    assert operator.states() == {LABEL: "rejected"}
    view = operator.run("status", "phase8", "--offline", "--json").json["tasks"][0]
    assert view["failure"] == "timeout"


def test_logs_status_and_why_tell_about_a_running_eval(operator: Operator, eval_hosts: ContainerFleet, tmp_path: Path) -> None:
    process = operator.start("dispatch", one_task(operator.directory, "slow", seconds=5))
    wait_until(lambda: any(record["type"] == "started" for record in operator.journal()))
    status = operator.run("status", "--json").json
    row = next(row for row in status["hosts"] if row["host"] == "eval1")
    assert (row["link"], row["state"], row["task"]) == ("ok", "running", LABEL)
    assert str(process.pid) in status["controller"]
    assert "is running on eval1" in operator.run("why", "one-1").out
    followed = operator.run("logs", "one-1", "-f")
    assert followed.code == 0
    assert len(followed.out.splitlines()) > 3
    assert finish(process).code == 0
    assert "resolved" in operator.run("why", "one-1").out
