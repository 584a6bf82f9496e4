"""Thousands of tasks on hundreds of hosts: the work per event is proportional to the tasks, never to tasks times hosts."""

from __future__ import annotations

from pathlib import Path

from fleet.dispatch.files.journal_line import decode, encode
from fleet.dispatch.rules.scheduler import Begin, decide
from fleet.dispatch.state.replay import apply, replay
from fleet.model.findings import HostReport
from fleet.model.records import BatchOpened, HostChecked
from fleet.model.states import HostState, Link, TaskState
from fleet.model.tasks import Task, TaskKey

HOSTS = 300
TASKS = 2000


class Counted(str):
    """A host's name that counts how often it is compared or looked up."""

    looked = 0

    def __hash__(self) -> int:
        Counted.looked += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.looked += 1
        return super().__eq__(other)


def pool(hosts: int = HOSTS) -> BatchOpened:
    names = tuple(Counted(f"h{number}") for number in range(hosts))
    tasks = tuple(
        # As after reading a journal: equal tuples, each its own object.
        Task.model_construct(
            key=TaskKey(instance_id=f"i-{number}", model="gpt"),
            dataset_file=Path("/d"),
            place="*",
            hosts=(*names,),
            image=f"image{number % 50}",
        )
        for number in range(TASKS)
    )
    return BatchOpened.model_construct(
        batch="b",
        assignment_sha256="",
        assignment_file="",
        controller="me",
        tasks=tasks,
        hosts=dict.fromkeys(names, "tiny"),
        fleet_version="",
    )


def test_opening_a_pool_looks_at_each_host_list_once_and_not_again_per_host() -> None:
    record = pool()
    Counted.looked = 0
    state = replay([record])
    assert len(state.tasks) == TASKS
    # One hash per name to find the shared tuple; per task and host it would be TASKS * HOSTS * HOSTS.
    assert Counted.looked < 4 * TASKS * HOSTS


def test_a_checked_host_costs_one_look_at_the_pool() -> None:
    state = replay([pool()])
    Counted.looked = 0
    state = apply(state, HostChecked(report=HostReport(host="h7", link=Link.OK)))
    assert state.hosts["h7"].state is HostState.READY
    assert Counted.looked < 20 * HOSTS


def test_all_free_hosts_are_given_tasks_in_one_pass() -> None:
    state = replay([pool()])
    state = apply(state, *(HostChecked(report=HostReport(host=name, link=Link.OK)) for name in state.hosts))
    Counted.looked = 0
    actions = decide(state, frozenset())
    assert [type(action) for action in actions] == [Begin] * HOSTS
    assert len({action.task for action in actions if isinstance(action, Begin)}) == HOSTS
    assert Counted.looked < 20 * HOSTS + TASKS


def test_a_pool_is_blocked_when_its_last_host_is_and_free_again_with_the_first() -> None:
    state = replay([pool()])
    down = [HostChecked(report=HostReport(host=name, link=Link.UNREACHABLE, error="no route")) for name in state.hosts]
    state = apply(state, *down[:-1])
    assert {view.state for view in state.tasks.values()} == {TaskState.PENDING}
    state = apply(state, down[-1])
    assert {view.state for view in state.tasks.values()} == {TaskState.BLOCKED}
    state = apply(state, HostChecked(report=HostReport(host="h5", link=Link.OK)))
    assert {view.state for view in state.tasks.values()} == {TaskState.PENDING}


def test_a_journal_has_the_hosts_of_a_pool_once_and_gives_them_back_as_one_list() -> None:
    small, large = (encode(pool(hosts)) for hosts in (HOSTS, 2 * HOSTS))
    # Of each further host: its name in the pool, and its name and pipeline in the record. Of each task nothing.
    assert len(large) - len(small) < 40 * HOSTS
    assert len(small) < 600 * (TASKS + HOSTS)
    record = decode(small)
    assert isinstance(record, BatchOpened)
    assert [task.model_dump() for task in record.tasks] == [task.model_dump() for task in pool().tasks]
    assert len({id(task.hosts) for task in record.tasks}) == 1
