"""Another machine answers under a host's name with the pinned key: nothing is asked of it, done there, or believed from it."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.dispatch.files.batch import Batch
from fleet.model.records import HostQuarantined
from tests.conftest import end_processes_of
from tests.support.catalogue import fault
from tests.support.operator import finish, wait_until
from tests.support.small_job import BATCH, SmallJob
from tests.support.sshd_farm import SshdFarm

ONE = "one/gpt/run1"


class Replaced(SmallJob):
    """A detached batch whose eval runs on, and whose host then got the `~/.fleet` of another machine."""

    def __init__(self, directory: Path, farm: SshdFarm) -> None:
        super().__init__(directory, farm, {"eval1": ["one"]}, seconds=40)
        pipeline = directory / "remote_scripts" / "small"
        (pipeline / "tool.sh").write_text("echo tool\n")
        with (pipeline / "pipeline.yaml").open("a") as file:
            file.write("ship: [tool.sh]\n")
        assert self.run("sync", "eval1", "--yes").code == 0
        process = self.start("dispatch", self.assignment)
        wait_until(lambda: any(one["type"] == "started" for one in self.journal()))
        process.send_signal(signal.SIGINT)
        assert finish(process).code == 130
        self.place, self.aside = farm.homes["eval1"] / ".fleet", directory / "own-fleet"
        shutil.move(self.place, self.aside)
        (pipeline / "tool.sh").write_text("echo another\n")
        assert self.run("check", "eval1").code in (0, 2), "a look at another machine is allowed, and gives it an identity"

    def put_back(self) -> None:
        """Bring the right machine back."""
        shutil.rmtree(self.place)
        shutil.move(self.aside, self.place)


@pytest.fixture
def replaced(farm_hosts: SshdFarm, tmp_path: Path) -> Iterator[Replaced]:
    yield Replaced(tmp_path, farm_hosts)
    end_processes_of(farm_hosts.homes["eval1"])


@fault("H3")
def test_no_command_says_anything_of_a_batch_to_another_machine(replaced: Replaced) -> None:
    Batch(replaced.collected, BATCH).journal.append(HostQuarantined(host="eval1", reason="three in a row", attempts=()))
    journal = replaced.journal_file.read_bytes()
    for command in (
        ["collect", BATCH],
        ["collect"],
        ["collect", BATCH, "--again"],
        ["collect", BATCH, "--adopt", "/nowhere"],
        ["logs", "one", "--batch", BATCH],
        ["status", BATCH],
        ["release", "eval1"],
        ["sync", "eval1", "--yes"],
        ["sync", "eval1", "--rollback", "--yes"],
    ):
        said = replaced.run(*command)
        assert said.code & 16, (command, said)
        assert "another machine answers" in said.out + said.err, (command, said)
        assert replaced.journal_file.read_bytes() == journal, (command, "something was believed of it")
    said = replaced.run("cancel", "one", "--batch", BATCH, "--yes")
    assert said.code == 16, said
    assert list((replaced.place / "attempts").glob("*")) == []
    assert not (replaced.place / "pipelines").exists(), "files were given to it"
    assert replaced.states() == {ONE: "running"}

    replaced.put_back()
    said = replaced.run("cancel", "one", "--batch", BATCH, "--yes")
    assert (said.code, "0 processes, 0 containers left" in said.out) == (0, True), said
    assert replaced.run("release", "eval1").code == 0
    assert replaced.run("sync", "eval1", "--yes").code == 0
    assert replaced.run("collect", BATCH).code in (0, 2)
    assert replaced.starts()["one"] == 1


@fault("H3")
def test_a_machine_on_which_nothing_of_any_batch_was_left_may_be_replaced(replaced: Replaced) -> None:
    replaced.put_back()
    assert replaced.run("cancel", "one", "--batch", BATCH, "--yes").code == 0
    assert replaced.run("collect", BATCH).code in (0, 2)
    shutil.rmtree(replaced.place)
    said = replaced.run("sync", "eval1", "--yes", "--json")
    assert (said.code, '"changed"' in said.out) == (0, True), said
    assert replaced.run("collect").code == 0


@fault("H3")
def test_a_changed_machine_has_a_word_of_its_own_and_the_next_step_is_not_its_key(replaced: Replaced) -> None:
    said = replaced.start("dispatch", replaced.assignment, "--patience", "1")
    assert finish(said).code & 16
    for subject in ("eval1", "one"):
        why = replaced.run("why", subject, "--batch", BATCH)
        assert "changed" in why.out, why
        assert f"gone for good, a new batch may run that a second time: fleet dispatch {replaced.assignment}" in why.out, why
        assert "trust" not in why.out, why
    (host,) = replaced.run("status", BATCH, "--json").json["hosts"]
    assert host["link"] == "changed"
    summary = replaced.run("dashboard", BATCH, "--json")
    (shown,) = summary.json["hosts"]
    assert (shown["status"], shown["link"], shown["fix"]) == ("changed", "changed", f"fleet why eval1 --batch {BATCH}")
    assert "fleet trust" not in summary.out
    lost = replaced.run("recover", BATCH, "--dry-run")
    assert lost.code & 16, lost
    assert "fleet trust" not in lost.out
    assert replaced.states() == {ONE: "running"}, "nothing is known of it, and it is not lost"


@fault("H3")
def test_what_a_machine_had_that_is_gone_for_good_is_run_again_by_a_new_batch_only(replaced: Replaced) -> None:
    process = replaced.start("dispatch", replaced.assignment, "--patience", "1")
    assert finish(process).code & 16
    assert replaced.starts()["one"] == 1
    end_processes_of(replaced.farm.homes["eval1"])
    (replaced.farm.homes["eval1"] / "seconds").write_text("0.05")
    assert replaced.run("sync", "eval1", "--yes").code & 16
    assert replaced.run("sync", "eval1", "--yes", "--new-machine").code == 0
    said = replaced.run("dispatch", replaced.assignment, "--hosts", "eval1", "--batch", "anew")
    assert said.code == 0, said
    assert replaced.states("anew") == {ONE: "accepted"}
    assert replaced.states() == {ONE: "running"}, "what became of the first one is as unknown as before"
    said = replaced.run("collect", BATCH)
    assert said.code & 16, said
    assert replaced.run("collect", "anew").code == 0
