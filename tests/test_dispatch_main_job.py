"""The main job on container hosts: real sshd, real rsync, each host with its own Docker engine and the stand-in harness."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support.catalogue import fault
from tests.support.containers import ContainerFleet
from tests.support.datasets import seed_case, task, write_dataset
from tests.support.harness import overlaps
from tests.support.operator import Operator, finish, kill, wait_until


@pytest.fixture
def operator(tmp_path: Path, eval_hosts: ContainerFleet) -> Operator:
    return Operator(tmp_path, eval_hosts.hosts_file)


def starts(fleet: ContainerFleet) -> Counter[str]:
    """Return how often each task was started, from the hosts' own records."""
    return Counter(
        f"{record['instance_id']}/{record['model']}"
        for name in fleet.names
        for record in fleet.start_stop_records(name)
        if record["event"] == "start"
    )


def assert_each_ran_once(fleet: ContainerFleet, tasks: int) -> None:
    """Prove from the hosts' own records that every task ran once and never two on one host."""
    for name in fleet.names:
        assert overlaps(fleet.start_stop_records(name)) == []
    counted = starts(fleet)
    assert len(counted) == tasks
    assert set(counted.values()) == {1}


def case(directory: Path, extra: dict[str, dict[str, object]] | None = None, **fields: object) -> Path:
    return seed_case(directory / "assignments", extra=extra, **fields)


def one_task(directory: Path, *behaviours: str, place: str = "eval1", instance: str = "one-1", **switches: object) -> Path:
    """Write an assignment of one task whose eval behaves as named."""
    extra = {"harness_switches": {"behaviours": list(behaviours), **switches}}
    write_dataset(directory / "assignments" / "d.jsonl", instance, extra=extra)
    path = directory / "assignments" / "phase8.json"
    path.write_text(json.dumps({place: [task(instance, "gpt", "d.jsonl")]}))
    return path


def test_the_seed_case_is_green_from_check_to_dashboard(operator: Operator, eval_hosts: ContainerFleet) -> None:
    check = operator.run("check", "eval1", "eval2", "--json")
    assert check.code == 0, check.out
    assert check.json["summary"] == {"ready": 2, "not_ready": 0, "unreachable": 0}
    dispatched = operator.run("dispatch", case(operator.directory))
    assert dispatched.code == 0, dispatched.err
    assert set(operator.states().values()) == {"accepted"}
    assert_each_ran_once(eval_hosts, 8)
    again = operator.run("collect", "phase8", "--json")
    assert again.code == 0, again.err
    dashboard = operator.run("dashboard", "phase8", "--json")
    assert dashboard.json["schema"] == "fleet.summary/1"
    verdicts = operator.run("validate", operator.collected / "phase8", "--json")
    assert verdicts.code == 0
    assert verdicts.json["summary"]["accepted"] == 8
    for name in eval_hosts.names:
        assert eval_hosts.containers(name) == []


def test_the_plan_is_shown_first_and_a_dry_run_touches_no_host(operator: Operator, eval_hosts: ContainerFleet) -> None:
    said = operator.run("dispatch", case(operator.directory), "--dry-run", "--json")
    assert said.code == 0
    assert said.json["to_run"] == 8
    assert sorted(said.json["places"]) == list(eval_hosts.names)
    assert not operator.collected.exists()
    assert starts(eval_hosts) == {}


def test_dispatching_a_finished_batch_again_starts_nothing(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory)
    assert operator.run("dispatch", path).code == 0
    assert operator.run("dispatch", path).code == 0
    assert_each_ran_once(eval_hosts, 1)


@fault("C5")
def test_of_two_controllers_one_runs_and_the_other_says_who_holds_it(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = case(operator.directory)
    first = operator.start("dispatch", path)
    wait_until(lambda: any(record["type"] == "started" for record in operator.journal()))
    second = operator.run("dispatch", path)
    assert second.code == 64
    assert f"pid {first.pid}" in second.err
    assert finish(first).code == 0
    assert_each_ran_once(eval_hosts, 8)


def test_another_controller_with_its_own_results_follows_the_same_evals(
    operator: Operator, eval_hosts: ContainerFleet, tmp_path: Path
) -> None:
    path = one_task(operator.directory, "slow", seconds=4)
    other = Operator(tmp_path / "other", eval_hosts.hosts_file)
    first = operator.start("dispatch", path)
    wait_until(lambda: any(record["type"] == "started" for record in operator.journal()))
    said = other.run("dispatch", path)
    assert said.code in (0, 64), said.err
    assert finish(first).code == 0
    if said.code == 64:
        assert other.run("dispatch", path).code == 0
    assert set(other.states().values()) == {"accepted"}
    assert_each_ran_once(eval_hosts, 1)


@fault("C1")
@pytest.mark.parametrize("moment", ["batch", "host", "attempt", "started", "observed", "collected", "judged"])
def test_a_controller_killed_at_any_moment_is_resumed_by_the_same_command(
    operator: Operator, eval_hosts: ContainerFleet, moment: str
) -> None:
    path = case(operator.directory, extra={"*": {}})
    process = operator.start("dispatch", path)
    wait_until(lambda: any(record["type"] == moment for record in operator.journal()), every_s=0.002)
    kill(process)
    resumed = operator.run("dispatch", path)
    assert resumed.code == 0, resumed.err
    assert set(operator.states().values()) == {"accepted"}
    assert_each_ran_once(eval_hosts, 8)


@fault("C1")
def test_a_controller_killed_again_and_again_still_starts_each_task_once(
    operator: Operator, eval_hosts: ContainerFleet
) -> None:
    path = case(operator.directory)
    for life_s in (0.5, 0.9, 1.3, 1.7, 2.1, 2.5):
        process = operator.start("dispatch", path)
        time.sleep(life_s)
        kill(process)
    assert operator.run("dispatch", path).code == 0
    assert set(operator.states().values()) == {"accepted"}
    assert_each_ran_once(eval_hosts, 8)


def test_the_first_interrupt_detaches_and_the_evals_go_on(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory, "slow", seconds=4)
    process = operator.start("dispatch", path, "--batch", "night")
    wait_until(lambda: any(record["type"] == "started" for record in operator.journal("night")))
    said = kill(process, signal.SIGINT)
    assert said.code == 130
    again = f"fleet dispatch {path} --batch night"
    assert f"to attach again: {again}\n" in said.err
    assert f"({again} attaches)" in operator.run("status", "night").out
    assert operator.run("dispatch", path, "--batch", "night").code == 0
    assert_each_ran_once(eval_hosts, 1)


def test_a_detached_controller_goes_on_by_itself(operator: Operator, eval_hosts: ContainerFleet) -> None:
    said = operator.run("dispatch", one_task(operator.directory, "slow", seconds=3), "--detach", "--json")
    assert said.code == 0, said.err
    assert said.json["pid"] > 0
    wait_until(lambda: any(record["type"] == "left" for record in operator.journal()))
    assert set(operator.states().values()) == {"accepted"}


@fault("D1")
def test_a_host_that_is_not_ready_blocks_its_own_tasks_and_no_others(operator: Operator, eval_hosts: ContainerFleet) -> None:
    eval_hosts.stop_docker("eval2")
    try:
        said = operator.run("dispatch", case(operator.directory))
        assert said.code == 2, said.err
        states = Counter(operator.states().values())
        assert states == {"accepted": 6, "blocked": 2}
        why = operator.run("why", "eval2").out
        assert "docker" in why
        assert "→" in why
    finally:
        eval_hosts.start_docker("eval2")
    assert operator.run("dispatch", operator.directory / "assignments/phase8.json").code == 0
    assert_each_ran_once(eval_hosts, 8)


def test_a_dead_host_costs_one_timeout_and_not_the_run(operator: Operator, eval_hosts: ContainerFleet) -> None:
    container = eval_hosts.container("eval3")
    eval_hosts.docker.run("pause", container)
    try:
        said = operator.run("dispatch", case(operator.directory))
        assert said.code == 4, said.err
        assert Counter(operator.states().values()) == {"accepted": 6, "blocked": 2}
        assert operator.run("check", "--json").code == 4
    finally:
        eval_hosts.docker.run("unpause", container)
    assert operator.run("dispatch", operator.directory / "assignments/phase8.json").code == 0
    assert_each_ran_once(eval_hosts, 8)


def test_a_shared_pool_is_worked_off_by_whoever_is_free(operator: Operator, eval_hosts: ContainerFleet) -> None:
    directory = operator.directory / "assignments"
    entries = []
    for number in range(8):
        write_dataset(directory / f"d{number}.jsonl", f"pool-{number}")
        entries.append(task(f"pool-{number}", "gpt", f"d{number}.jsonl"))
    path = directory / "phase8.json"
    path.write_text(json.dumps({"*": entries}))
    said = operator.run("dispatch", path)
    assert said.code == 0, said.err
    assert_each_ran_once(eval_hosts, 8)
    used = {name for name in eval_hosts.names if eval_hosts.start_stop_records(name)}
    assert used == set(eval_hosts.names)


@fault("H13")
def test_an_eval_started_by_hand_is_reported_and_never_killed(operator: Operator, eval_hosts: ContainerFleet) -> None:
    path = one_task(operator.directory)
    eval_hosts.shell("eval1", "cp /bin/sleep /tmp/run_infer; setsid /tmp/run_infer 300 >/dev/null 2>&1 </dev/null &")
    check = operator.run("check", "eval1", "--json")
    assert check.code == 2
    assert "run_infer" in check.out
    said = operator.run("dispatch", path)
    assert said.code == 64, said.err
    assert eval_hosts.shell("eval1", "pgrep -c run_infer").strip() == "1"
    assert starts(eval_hosts) == {}
    eval_hosts.shell("eval1", "pkill run_infer")
    assert operator.run("dispatch", path).code == 0
