"""All hosts are asked at once, each answers for itself, and the whole command says what is wrong and how to mend it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.checks import check_hosts
from fleet.checks.document import document_of, exit_of
from fleet.checks.parallel import on_each_host
from fleet.cli.check import group_problems, render
from fleet.cli.output import Style
from fleet.errors import HostKeyChanged, InputError
from fleet.model.exitcodes import Exit
from fleet.model.findings import Finding, HostReport, Mark
from fleet.model.states import Link
from fleet.testing import local_host
from tests.support.bench_pipeline import Bench
from tests.support.sshd_farm import SshdFarm


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ask(bench: Bench, **settings: Any) -> dict[str, HostReport]:
    reports = check_hosts(bench.hosts, bench.connector, bench.pipelines, bench.source, **settings)
    assert [report.host for report in reports] == [host.name for host in bench.hosts]
    return {report.host: report for report in reports}


def problems(report: HostReport) -> dict[str, str]:
    return {finding.check: finding.message for finding in report.findings if finding.mark is not Mark.OK}


def test_hosts_as_they_should_be_are_ready(bench: Bench) -> None:
    reports = ask(bench)
    assert [problems(report) for report in reports.values()] == [{}, {}, {}]
    assert all(report.ready and report.link is Link.OK and report.seconds > 0 for report in reports.values())


def test_each_host_gets_exactly_one_session(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.testing.local import LocalTransport

    started: list[str] = []
    start = LocalTransport.start

    def counting(transport: LocalTransport, command: str) -> Any:
        started.append(transport.host.name)
        return start(transport, command)

    monkeypatch.setattr(LocalTransport, "start", counting)
    ask(bench)
    assert sorted(started) == ["eval1", "eval2", "eval3"]


def test_an_edited_file_a_lost_bit_and_a_failing_command_are_each_named(bench: Bench) -> None:
    bench.workdir(bench.homes["eval1"]).joinpath("docker.py").write_text("x = 2\n")
    bench.workdir(bench.homes["eval2"]).joinpath("scripts/run.sh").chmod(0o644)
    (bench.homes["eval3"] / ".fleet/pipelines/bench/helper.py").unlink()
    reports = ask(bench)
    assert list(problems(reports["eval1"])) == ["consistency"]
    assert list(problems(reports["eval2"])) == ["scripts"]
    assert "helper.py is not there" in problems(reports["eval3"])["consistency"]


def test_without_a_reference_the_hosts_vote_and_the_outlier_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path, reference=False)
    bench.workdir(bench.homes["eval2"]).joinpath("docker.py").write_text("x = 2\n")
    reports = ask(bench)
    assert [report.ready for report in reports.values()] == [True, False, True]
    assert "(2 of 3 hosts)" in problems(reports["eval2"])["consistency"]


def test_one_host_without_a_reference_is_ready_with_a_warning(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ["eval1"], reference=False)
    report = ask(bench)["eval1"]
    assert report.ready
    assert "no reference to compare with" in problems(report)["consistency"]


def test_a_reference_on_the_command_line_overrides_the_pipelines(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "scripts").mkdir(parents=True)
    (other / "scripts/run.sh").write_text("#!/bin/sh\nexit 1\n")
    (other / "docker.py").write_text("x = 1\n")
    reports = ask(bench, reference=other)
    assert all(str(other) in problems(report)["consistency"] for report in reports.values())


def test_a_host_that_is_down_is_reported_and_the_others_are_checked(bench: Bench) -> None:
    bench.connector.down.add("eval2")
    reports = ask(bench)
    assert [report.link for report in reports.values()] == [Link.OK, Link.UNREACHABLE, Link.OK]
    assert reports["eval2"].error
    assert reports["eval1"].ready


def test_a_host_that_answers_nonsense_is_its_own_finding(bench: Bench) -> None:
    class Liar:
        def probe(self, _questions: Any, deadline_s: float) -> Any:
            raise KeyError("facts")

    import fleet.checks.survey as survey

    original = survey.with_client

    def lying(connector: Any, host: Any, source: bytes, host_uid: str, work: Any) -> Any:
        return work(Liar()) if host.name == "eval3" else original(connector, host, source, host_uid, work)

    survey.with_client = lying
    try:
        reports = ask(bench)
    finally:
        survey.with_client = original
    assert problems(reports["eval3"])["agent"].startswith("the host's answer cannot be read")
    assert reports["eval1"].ready


def test_a_home_that_belongs_to_someone_else_is_a_finding(bench: Bench) -> None:
    home = bench.homes["eval1"]
    (home / ".fleet").rename(home / "elsewhere")
    (home / ".fleet").symlink_to(home / "elsewhere")
    report = ask(bench)["eval1"]
    assert "not a directory owned by this user" in problems(report)["agent"]


def test_an_unknown_pipeline_is_refused_before_any_host_is_asked(bench: Bench) -> None:
    bench.connector.open = None  # type: ignore[assignment,method-assign]
    with pytest.raises(InputError, match="did you mean 'bench'"):
        check_hosts([local_host("eval1", pipeline="bnch")], bench.connector, bench.pipelines, bench.source)


def test_work_on_many_hosts_is_parallel_bounded_and_in_order() -> None:
    hosts = [local_host(f"h{number}") for number in range(12)]
    active, peak, lock = 0, 0, threading.Lock()

    def work(host: Any) -> str:
        nonlocal active, peak
        with lock:
            active += 1
            peak = max(peak, active)
        time.sleep(0.05)
        with lock:
            active -= 1
        return str(host.name)

    seen: list[str] = []
    assert on_each_host(hosts, work, 4, lambda _host, name: seen.append(name)) == [host.name for host in hosts]
    assert peak == 4
    assert sorted(seen) == sorted(host.name for host in hosts)


def test_an_unforeseen_error_on_one_host_is_not_swallowed() -> None:
    def work(_host: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_each_host([local_host("h1")], work, 4)


# --- the answer of the command


def report(name: str, *findings: Finding, link: Link = Link.OK) -> HostReport:
    return HostReport(host=name, link=link, findings=findings, error="no route" if link is not Link.OK else None)


def finding(check: str, mark: Mark, message: str, fix: str = "") -> Finding:
    return Finding(check=check, mark=mark, message=message, fix=fix)


def test_exit_bits_add_up() -> None:
    bad = report("a", finding("disk", Mark.FAIL, "full"))
    warned = report("b", finding("clock", Mark.WARN, "off"))
    assert exit_of([warned]) == Exit.OK
    assert exit_of([bad, warned]) == Exit.FAILED
    assert exit_of([bad, report("c", link=Link.UNREACHABLE)]) == Exit.FAILED | Exit.INCOMPLETE
    assert exit_of([report("c", link=Link.AUTH_FAILED)]) == Exit.INCOMPLETE
    for link in (Link.KEY_CHANGED, Link.KEY_UNKNOWN, Link.CHANGED):
        assert exit_of([report("d", link=link), bad]) == Exit.SAFETY | Exit.FAILED


def test_the_summary_counts_every_host_once() -> None:
    document = document_of([report("a"), report("b", finding("disk", Mark.FAIL, "full")), report("c", link=Link.UNREACHABLE)])
    assert document.summary.model_dump() == {"ready": 1, "not_ready": 1, "unreachable": 1}
    assert [host.ready for host in document.hosts] == [True, False, False]


def test_equal_problems_of_several_hosts_are_one_line_with_one_fix() -> None:
    reports = [
        report(name, finding("docker", Mark.FAIL, "down", f"fleet sync {name}"), finding("clock", Mark.WARN, "off"))
        for name in ("eval1", "eval2", "eval3")
    ]
    assert group_problems(reports) == [
        ((Mark.WARN, "clock: off", ""), ["eval1", "eval2", "eval3"]),
        ((Mark.FAIL, "docker: down", "fleet sync eval1 eval2 eval3"), ["eval1", "eval2", "eval3"]),
    ]
    text = render(reports, Style(color=False))
    assert "✗ eval1, eval2, eval3: docker: down\n    → fleet sync eval1 eval2 eval3" in text
    assert text.splitlines()[-1] == "3 not ready"


def test_one_fix_for_several_problems_in_a_row_is_said_once_below_them() -> None:
    fix = "fleet sync eval1 --reference DIR"
    two = (finding("consistency", Mark.FAIL, "a is not there", fix), finding("consistency", Mark.FAIL, "b is not there", fix))
    text = render([report("eval1", *two, finding("disk", Mark.FAIL, "full", "make room"))], Style(color=False))
    said = ["✗ eval1: consistency: a is not there", "✗ eval1: consistency: b is not there", f"    → {fix}"]
    assert text.splitlines()[3:8] == [*said, "✗ eval1: disk: full", "    → make room"]


def test_the_table_has_a_row_per_host_and_a_sign_per_group() -> None:
    text = render([report("eval1"), report("eval2", link=Link.KEY_CHANGED)], Style(color=False))
    lines = text.splitlines()
    assert lines[0].split() == ["host", "state", "files", "setup", "docker", "disk", "memory", "idle"]
    assert lines[1].split() == ["eval1", "ready", "✓", "✓", "✓", "✓", "✓", "✓"]
    assert lines[2].split()[:3] == ["eval2", "✗", "host-key-changed"]
    assert HostKeyChanged.link == Link.KEY_CHANGED


# --- over real SSH


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshdFarm]:
    with SshdFarm(3, tmp_path_factory.mktemp("farm")) as farm:
        yield farm


def fleet(farm: SshdFarm, bench: Bench, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLEET_REMOTE_SCRIPTS": str(bench.scripts), "FLEET_HOSTS_FILE": str(farm.hosts_file)}
    return subprocess.run(
        [sys.executable, "-m", "fleet", *words], capture_output=True, text=True, timeout=60, env=environment, check=False
    )


@pytest.mark.openssh
def test_the_command_checks_openssh_hosts_and_survives_a_dead_one(farm: SshdFarm, tmp_path: Path) -> None:
    bench = Bench(tmp_path, [])
    for name in farm.names:
        if not (farm.homes[name] / "work").exists():
            bench.furnish(farm.homes[name])
    done = fleet(farm, bench, "check", "--pipeline", "bench")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "3 ready"
    bench.workdir(farm.homes["eval1"]).joinpath("docker.py").write_text("x = 2\n")
    farm.stop_host("eval3")
    try:
        done = fleet(farm, bench, "check", "--pipeline", "bench", "--json")
    finally:
        farm.start_host("eval3")
    assert done.returncode == Exit.FAILED | Exit.INCOMPLETE, done.stderr
    document = json.loads(done.stdout)
    assert document["schema"] == "fleet.check/1"
    assert document["summary"] == {"ready": 1, "not_ready": 1, "unreachable": 1}
    by_name = {host["host"]: host for host in document["hosts"]}
    assert [one["check"] for one in by_name["eval1"]["findings"] if one["mark"] == "fail"] == ["consistency"]
    assert by_name["eval3"]["link"] == "unreachable"
    assert fleet(farm, bench, "check", "eval2", "--pipeline", "bench", "-q").stdout == ""


@pytest.mark.openssh
def test_a_noisy_shell_spoils_no_answer_and_is_named_before_rsync_meets_it(farm: SshdFarm, tmp_path: Path) -> None:
    bench = Bench(tmp_path, [])
    if not (farm.homes["eval2"] / "work").exists():
        bench.furnish(farm.homes["eval2"])
    (farm.homes["eval2"] / ".bashrc").write_text("echo '<<0123 {\"ok\": true}>>'; echo NOISE >&2\n")
    done = fleet(farm, bench, "check", "eval2", "--pipeline", "bench", "--json")
    assert done.returncode == Exit.FAILED, done.stdout + done.stderr
    (host,) = json.loads(done.stdout)["hosts"]
    (problem,) = [one for one in host["findings"] if one["mark"] != "ok"]
    assert (problem["check"], problem["mark"]) == ("shell", "fail")
    assert "<<0123" in problem["message"]
    assert "NOISE" not in problem["message"]
    assert ".bashrc" in problem["fix"]
    (farm.homes["eval2"] / ".bashrc").write_text("echo NOISE >&2\ncase $- in *i*) echo hello;; esac\n")
    assert fleet(farm, bench, "check", "eval2", "--pipeline", "bench").returncode == 0
