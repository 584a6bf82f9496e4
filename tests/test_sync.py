"""The critical files reach the hosts: shown, backed up, verified, undone, and never under a running eval."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fleet.checks import check_hosts
from fleet.cli.output import Style
from fleet.cli.sync import render
from fleet.errors import InputError
from fleet.model.exitcodes import Exit
from fleet.sync import bundle_of, rollback_hosts, sync_hosts
from fleet.sync.document import HostSync, Outcome, document_of, exit_of
from tests.support.bench_pipeline import FILES, Bench
from tests.support.sshd_farm import SshdFarm


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def sync(bench: Bench, **settings: Any) -> dict[str, HostSync]:
    bundle = bundle_of(bench.pipelines.get("bench"), bench.pipelines.folder("bench"))
    return {
        one.host: one
        for one in sync_hosts(bench.hosts, bench.connector, {"bench": bundle}, bench.source, machine=lambda _: "", **settings)
    }


def rollback(bench: Bench, backup: str | None = None) -> dict[str, HostSync]:
    pipelines = {"bench": bench.pipelines.get("bench")}
    results = rollback_hosts(bench.hosts, bench.connector, pipelines, bench.source, machine=lambda _: "", backup=backup)
    return {one.host: one for one in results}


def docker_py(bench: Bench, name: str) -> Path:
    return bench.workdir(bench.homes[name]) / "docker.py"


@contextmanager
def held_lock(home: Path) -> Iterator[None]:
    """Hold the host lock as a running eval does."""
    with (home / ".fleet" / "host.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_hosts_as_they_should_be_stay_untouched(bench: Bench) -> None:
    before = docker_py(bench, "eval1").stat()
    results = sync(bench)
    assert [(one.outcome, one.unchanged, one.backups) for one in results.values()] == [(Outcome.UNCHANGED, 3, ())] * 3
    assert docker_py(bench, "eval1").stat().st_mtime_ns == before.st_mtime_ns


def test_a_dry_run_shows_what_differs_and_writes_nothing(bench: Bench) -> None:
    docker_py(bench, "eval2").write_text("x = 2\n")
    results = sync(bench, dry_run=True)
    (change,) = results["eval2"].changed
    assert (results["eval2"].outcome, change.path) == (Outcome.WOULD_CHANGE, "docker.py")
    assert change.before != change.after
    assert docker_py(bench, "eval2").read_text() == "x = 2\n"
    assert results["eval1"].outcome is Outcome.UNCHANGED


def test_after_a_sync_the_check_is_green(bench: Bench) -> None:
    docker_py(bench, "eval1").write_text("x = 2\n")
    docker_py(bench, "eval2").unlink()
    bench.workdir(bench.homes["eval3"]).joinpath("scripts/run.sh").chmod(0o600)
    (bench.homes["eval3"] / ".fleet/pipelines/bench/helper.py").unlink()
    results = sync(bench)
    assert all(one.outcome is Outcome.CHANGED and one.verified for one in results.values())
    reports = check_hosts(bench.hosts, bench.connector, bench.pipelines, bench.source)
    assert all(report.ready for report in reports), [report.problems for report in reports]
    assert docker_py(bench, "eval2").read_bytes() == FILES["docker.py"]


def test_a_rollback_restores_what_was_replaced_and_removes_what_was_new(bench: Bench) -> None:
    docker_py(bench, "eval1").write_text("precious\n")
    docker_py(bench, "eval1").chmod(0o640)
    docker_py(bench, "eval2").unlink()
    sync(bench)
    results = rollback(bench)
    assert [one.outcome for one in results.values()] == [Outcome.ROLLED_BACK, Outcome.ROLLED_BACK, Outcome.FAILED]
    assert docker_py(bench, "eval1").read_text() == "precious\n"
    assert docker_py(bench, "eval1").stat().st_mode & 0o777 == 0o640
    assert not docker_py(bench, "eval2").exists()
    assert "no backup" in (results["eval3"].error or "")


def test_a_named_backup_is_the_one_that_is_put_back(bench: Bench) -> None:
    docker_py(bench, "eval1").write_text("first\n")
    first = sync(bench)["eval1"].backups[0].id
    docker_py(bench, "eval1").write_text("second\n")
    sync(bench)
    assert rollback(bench, first)["eval1"].outcome is Outcome.ROLLED_BACK
    assert docker_py(bench, "eval1").read_text() == "first\n"


def test_the_files_of_an_included_pipeline_are_synced_and_compared(bench: Bench) -> None:
    other = bench.scripts / "runner"
    other.mkdir()
    (other / "pipeline.yaml").write_text(
        "schema: fleet.pipeline/1\nname: runner\nworkdir: ~/w\nship: [run.py]\ncommand: [run]\noutputs: {root: out}\n"
    )
    (other / "run.py").write_text("z = 3\n")
    with (bench.scripts / "bench" / "pipeline.yaml").open("a") as file:
        file.write("include: runner\n")
    told = sync(bench)["eval1"]
    assert [one.path for one in told.changed] == ["run.py"] and told.verified
    placed = bench.homes["eval1"] / ".fleet/pipelines/bench/run.py"
    assert placed.read_text() == "z = 3\n"
    placed.write_text("z = 4\n")
    (report,) = check_hosts(bench.hosts[:1], bench.connector, bench.pipelines, bench.source)
    (wrong,) = [finding for finding in report.findings if finding.check == "consistency" and finding.fix]
    assert "bench/run.py is" in wrong.message and "(remote_scripts/runner)" in wrong.message
    assert wrong.fix == "fleet sync eval1"


def test_a_shipped_file_goes_back_only_by_name(bench: Bench) -> None:
    shipped = bench.homes["eval1"] / ".fleet/pipelines/bench/helper.py"
    shipped.write_text("old\n")
    (backup,) = sync(bench)["eval1"].backups
    assert rollback(bench)["eval1"].outcome is Outcome.FAILED
    assert rollback(bench, backup.id)["eval1"].outcome is Outcome.ROLLED_BACK
    assert shipped.read_text() == "old\n"


def test_a_host_with_a_running_eval_is_refused_and_the_others_go_on(bench: Bench) -> None:
    for name in bench.homes:
        docker_py(bench, name).write_text("x = 3\n")
    sync(bench)
    for name in bench.homes:
        docker_py(bench, name).write_text("x = 2\n")
    with held_lock(bench.homes["eval2"]):
        results = sync(bench)
        undone = rollback(bench)
    assert [one.outcome for one in results.values()] == [Outcome.CHANGED, Outcome.BUSY, Outcome.CHANGED]
    assert undone["eval2"].outcome is Outcome.BUSY
    assert docker_py(bench, "eval2").read_text() == "x = 2\n"
    assert exit_of(list(results.values())) == Exit.OWNED


def test_a_foreign_eval_keeps_the_files_as_they_are(bench: Bench) -> None:
    docker_py(bench, "eval1").write_text("x = 2\n")
    foreign = subprocess.Popen([sys.executable, "-c", "input()", "fleet-test-foreign-eval"], stdin=subprocess.PIPE)
    try:
        result = sync(bench)["eval1"]
    finally:
        foreign.communicate(b"\n")
    assert (result.outcome, f"pid {foreign.pid}" in (result.error or "")) == (Outcome.BUSY, True)
    assert docker_py(bench, "eval1").read_text() == "x = 2\n"


def test_a_link_that_leads_out_of_the_work_directory_is_refused(bench: Bench, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    scripts = bench.workdir(bench.homes["eval1"]) / "scripts"
    scripts.joinpath("run.sh").unlink()
    scripts.rmdir()
    scripts.symlink_to(outside)
    result = sync(bench)["eval1"]
    assert result.outcome is Outcome.FAILED
    assert "leads out of" in (result.error or "")
    assert list(outside.iterdir()) == []


def test_a_host_that_is_down_does_not_stop_the_others(bench: Bench) -> None:
    bench.connector.down.add("eval1")
    docker_py(bench, "eval2").write_text("x = 2\n")
    results = sync(bench)
    assert [one.outcome for one in results.values()] == [Outcome.UNREACHABLE, Outcome.CHANGED, Outcome.UNCHANGED]
    assert exit_of(list(results.values())) == Exit.INCOMPLETE


def test_a_pipeline_with_nothing_to_put_is_refused_with_the_way_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, reference=False)
    pipeline = bench.pipelines.get("bench").model_copy(update={"ship": ()})
    with pytest.raises(InputError, match="has no reference directory") as caught:
        bundle_of(pipeline, bench.pipelines.folder("bench"))
    assert "--reference DIR" in caught.value.hint


def test_equal_changes_are_shown_once_with_old_and_new_digest(bench: Bench) -> None:
    for name in ("eval1", "eval2"):
        docker_py(bench, name).write_text("x = 2\n")
    results = list(sync(bench).values())
    text = render(results, Style(color=False))
    assert "✓ eval1, eval2: written and verified" in text
    assert text.count("docker.py") == 1
    assert "→ undo: fleet sync eval1 eval2 --rollback" in text
    assert "✓ eval3: 3 files are as they should be" in text
    assert document_of(results).summary == {Outcome.UNCHANGED: 1, Outcome.CHANGED: 2}


@pytest.mark.openssh
def test_the_command_syncs_over_openssh_and_rolls_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "bench", [])
    with SshdFarm(2, tmp_path / "farm") as farm:
        for home in farm.homes.values():
            bench.furnish(home)
        target = bench.workdir(farm.homes["eval2"]) / "docker.py"
        target.write_text("x = 2\n")

        def fleet(*words: str) -> subprocess.CompletedProcess[str]:
            environment = {**os.environ, "FLEET_REMOTE_SCRIPTS": str(bench.scripts)}
            argv = [sys.executable, "-m", "fleet", "--hosts-file", str(farm.hosts_file), *words, "--pipeline", "bench"]
            return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment, check=False)

        shown = fleet("sync", "--dry-run")
        assert (shown.returncode, "eval2: would be written" in shown.stdout) == (0, True), shown.stderr
        assert fleet("check").returncode == Exit.FAILED
        written = fleet("sync", "--json")
        assert written.returncode == 0, written.stderr
        document = json.loads(written.stdout)
        assert document["schema"] == "fleet.sync/1"
        assert document["summary"] == {"unchanged": 1, "changed": 1}
        assert fleet("check").returncode == 0
        with held_lock(farm.homes["eval2"]):
            assert fleet("sync", "eval2", "--rollback").returncode == Exit.OWNED
        assert fleet("sync", "eval2", "--rollback").returncode == 0
        assert target.read_text() == "x = 2\n"
        assert fleet("sync", "eval2", "--rollback", "--dry-run").returncode == Exit.INPUT
