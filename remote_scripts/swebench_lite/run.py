"""One run of one task: clone, install, patch, tests, each within its limit and all within the cap.

`status` is one of four: pass, fail, error (with the stage that failed) and timeout (with the stage that was ended).
It comes from pytest's own report and exit code; words that a test prints decide nothing.
"""

import json
import os
import secrets
import time
from pathlib import Path

import patch as patches
import report as reports
import sandbox as boxes
from errors import StageError, StageTimeout
from source import Source

IMAGE = "swebench-lite:py3.10"
SCHEMA = "fleet.lite-run/1"
PATCH_S = 5.0
TAIL = 4000
STARTING_S = 10.0
"""What starting the container may add to the life of a run."""


class Settings:
    """Where runs and caches are, and what they run in."""

    def __init__(self, directory="sandbox", kind="docker", image=IMAGE, before=False):
        self.directory = Path(directory).expanduser().resolve()
        self.cache = Path(os.environ.get("LITE_CACHE") or "~/.cache/swebench-lite").expanduser()
        self.kind = kind
        self.image = image
        self.before = before


class Run:
    """One run; `execute` returns the result document and leaves it in the run's own directory."""

    def __init__(self, task, settings, patch=None):
        self.task = task
        self.settings = settings
        self.patch = patch
        self.stages = {}
        self.started = time.monotonic()
        self.report = None
        self.before = None
        self.test_output = ""
        self.applied = {"state": "none" if patch is None else "given", "way": None, "test_patch": None}
        self.image = None
        self.cached = False
        self.tag = ""

    def execute(self):
        """Run the task; whatever goes wrong is in the result."""
        status, stage, reason, tail = "error", None, None, ""
        try:
            status = self._stages()
            tail = self.test_output
        except StageTimeout as error:
            status, stage, reason, tail = "timeout", error.stage, str(error), error.output
        except StageError as error:
            stage, reason, tail = error.stage, str(error), error.output or self.test_output
        if stage == "tests":
            self.test_output = tail
        return self._keep(status, stage, reason, tail)

    def _stages(self):
        if self.patch is not None:
            try:
                patches.guard(self.patch, self.task.test_patch)
            except patches.Refused:
                self.applied["state"] = "refused"
                raise
        source = Source(self.task.repo, self.task.ref, self.settings.cache)
        with self._timed("clone") as limit_s:
            commit = source.commit(limit_s)
        sandbox, fresh = self._open(source, commit)
        try:
            if fresh:
                self._prepare(sandbox, source, commit)
            sandbox.go_offline()
            if self.settings.before:
                self._test_patch(sandbox)
                self.before, _ = self._tests(sandbox, "before")
                sandbox.run("patch", ["git", "reset", "--quiet", "--hard"], PATCH_S, check=True)
                sandbox.run("patch", ["git", "clean", "--quiet", "-d", "--force"], PATCH_S, check=True)
            with self._timed("patch", PATCH_S):
                self._patch(sandbox)
                self._test_patch(sandbox)
            self.report, self.test_output = self._tests(sandbox, "tests")
            return self.report.status()
        finally:
            sandbox.close()

    def _open(self, source, commit):
        """Return a sandbox, and whether it is empty; one that holds the installed project needs no network."""
        cap_s = self.task.cap_s + STARTING_S
        with self._timed("start", 30):
            if self.settings.kind == "venv":
                from venv_sandbox import VenvSandbox

                sandbox = VenvSandbox(self.settings.cache, commit, self.task, source.mirror)
                self.image, self.cached = sandbox.image_id, sandbox.kept
                return sandbox, not sandbox.kept
            self.image = boxes.image_id(self.settings.image)
            if self.image is None:
                raise StageError("image", "there is no image %s: fleet lite image" % self.settings.image)
            self.tag = boxes.environment_tag(commit, self.task, self.image)
            kept = boxes.image_id(self.tag)
            self.cached = kept is not None
            if kept:
                return boxes.DockerSandbox(kept, cap_s), False
            return boxes.DockerSandbox(self.image, cap_s, mirror=source.mirror, online=True), True

    def _prepare(self, sandbox, source, commit):
        with self._timed("clone") as limit_s:
            source.check_out(sandbox, commit, limit_s)
        with self._timed("install") as limit_s:
            words = [
                *(["--no-build-isolation", "--editable", "."] if self.task.install_project else []),
                *self.task.requirements,
            ]
            if words:
                argv = [sandbox.python, "-m", "pip", "install", "--quiet", *words]
                versions = {"SETUPTOOLS_SCM_PRETEND_VERSION": source.version}
                sandbox.run("install", argv, limit_s, check=True, online=True, env=versions)
        sandbox.go_offline()
        begun = time.monotonic()
        sandbox.keep(self.tag)
        # Keeping is for the next run, so it costs this one nothing of its cap.
        self.started += time.monotonic() - begun

    def _patch(self, sandbox):
        if self.patch is None:
            return
        try:
            self.applied["way"] = patches.apply(sandbox, self.patch, PATCH_S)
            self.applied["state"] = "applied"
        except StageError:
            self.applied["state"] = "unapplied"
            raise

    def _test_patch(self, sandbox):
        if not self.task.test_patch:
            return
        try:
            patches.apply(sandbox, self.task.test_patch, PATCH_S)
            self.applied["test_patch"] = "applied"
        except StageError as error:
            self.applied["test_patch"] = "unapplied"
            raise StageError("test-patch", "the task's test patch does not apply", error.output) from None

    def _tests(self, sandbox, stage):
        """Run pytest; return its report and everything that it printed."""
        junit = sandbox.scratch + "/" + stage + ".xml"
        argv = [sandbox.python, "-m", "pytest", *self.task.test_command, "-rA", "-p", "no:cacheprovider"]
        argv += ["-o", "junit_family=xunit1", "--junit-xml", junit, "--continue-on-collection-errors"]
        argv += ["-k", self.task.pytest_k] if self.task.pytest_k else []
        with self._timed("tests", name=stage) as limit_s:
            done = sandbox.run("tests", [*argv, *self._selected()], limit_s, env={"PYTEST_ADDOPTS": ""})
        found = sandbox.run("tests", ["cat", junit], 10, raw=reports.MAX_REPORT + 1)
        self.test_output = done.output
        expected = (*self.task.fail_to_pass, *self.task.pass_to_pass)
        if found.code != 0:
            if done.code in reports.RAN:
                raise StageError("tests", "pytest left no report", done.output)
            outcomes = {}
        else:
            outcomes = reports.read_junit(found.raw, expected)
        return reports.Report(outcomes, done.code, self.task.fail_to_pass, self.task.pass_to_pass), done.output

    def _selected(self):
        """Return what pytest is given: the task's own choice, else the test files that the test patch writes."""
        if self.task.tests or not self.task.test_patch:
            return self.task.tests
        written = [path for path in patches.Parsed(self.task.test_patch).paths if path.endswith(".py")]
        named = {test.split("::")[0] for test in (*self.task.fail_to_pass, *self.task.pass_to_pass)}
        return [path for path in written if path in named] or sorted(named)

    def _timed(self, limit_of, limit_s=None, name=None):
        return Stage(self, name or limit_of, limit_s or self.task.limits[limit_of])

    def _keep(self, status, stage, reason, tail):
        """Write the run's directory; its name holds a moment and chance, so no two runs share one."""
        result = {
            "schema": SCHEMA,
            "task_id": self.task.task_id,
            "repo": self.task.repo,
            "ref": self.task.ref,
            "pytest_k": self.task.pytest_k,
            "status": status,
            "stage": stage,
            "reason": reason,
            "resolved": self.report.resolved if self.report else None,
            "duration_s": round(time.monotonic() - self.started, 3),
            "stages": {name: round(seconds, 3) for name, seconds in self.stages.items()},
            "patch": self.applied,
            "tests": self.report.as_json() if self.report else None,
            "before": self.before.as_json() if self.before else None,
            "sandbox": self.settings.kind,
            "image_id": self.image,
            "environment": self.tag or None,
            "cached": self.cached,
            "tail": tail[-TAIL:],
        }
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        directory = self.settings.directory / "runs" / ("%s-%s-%s" % (moment, self.task.task_id, secrets.token_hex(3)))
        directory.mkdir(parents=True)
        result["directory"] = str(directory)
        write(directory / "pytest_tail.txt", tail[-TAIL:])
        write(directory / "result.json", json.dumps(result, indent=2) + "\n")
        return result


class Stage:
    """Times a stage, and gives it the smaller of its own limit and what is left of the run's cap."""

    def __init__(self, run, name, limit_s):
        self.run = run
        self.name = name
        self.limit_s = limit_s

    def __enter__(self):
        self.begun = time.monotonic()
        used = self.run.stages.get(self.name, 0.0)
        left = self.run.task.cap_s - (self.begun - self.run.started)
        if left <= 0:
            raise StageTimeout(self.name, self.run.task.cap_s)
        return max(0.1, min(self.limit_s - used, left))

    def __exit__(self, *_):
        self.run.stages[self.name] = self.run.stages.get(self.name, 0.0) + time.monotonic() - self.begun


def write(path, text):
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8", errors="replace")
    os.replace(str(temporary), str(path))
