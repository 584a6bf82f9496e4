"""A damaged journal is never taken for "nothing has been done": the controller stops before it asks any host."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleet.cli.main import run
from tests.support.catalogue import fault
from tests.support.operator import finish, wait_until
from tests.support.small_job import SmallJob
from tests.support.sshd_farm import SshdFarm

SEED = 8
FLIPS = 60


@dataclass
class Finished:
    """A batch that is over, and copies of it to damage."""

    job: SmallJob
    directory: Path
    capsys: pytest.CaptureFixture[str]
    copies: int = 0

    @property
    def lines(self) -> list[bytes]:
        return self.job.journal_file.read_bytes().splitlines(keepends=True)

    def copy(self) -> Path:
        """Return the journal of a fresh copy of everything."""
        self.copies += 1
        collected = self.directory / f"copy{self.copies}"
        shutil.copytree(self.job.collected, collected)
        return collected / "small" / "journal.jsonl"

    def dispatch(self, journal: Path) -> tuple[int, str]:
        """Dispatch the assignment again on a copy; return the exit code and what was said."""
        words = ["dispatch", str(self.job.assignment), "--hosts-file", str(self.job.directory / "hosts.yaml")]
        code = run([*words, "--collected", str(journal.parent.parent), "-q"])
        return code, self.capsys.readouterr().err

    def refused(self, journal: Path) -> str:
        """Prove that a damaged copy is refused without a login and left as it is; return the message."""
        before, logins = (journal.read_bytes() if journal.exists() else None), self.job.contacts()
        code, said = self.dispatch(journal)
        assert code == 32, said
        assert "fleet recover small" in said
        assert (journal.read_bytes() if journal.exists() else None) == before
        assert self.job.contacts() == logins
        return said


@pytest.fixture(scope="module")
def finished_job(sshd_farm: SshdFarm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallJob]:
    job = SmallJob(tmp_path_factory.mktemp("journal"), sshd_farm, {"eval1": ["journal-1", "journal-2"]})
    assert job.run("dispatch", job.assignment).code == 0
    yield job
    job.end()


@pytest.fixture
def finished(
    finished_job: SmallJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Finished:
    monkeypatch.chdir(finished_job.directory)
    return Finished(finished_job, tmp_path, capsys)


@fault("C8")
def test_a_journal_cut_before_its_last_write_is_refused_wherever_it_is_cut(finished: Finished) -> None:
    lines = finished.lines
    ends = [sum(map(len, lines[:number])) for number in range(1, len(lines))]
    for number, end in enumerate(ends[:-1]):
        for cut in (end, end + len(lines[number + 1]) // 2):
            if cut >= ends[-1]:
                continue
            journal = finished.copy()
            with journal.open("r+b") as file:
                file.truncate(cut)
            assert "missing from its end" in finished.refused(journal)


@fault("C8")
def test_a_torn_last_line_is_ignored_with_a_warning_and_set_aside(finished: Finished) -> None:
    journal = finished.copy()
    whole, logins = journal.read_bytes(), finished.job.contacts()
    with journal.open("r+b") as file:
        file.truncate(len(whole) - 7)
    words = ["dispatch", str(finished.job.assignment), "--hosts-file", str(finished.job.directory / "hosts.yaml")]
    code = run([*words, "--collected", str(journal.parent.parent)])
    said = finished.capsys.readouterr().err
    assert code == 0, said
    assert "its last line is torn and ignored" in said
    assert finished.lines[-1][:-7] in (journal.parent / "journal.torn").read_bytes()
    assert journal.read_bytes().count(b'"type":"attempt"') == whole.count(b'"type":"attempt"')
    assert finished.job.contacts() == logins


@fault("C8")
@pytest.mark.parametrize("left", [b"", b"\n", b'{"v":1,"type":"batch"', b"\0" * 4096], ids=["empty", "blank", "torn", "zeros"])
def test_a_journal_without_a_record_is_not_an_empty_batch(finished: Finished, left: bytes) -> None:
    journal = finished.copy()
    journal.write_bytes(left)
    finished.refused(journal)
    code = run(["status", "small", "--offline", "--collected", str(journal.parent.parent)])
    assert (code, finished.capsys.readouterr().out) == (32, "")


@fault("C8")
def test_a_deleted_journal_is_not_an_empty_batch(finished: Finished) -> None:
    journal = finished.copy()
    journal.unlink()
    assert "is gone, and the batch had been begun" in finished.refused(journal)
    assert not journal.exists()


@fault("C8")
def test_garbage_in_the_middle_is_named_by_its_line(finished: Finished) -> None:
    for number in (1, len(finished.lines) // 2):
        journal = finished.copy()
        lines = finished.lines
        journal.write_bytes(b"".join([*lines[:number], b"\0\xff garbage\n", *lines[number:]]))
        assert f"line {number + 1} is not a journal record" in finished.refused(journal)


@fault("C8")
def test_a_flipped_bit_in_any_record_is_noticed(finished: Finished) -> None:
    choice = random.Random(SEED)
    lines = finished.lines
    for _ in range(FLIPS):
        number = choice.randrange(len(lines))
        body = lines[number].index(b',"crc"')
        place, bit = choice.randrange(body), 1 << choice.randrange(8)
        journal = finished.copy()
        damaged = bytearray(lines[number])
        damaged[place] ^= bit
        journal.write_bytes(b"".join([*lines[:number], bytes(damaged), *lines[number + 1 :]]))
        finished.refused(journal)
        shutil.rmtree(journal.parent.parent)


@fault("C8")
def test_a_journal_deleted_under_a_running_controller_stops_it_and_the_same_command_says_so(
    farm_hosts: SshdFarm, tmp_path: Path
) -> None:
    job = SmallJob(tmp_path, farm_hosts, {"eval2": ["gone-1"]}, seconds=1.0)
    process = job.start("dispatch", job.assignment)
    wait_until(lambda: job.starts() == {"gone-1": 1})
    job.journal_file.unlink()
    said = finish(process)
    assert (said.code, job.journal_file.exists()) == (32, False)
    assert "fleet recover small" in said.err
    assert job.run("dispatch", job.assignment).code == 32
    assert job.starts() == {"gone-1": 1}
