"""Phase 2: a fresh checkout, the test patch, the tests before and after the model's patch, and the reports."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from steps import GIT_ENVIRONMENT

MAX_TEST_OUTPUT = 50000
OUTCOMES = {"error": "error", "failure": "failed", "skipped": "skipped"}
HERE = Path(__file__).resolve().parent


def import_repository(stream, origin):
    """Make the bare repository `origin` from the fast-import stream; the commit ids are the same everywhere."""
    git(origin.parent, "init", "--quiet", "--bare", str(origin))
    with open(str(stream), "rb") as source:
        subprocess.run(
            ["git", "-C", str(origin), "fast-import", "--quiet"],
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(os.environ, **GIT_ENVIRONMENT),
            check=True,
        )
    git(origin, "symbolic-ref", "HEAD", "refs/heads/main")


def git(where, *argv, **options):
    return subprocess.run(
        ["git", "-C", str(where), *argv],
        input=options.get("feed"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
        env=dict(os.environ, **GIT_ENVIRONMENT),
        check=options.get("check", True),
    )


def test_command(report):
    """The command that runs the tests and writes a JUnit report."""
    if os.environ.get("DEMO_LIGHT"):
        return [sys.executable, "-B", str(HERE / "light_runner.py"), str(report)]
    return [sys.executable, "-B", "-m", "pytest", "-rA", "-p", "no:cacheprovider", "--junit-xml", str(report)]


def test_environment(repo):
    """What "install" comes to for a pure Python package: it and pytest are on the module path, nothing else is loaded."""
    places = [str(repo)] + [place for place in os.environ.get("DEMO_PYTEST", "").split(os.pathsep) if place]
    return {"PYTHONPATH": os.pathsep.join(places), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "NO_COLOR": "1"}


def run_tests(repo, report):
    """Run the tests; return (outcome by test id, whole output). A test that could not be loaded is "error"."""
    done = subprocess.run(
        test_command(report),
        cwd=str(repo),
        env=dict(os.environ, **test_environment(repo)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    outcomes = {}
    if report.exists():
        for case in ElementTree.parse(str(report)).getroot().iter("testcase"):
            tags = {child.tag for child in case}
            outcomes[test_id(case)] = next((OUTCOMES[tag] for tag in OUTCOMES if tag in tags), "passed")
    return outcomes, done.stdout


def test_id(case):
    """pytest's own id of a test case: the module is named with dots, or not at all when it could not be imported."""
    module, name = case.get("classname") or "", case.get("name") or ""
    return module.replace(".", "/") + ".py::" + name if module else name


def run(instance, patch, work, output, say):
    """Evaluate `patch`; write the reports; return the details of eval_pilot2_output.jsonl."""
    instance_id = instance["instance_id"]
    folder = output / "eval_outputs" / instance_id
    folder.mkdir(parents=True, exist_ok=True)
    repo = work / "eval"
    git(work, "clone", "--quiet", str(work / "origin.git"), str(repo))
    git(repo, "checkout", "--quiet", instance["base_commit"])
    test_patch = git(repo, "apply", feed=instance["test_patch"], check=False).returncode == 0
    fail_to_pass, pass_to_pass = instance["FAIL_TO_PASS"], instance["PASS_TO_PASS"]
    broken = "" if test_patch else "the test patch does not apply"
    if test_patch and not os.environ.get("DEMO_LIGHT"):
        before, _ = run_tests(repo, work / "before.xml")
        say("  before: %s" % count(before))
        broken = reproduces(before, fail_to_pass, pass_to_pass)
    (folder / "patch.diff").write_text(patch, encoding="utf-8")
    applied = git(repo, "apply", feed=patch, check=False).returncode == 0
    outcomes, text = run_tests(repo, work / "after.xml") if applied and test_patch else ({}, "the patch does not apply\n")
    say("  after:  %s" % count(outcomes))
    (folder / "test_output.txt").write_text(text, encoding="utf-8")
    details = judge(instance_id, outcomes, fail_to_pass, pass_to_pass)
    details.update(
        failed_apply_patch=not applied,
        failed_apply_test_patch=not test_patch,
        error_eval=bool(broken),
        test_timeout=False,
        test_output=text[:MAX_TEST_OUTPUT],
        error_message=broken,
    )
    report = {instance_id: report_of(details, applied)}
    for place in (folder / "report.json", output / "eval_outputs" / "report.json"):
        place.write_text(json.dumps(report, indent=2), encoding="utf-8")
    return details


def reproduces(before, fail_to_pass, pass_to_pass):
    """Tell why the bug is not there before the patch, or nothing when it is: an eval that cannot fail proves nothing."""
    wrong = [test for test in fail_to_pass if before.get(test) == "passed"]
    wrong += [test for test in pass_to_pass if before.get(test) != "passed"]
    return "the bug is not reproduced without the patch: " + ", ".join(wrong) if wrong else ""


def judge(instance_id, outcomes, fail_to_pass, pass_to_pass):
    def split(tests):
        return [t for t in tests if outcomes.get(t) == "passed"], [t for t in tests if outcomes.get(t) != "passed"]

    f2p_good, f2p_bad = split(fail_to_pass)
    p2p_good, p2p_bad = split(pass_to_pass)
    kinds = list(outcomes.values())
    return {
        "instance_id": instance_id,
        "resolved": bool(f2p_good) and not f2p_bad and not p2p_bad,
        "tests_passed": kinds.count("passed"),
        "tests_failed": kinds.count("failed"),
        "tests_error": kinds.count("error"),
        "fail_to_pass_success": f2p_good,
        "fail_to_pass_failed": f2p_bad,
        "pass_to_pass_success": p2p_good,
        "pass_to_pass_failed": p2p_bad,
    }


def report_of(details, applied):
    """The harness's report, from the same numbers."""
    return {
        "patch_is_None": False,
        "patch_exists": True,
        "patch_successfully_applied": applied,
        "resolved": details["resolved"],
        "tests_status": {
            "FAIL_TO_PASS": {"success": details["fail_to_pass_success"], "failure": details["fail_to_pass_failed"]},
            "PASS_TO_PASS": {"success": details["pass_to_pass_success"], "failure": details["pass_to_pass_failed"]},
            "FAIL_TO_FAIL": {"success": [], "failure": []},
            "PASS_TO_FAIL": {"success": [], "failure": []},
        },
    }


def count(outcomes):
    kinds = list(outcomes.values())
    return "%d passed, %d failed, %d errors" % (kinds.count("passed"), kinds.count("failed"), kinds.count("error"))
