"""The journal survives a writer that dies in the middle of a line, and never calls unreadable "empty"."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import threading
import time
from pathlib import Path

import pytest

from fleet.dispatch.files.journal import Journal
from fleet.dispatch.state.replay import replay
from fleet.errors import StorageError
from fleet.model.records import BatchHalted, LinkChanged
from fleet.model.states import Link


def halted(number: int) -> BatchHalted:
    return BatchHalted(reason=f"reason {number}")


def reasons(journal: Journal) -> list[str]:
    return [record.reason for record in journal.read() if isinstance(record, BatchHalted)]


def test_what_was_appended_is_read_back_in_order_with_its_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1), LinkChanged(host="h", link=Link.OK))
    journal.append(halted(2))
    assert reasons(journal) == ["reason 1", "reason 2"]
    assert all(record.t.endswith("Z") for record in journal.read())


def test_the_file_is_the_owners_alone_under_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        Journal(tmp_path / "journal.jsonl").append(halted(1))
    finally:
        os.umask(before)
    assert (tmp_path / "journal.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_last_line_is_left_out_and_set_aside_by_the_next_writer(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1), halted(2))
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-cut])
    assert reasons(journal) == ["reason 1"]
    journal.append(halted(3))
    assert reasons(journal) == ["reason 1", "reason 3"]
    assert b'"type":"halted"' in (tmp_path / "journal.torn").read_bytes()


def test_a_damaged_line_is_an_error_that_names_it_and_never_an_empty_batch(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1), halted(2), halted(3))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + b"\x00garbage\n" + lines[2])
    with pytest.raises(StorageError, match="line 2"):
        journal.read()


def test_a_record_type_of_a_later_version_is_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1))
    with journal.path.open("ab") as file:
        file.write(json.dumps({"v": 9, "type": "telepathy", "x": 1}).encode() + b"\n")
    journal.append(halted(2))
    assert reasons(journal) == ["reason 1", "reason 2"]


def test_a_field_of_a_later_version_is_ignored(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1))
    document = json.loads(journal.path.read_bytes())
    journal.path.write_text(json.dumps({**document, "mood": "calm"}) + "\n")
    assert reasons(journal) == ["reason 1"]


def test_a_record_that_is_taken_back_was_never_seen_by_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1))
    asked = threading.Event()

    def fail_slowly(_: int) -> None:
        asked.set()
        time.sleep(0.1)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fleet.dispatch.files.journal.os.fsync", fail_slowly)
    seen: list[list[str]] = []
    reader = threading.Thread(target=lambda: (asked.wait(5), seen.append(reasons(Journal(journal.path)))))
    reader.start()
    with pytest.raises(StorageError, match="Input/output error"):
        Journal(journal.path).append(halted(2))
    reader.join(10)
    assert seen == [["reason 1"]]


def test_a_writer_that_was_suspended_holds_up_other_writers_with_a_reason_and_readers_not_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.dispatch.files.journal.READ_WAIT_S", 0.1)
    monkeypatch.setattr("fleet.dispatch.files.journal.WRITE_WAIT_S", 0.2)
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1))
    with journal.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert reasons(journal) == ["reason 1"]
        with pytest.raises(StorageError, match="another process has held it"):
            journal.append(halted(2))
    journal.append(halted(3))
    assert reasons(journal) == ["reason 1", "reason 3"]


def test_a_journal_that_was_replaced_or_removed_is_not_gone_on_with(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append(halted(1))
    journal.append(halted(2))
    journal.path.rename(tmp_path / "aside")
    with pytest.raises(StorageError):
        journal.append(halted(3))
    assert not journal.path.exists()
    Journal(journal.path).append(halted(4))
    for act in (journal.read, lambda: journal.append(halted(5))):
        with pytest.raises(StorageError, match="was replaced"):
            act()
    assert reasons(Journal(journal.path)) == ["reason 4"]


def _append_many(path: Path, name: int) -> None:
    journal = Journal(path)
    for number in range(20):
        journal.append(halted(name * 1000 + number))


def test_several_processes_append_without_losing_or_mixing_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, name)) for name in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    found = reasons(Journal(path))
    assert len(found) == 60
    for name in range(3):
        own = [reason for reason in found if int(reason.split()[1]) // 1000 == name]
        assert own == [f"reason {name * 1000 + number}" for number in range(20)]


def _append_with_limit(path: Path, limit: int, answer: multiprocessing.Queue[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        Journal(path).append(halted(2))
        answer.put("written")
    except StorageError as error:
        answer.put(error.message)


def test_a_full_disk_is_an_error_and_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    Journal(path).append(halted(1))
    before = path.read_bytes()
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[str] = context.Queue()
    writer = context.Process(target=_append_with_limit, args=(path, len(before) + 10, answer))
    writer.start()
    message = answer.get(timeout=30)
    writer.join(30)
    assert "cannot be written" in message
    assert path.read_bytes() == before


def test_a_journal_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("")
    (tmp_path / "journal.jsonl").symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError):
        Journal(tmp_path / "journal.jsonl").append(halted(1))
    assert (tmp_path / "victim").read_bytes() == b""


OLD = (
    '{"v":1,"t":"2026-11-20T12:00:00.000Z","type":"batch","batch":"b","assignment_sha256":"0","controller":"me","tasks":['
    '{"key":{"instance_id":"i-1","model":"gpt"},"dataset_file":"/d/1","place":"*","hosts":["h1","h2"]},'
    '{"key":{"instance_id":"i-2","model":"gpt"},"dataset_file":"/d/2","place":"*","hosts":["h1","h2"]},'
    '{"key":{"instance_id":"i-3","model":"gpt"},"dataset_file":"/d/3","place":"h2","hosts":["h2"]}],'
    '"hosts":{"h1":"tiny","h2":"tiny"}}\n'
)
"""As the versions wrote it that repeated the hosts of a pool in each of its tasks."""


def test_an_old_journal_loads_and_goes_on_in_the_form_of_today(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_text(OLD)
    before = journal.read()
    (opened,) = before
    journal.append(opened)
    after = journal.path.read_bytes().split(b"\n")[1]
    assert json.loads(after)["pools"] == [["h1", "h2"]]
    assert [task.get("pool") for task in json.loads(after)["tasks"]] == [0, 0, None]
    assert journal.read() == before * 2
    assert replay(journal.read()).tasks == replay(before).tasks


@pytest.mark.parametrize("pool", [1, -1, True, "0", 0.0])
def test_a_task_of_a_pool_that_is_not_there_is_damage(tmp_path: Path, pool: object) -> None:
    document = json.loads(OLD)
    for task in document["tasks"]:
        task.update(pool=pool)
        del task["hosts"]
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_text(json.dumps(document | {"pools": [["h1", "h2"]]}) + "\n")
    with pytest.raises(StorageError, match="names pool"):
        journal.read()
