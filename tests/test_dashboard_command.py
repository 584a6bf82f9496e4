"""`fleet dashboard` as its user runs it: a real process, a journal on disk, no host and no network."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

from fleet.dashboard.figures import Summary
from fleet.dispatch.files.batch import Batch as DiskBatch
from fleet.dispatch.files.journal import Journal
from fleet.model.records import AttemptStarted
from tests.support.batches import Batch, seed_case, task


def environment(collected: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEET_", "COLUMNS", "FORCE_COLOR"))}
    return {**kept, "FLEET_COLLECTED": str(collected)}


def fleet(collected: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fleet", "dashboard", *arguments]
    return subprocess.run(command, env=environment(collected), capture_output=True, text=True, timeout=30, check=False)


def test_without_a_name_the_most_recently_changed_batch_is_shown_and_named(tmp_path: Path) -> None:
    old, new = seed_case(), seed_case(finished=True)
    old.name, new.name = "older", "newer"
    for batch, when in ((new, 2_000_000_000), (old, 1_000_000_000)):
        os.utime(batch.write(tmp_path) / "journal.jsonl", (when, when))
    done = fleet(tmp_path)
    assert done.returncode == 0
    assert "newer is the most recently changed batch; there is also older" in done.stderr
    assert "6 accepted" in done.stdout
    named = fleet(tmp_path, "older")
    assert named.stderr == ""
    assert "2 accepted" in named.stdout


def test_without_any_batch_it_says_what_to_type_and_exits_1(tmp_path: Path) -> None:
    done = fleet(tmp_path / "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no batch below" in done.stderr
    assert "→ fleet dispatch ASSIGNMENT.json" in done.stderr


def test_a_mistyped_batch_is_recognised(tmp_path: Path) -> None:
    seed_case().write(tmp_path)
    done = fleet(tmp_path, "phase9")
    assert done.returncode == 1
    assert "did you mean 'phase8'?" in done.stderr
    assert "→ fleet dashboard phase8" in done.stderr
    assert fleet(tmp_path, "../phase8").returncode == 1


def test_json_is_one_document_of_the_published_shape(tmp_path: Path) -> None:
    folder = seed_case().write(tmp_path)
    done = fleet(tmp_path, "phase8", "--json")
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    summary = Summary.model_validate_json(done.stdout)
    assert (summary.schema_, summary.total.assigned, len(summary.results)) == ("fleet.summary/1", 12, 12)
    written = Summary.model_validate_json((folder / "summary.json").read_bytes())
    assert written.total == summary.total
    assert (folder / "results.csv").is_file()


def test_no_write_writes_nothing_and_quiet_says_nothing(tmp_path: Path) -> None:
    folder = seed_case().write(tmp_path)
    assert "NEEDS YOU" in fleet(tmp_path, "--no-write").stdout
    assert [path.name for path in folder.iterdir()] == ["journal.jsonl"]
    quiet = fleet(tmp_path, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert (folder / "summary.json").is_file()


def test_a_folder_that_cannot_be_written_still_gives_the_view(tmp_path: Path) -> None:
    folder = seed_case().write(tmp_path)
    (folder / "summary.json").mkdir()
    done = fleet(tmp_path)
    assert done.returncode == 0
    assert "not written" in done.stderr
    assert "FUNNEL" in done.stdout


def test_a_batch_of_500_tasks_is_counted_whole(tmp_path: Path) -> None:
    hosts = tuple(f"eval{n}" for n in range(50))
    tasks = [task(f"{1_319_000_000 + n}", "gpt" if n % 2 else "claude", hosts[n % 50]) for n in range(500)]
    batch = Batch(tasks, hosts).ready()
    for number, one in enumerate(tasks[:480]):
        batch.at(number).run(one, hosts[number % 50], elapsed_s=600 + number)
    batch.write(tmp_path)
    done = fleet(tmp_path, "--json")
    total = json.loads(done.stdout)["total"]
    assert (total["assigned"], total["states"]["accepted"], total["states"]["pending"]) == (500, 480, 20)
    assert total["duration_s"]["n"] == 480


def test_live_follows_the_journal_line_by_line_until_the_batch_is_done(tmp_path: Path) -> None:
    one = task("a")
    batch = Batch([one]).ready()
    folder = batch.write(tmp_path)
    written = len(batch.records)
    command = [sys.executable, "-m", "fleet", "dashboard", "--live"]
    with subprocess.Popen(
        command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stderr is not None
        assert "no controller is at work on phase8" in follower.stderr.readline()
        assert "0 of 1 task done; 1 waiting" in follower.stderr.readline()
        attempt = batch.launch(one)
        Journal(folder / "journal.jsonl").append(*batch.records[written:])
        assert "a/gpt/run1 running on eval1" in follower.stderr.readline()
        written = len(batch.records)
        batch.finish(attempt).collect(attempt).judge(attempt, verdict="accepted")
        Journal(folder / "journal.jsonl").append(*batch.records[written:])
        out, said = follower.communicate(timeout=20)
    assert "a/gpt/run1 accepted on eval1, in 10m 00s, resolved" in said
    assert follower.returncode == 0
    assert "█ 1 accepted" in out


def test_ctrl_c_ends_the_live_view_on_a_terminal_and_shows_the_dashboard(tmp_path: Path) -> None:
    folder = seed_case().write(tmp_path)
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "fleet", "dashboard", "--live"]
    env = {**environment(tmp_path), "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(command, env=env, stdin=slave, stdout=slave, stderr=slave) as follower:
        os.close(slave)
        seen = b""
        end = time.monotonic() + 20
        while b"eval4" not in seen and time.monotonic() < end:
            seen += os.read(master, 65_536)
        assert b"MODELS" not in seen
        follower.send_signal(signal.SIGINT)
        try:
            while chunk := os.read(master, 65_536):
                seen += chunk
        except OSError:
            pass
        assert follower.wait(20) == 0
    os.close(master)
    assert b"MODELS" in seen
    assert b"\x1b[?25h" in seen
    assert (folder / "summary.json").is_file()


def test_a_controller_that_was_killed_is_not_taken_for_one_at_work(tmp_path: Path) -> None:
    seed_case().write(tmp_path)
    assert json.loads(fleet(tmp_path, "--json").stdout)["progress"] == "stopped"
    with DiskBatch(tmp_path, "phase8").controlled():
        assert json.loads(fleet(tmp_path, "--json").stdout)["progress"] == "running"


def test_a_journal_that_ends_in_the_middle_of_a_line_is_shown_up_to_there(tmp_path: Path) -> None:
    folder = seed_case().write(tmp_path)
    with (folder / "journal.jsonl").open("ab") as file:
        file.write(AttemptStarted(attempt="x", epoch=1, boot_id="b").model_dump_json().encode()[:40])
    done = fleet(tmp_path)
    assert done.returncode == 0
    assert "2 accepted" in done.stdout


def test_a_table_on_a_narrow_terminal_keeps_to_one_line_per_row_and_every_name_whole(tmp_path: Path) -> None:
    batch = Batch([task("t1"), task("t2")]).ready().blocked("eval1", message="docker does not answer and goes on not to " * 3)
    batch.write(tmp_path)
    command = [sys.executable, "-m", "fleet", "status", "phase8", "--offline"]
    ours, theirs = pty.openpty()
    env = environment(tmp_path) | {"COLUMNS": "60", "NO_COLOR": "1"}
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        assert process.wait(timeout=30) == 0
    lines = os.read(ours, 100_000).decode().splitlines()
    os.close(ours)
    rows = [line for line in lines if line.startswith(("t1/gpt/run1", "t2/gpt/run1", "eval1 "))]
    assert len(rows) == 3 and all(len(row) <= 60 and row.endswith("…") for row in rows)
    piped = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=True).stdout
    assert max(map(len, piped.splitlines())) > 60
