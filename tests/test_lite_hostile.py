"""swebench_lite against tests and patches that attack it, a daemon that is gone and a disk that is full, on a real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.lite import (
    FOLDER,
    SLOW_MACHINE,
    added,
    commit_all,
    containers,
    lite,
    lite_cache,
    local_task,
    orphans,
    parts,
    result,
    write_task,
)
from tests.support.operator import Operator, wait_until

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]


@pytest.fixture
def attack(docker: Engine, tmp_path: Path) -> Any:
    """Return a function that runs a project of one good test with a file that attacks, and returns the result."""
    row = local_task(tmp_path / "project")

    def call(name: str, *lines: str, words: tuple[str, ...] = ("--no-before",), **limits: float) -> dict[str, Any]:
        (tmp_path / "attack.diff").write_text(added(name, *lines))
        path = write_task(tmp_path / "task.json", {**row, "timeouts": {**SLOW_MACHINE, **limits}})
        done = result(lite(docker, "run", path, f"--patch={tmp_path / 'attack.diff'}", *words, cwd=tmp_path))
        assert orphans(docker) == []
        return done

    return call


def test_a_test_can_neither_end_the_driver_nor_write_for_it_nor_read_its_memory(attack: Any) -> None:
    done = attack(
        "test_b.py",
        "import os, pathlib, pytest, signal, time",
        "@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP])",
        "def test_signals(number):",
        "    assert os.getppid() == 1",
        "    os.kill(1, number)",
        "    time.sleep(0.05)",
        "@pytest.mark.parametrize('name', ['fd/0', 'fd/1', 'fd/2', 'mem', 'environ'])",
        "def test_files(name):",
        "    with pytest.raises(PermissionError):",
        "        open('/proc/1/' + name, 'rb')",
        "def test_no_frame():",
        '    print(\'{"code": 0, "late": false, "size": 0}\')',
    )
    assert (done["status"], done["tests"]["counts"]["passed"]) == ("pass", 12), done["tail"]


def test_a_test_that_kills_pytest_is_an_error_and_not_a_pass(attack: Any) -> None:
    done = attack("test_b.py", "import os", "def test_b():", "    os.kill(os.getpid(), 9)")
    assert (done["status"], done["stage"]) == ("error", "tests")
    assert "exit code -9" in done["reason"]


def test_an_early_exit_with_a_report_of_its_own_is_an_error_and_not_a_pass(attack: Any) -> None:
    done = attack(
        "conftest.py",
        "import os",
        "def pytest_collection_finish():",
        "    for name in ('tests', 'before', 'report'):",
        "        with open('/tmp/%s.xml' % name, 'w') as file:",
        '            file.write(\'<testsuites><testcase classname="test_a" name="test_a"/></testsuites>\')',
        "    os._exit(0)",
    )
    assert (done["status"], done["reason"]) == ("error", "pytest left no report")


def test_nothing_that_tests_leave_running_is_there_when_they_have_ended(attack: Any) -> None:
    # It waits until pytest is gone, then turns the report's failure into a success.
    done = attack(
        "test_b.py",
        "import glob, os, time",
        "def test_b():",
        "    parent = os.getpid()",
        "    if os.fork() == 0:",
        "        os.setsid()",
        "        while os.path.exists('/proc/%d' % parent):",
        "            time.sleep(0.001)",
        "        while True:",
        "            for path in glob.glob('/tmp/*.xml'):",
        "                with open(path, 'w') as file:",
        '                    file.write(\'<testsuites><testcase classname="test_b" name="test_b"/></testsuites>\')',
        "    assert False",
    )
    assert (done["status"], done["tests"]["counts"]["failed"]) == ("fail", 1)


def test_what_the_tests_start_before_the_patch_does_not_see_it(docker: Engine, tmp_path: Path) -> None:
    watcher = (
        "import os, time\ndef test_a():\n    path = os.path.abspath('fix.py')\n"
        "    if not os.path.exists(path) and os.fork() == 0:\n        os.setsid()\n        for _ in range(10000):\n"
        "            time.sleep(0.001)\n            if os.path.exists(path):\n                os.unlink(path)\n"
    )
    row = local_task(tmp_path / "project", test_a=watcher, test_fix="def test_fix():\n    import fix\n    assert fix.x\n")
    (tmp_path / "fix.diff").write_text(added("fix.py", "x = 1"))
    path = write_task(tmp_path / "task.json", {**row, "pytest_k": "fix or test_a"})
    done = result(lite(docker, "run", path, f"--patch={tmp_path / 'fix.diff'}", cwd=tmp_path))
    assert done["before"]["counts"] == {"passed": 1, "failed": 1, "error": 0, "skipped": 0}
    assert done["tests"]["counts"]["passed"] == 2 and done["stages"]["before"] < 10


def test_processes_without_end_stop_at_the_limit_and_are_gone(attack: Any) -> None:
    done = attack(
        "test_b.py",
        "import os, time",
        "def test_b():",
        "    for number in range(5000):",
        "        try:",
        "            if os.fork() == 0:",
        "                time.sleep(600)",
        "        except OSError:",
        "            break",
        "    assert 100 < number < 1024",
    )
    assert done["status"] == "pass", done["tail"]


def test_orphans_that_have_ended_do_not_count(attack: Any) -> None:
    done = attack(
        "test_b.py",
        "import os",
        "def test_b():",
        "    for _ in range(2000):",
        "        if (child := os.fork()) == 0:",
        "            try:",
        "                os.fork()",
        "            except OSError:",
        "                os._exit(1)",
        "            os._exit(0)",
        "        assert os.waitpid(child, 0)[1] == 0",
    )
    assert done["status"] == "pass", done["tail"]


def test_memory_without_end_is_an_error_of_the_tests(attack: Any, monkeypatch: pytest.MonkeyPatch, docker: Engine) -> None:
    monkeypatch.setitem(docker.env, "LITE_MEMORY", "128m")
    done = attack("test_b.py", "def test_b():", "    assert len(b'x' * 1024 ** 3)")
    assert (done["status"], done["stage"]) == ("error", "tests")


@pytest.mark.parametrize(
    ("what", "status", "reason"),
    [
        ("shutil.rmtree('.', ignore_errors=True)", "pass", None),
        ("shutil.rmtree(os.getcwd())", "error", "pytest left no report"),
    ],
)
def test_tests_that_remove_the_project_are_judged_by_what_pytest_makes_of_it(
    attack: Any, what: str, status: str, reason: str | None
) -> None:
    done = attack("test_z.py", "import os, shutil", "def test_z():", "    " + what)
    assert (done["status"], done["reason"]) == (status, reason)


def test_output_without_end_and_bytes_that_are_no_text_leave_a_tail_that_can_be_shown(attack: Any) -> None:
    done = attack(
        "conftest.py",
        "import os",
        "def pytest_unconfigure():",
        "    line = b'\\xff\\xfe\\x00\\x1b[31mred\\x1b]0;title\\x07\\x9b2J\\r\\x08' + b'x' * 60 + b'\\n'",
        "    for _ in range(20):",
        "        os.write(2, line * 20000)",
        "    os.write(2, b'the \\x1b[1mlast\\x1b[0m line\\n')",
    )
    assert done["status"] == "pass"
    assert "x\nthe last line\n" in done["tail"]
    kept = Path(done["directory"], "pytest_tail.txt").read_text()
    assert kept == done["tail"] and all(char.isprintable() or char in "\n\t\ufffd" for char in kept)
    assert "title" not in kept and "[31m" not in kept


def test_a_hanging_test_is_ended_with_its_children_and_the_container_can_still_be_used(docker: Engine) -> None:
    with parts() as part, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", docker.env.get("DOCKER_HOST", ""))
        sandbox = part("sandbox").DockerSandbox("swebench-lite:py3.10", 60)
        try:
            with pytest.raises(part("errors").StageTimeout) as late:
                sandbox.run("tests", ["sh", "-c", "echo begun; sleep 600 & sleep 600"], 1)
            assert late.value.output == "begun\n"
            listed = sandbox.run("tests", ["sh", "-c", "cat /proc/[0-9]*/comm; cat"], 10, feed=b"fed\n" * 100_000)
            assert "sleep" not in listed.output and listed.output.endswith("fed\n" * 100_000)
            assert sandbox.run("tests", ["no-such-program"], 10).code == 127
            assert sandbox.run("tests", ["cat"], 10, feed=b"\xff" * 3_000_000).raw == b"\xff" * 3_000_000
        finally:
            sandbox.close()


def test_a_runner_that_is_killed_takes_its_container_along(docker: Engine, tmp_path: Path) -> None:
    (tmp_path / "hang.diff").write_text(added("conftest.py", "import time", "time.sleep(600)"))
    path = write_task(tmp_path / "task.json", local_task(tmp_path / "project"))
    argv = [sys.executable, "-B", str(FOLDER / "lite.py"), "run", str(path), f"--patch={tmp_path / 'hang.diff'}", "--no-before"]
    process = subprocess.Popen(
        argv, env=docker.env | {"LITE_CACHE": lite_cache()}, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(lambda: process.pid in containers(docker).values())
    process.kill()
    process.wait()
    wait_until(lambda: process.pid not in containers(docker).values())


@pytest.mark.parametrize(("change", "words"), [("daemon", "docker info"), ("client", "docker is not installed")])
def test_without_docker_it_says_what_is_missing_and_what_to_type(
    docker: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, words: str
) -> None:
    if change == "daemon":
        monkeypatch.setitem(docker.env, "DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    else:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").symlink_to("/usr/bin/git")
        monkeypatch.setitem(docker.env, "PATH", str(tmp_path / "bin"))
    done = result(lite(docker, "run", write_task(tmp_path / "task.json", local_task(tmp_path / "project")), cwd=tmp_path))
    assert (done["status"], done["stage"]) == ("error", "image")
    assert words in done["reason"]


def test_a_full_disk_is_this_machines_own_failure_and_leaves_no_container(docker: Engine, tmp_path: Path) -> None:
    path = write_task(tmp_path / "task.json", local_task(tmp_path / "project"))
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k,nr_inodes=8", "tmpfs", str(full)], check=True, timeout=20)
    try:
        (full / "filled").write_bytes(b"x" * 8192)
        said = lite(docker, "run", path, f"--directory={full}", cwd=tmp_path)
        assert (said.returncode, said.stdout) == (32, "")
        assert "No space left on device" in said.stderr
        env = {"LITE_CACHE": lite_cache(), **{key: value for key, value in docker.env.items() if key == "DOCKER_HOST"}}
        told = Operator(tmp_path, tmp_path / "hosts.yaml", env).run("lite", "run", path, "--directory", full)
        assert (told.code, told.out) == (32, "") and "--directory DIR" in told.err
    finally:
        subprocess.run(["umount", str(full)], check=True, timeout=20)
    assert orphans(docker) == []


def test_another_commit_of_a_repository_installs_from_its_own_wheels_without_network(docker: Engine, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITE_CACHE", str(tmp_path / "cache"))
        row = local_task(tmp_path / "project", test_a="import sortedcontainers\ndef test_a():\n    assert 1\n")
        row["requirements"] = ["sortedcontainers==2.4.0"]
        first = result(lite(docker, "run", write_task(tmp_path / "task.json", row), cwd=tmp_path))
        assert (first["status"], first["cached"]) == ("pass", False), first
        (tmp_path / "project" / "more.py").write_text("x = 1\n")
        commit_all(tmp_path / "project")
        patch.setitem(docker.env, "LITE_NETWORK", "none")
        second = result(lite(docker, "run", write_task(tmp_path / "task.json", row), cwd=tmp_path))
        assert (second["status"], second["cached"]) == ("pass", False), second
        assert second["environment"] != first["environment"]
        assert "lite-wheels/sortedcontainers" in Path(second["directory"], "install_tail.txt").read_text()
        third = result(lite(docker, "run", write_task(tmp_path / "task.json", row), cwd=tmp_path))
        assert (third["status"], third["cached"], third["environment"]) == ("pass", True, second["environment"])
        assert "install" not in third["stages"] and third["stages"]["clone"] < 1
        other = local_task(tmp_path / "other")
        stranger = result(
            lite(docker, "run", write_task(tmp_path / "o.json", {**other, "requirements": row["requirements"]}), cwd=tmp_path)
        )
        assert (stranger["status"], stranger["stage"]) == ("error", "install")
        assert len(os.listdir(tmp_path / "cache" / "wheels")) == 1
