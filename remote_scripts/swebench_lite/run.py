"""One run of one task: clone, install, patch, tests, each within its limit and all within the cap.

`status` is one of four: pass, fail, error (with the stage that failed) and timeout (with the stage that was ended).
It comes from pytest's own report and exit code; words that a test prints decide nothing.
"""

import os
import time
from pathlib import Path

import patch as patches
import report as reports
import sandbox as boxes
from errors import StageError, StageTimeout
from held import Held
from result import document, keep, write  # noqa: F401  (write: for the layouts)
from selection import pytest_words, selected
from source import Source
from stage import Stage
from wheels import Wheels

IMAGE = "swebench-lite:py3.10"
PATCH_S = 5.0
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
        self.capped = False
        self.test_output = self.before_output = self.install_output = ""
        self.directory = None
        self.applied = {"state": "none" if patch is None else "given", "way": None, "test_patch": None}
        self.image = None
        self.cached = False
        self.tag = ""

    def execute(self):
        """Run the task; whatever goes wrong is in the result."""
        status, stage, reason, tail = "error", None, None, ""
        # A moment and chance: no two runs share a directory. Made first, so that one that cannot be written costs no run.
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        name = "%s-%s-%s" % (moment, self.task.task_id, os.urandom(3).hex())
        self.directory = self.settings.directory / "runs" / name
        self.directory.mkdir(parents=True)
        try:
            status = self._stages()
            tail = self.test_output
        except StageTimeout as error:
            status, stage, reason, tail = "timeout", error.stage, str(error), error.output
        except StageError as error:
            stage, reason, tail = error.stage, str(error), error.output or self.test_output
        if stage == "tests":
            self.test_output = tail
        if self.image is None and self.settings.kind == "docker":
            try:
                self.image = boxes.image_id(self.settings.image)  # it is in every result, also of a run that never came to it
            except StageError:
                pass
        return keep(self, document(self, status, stage, reason, tail))

    def _stages(self):
        if self.patch is not None:
            try:
                patches.guard(self.patch, self.task.test_patch)
            except patches.Refused:
                self.applied["state"] = "refused"
                raise
        sandbox = self.prepared()
        try:
            if self.settings.before:
                self._before(sandbox)
            with self._timed("patch", PATCH_S):
                self._patch(sandbox)
                self._test_patch(sandbox)
            self.report, self.test_output = self._tests(sandbox, "tests")
            return self.report.status(self.before)
        finally:
            sandbox.close()

    def prepared(self, life_s=None):
        """Return an offline sandbox that holds the installed project; it lives `life_s`, else as long as a run may."""
        source = Source(self.task.repo, self.task.ref, self.settings.cache)
        with self._timed("clone") as limit_s:
            commit = source.commit(limit_s)
        sandbox, fresh = self._open(source, commit, life_s or self.task.cap_s + STARTING_S)
        try:
            if fresh:
                self._prepare(sandbox, source, commit)
            sandbox.go_offline()
        except BaseException:
            sandbox.close()
            raise
        return sandbox

    def _open(self, source, commit, life_s):
        """Return a sandbox, and whether it is empty; one that holds the installed project needs no network."""
        with self._timed("start", 30) as limit_s:
            if self.settings.kind == "venv":
                from venv_sandbox import VenvSandbox

                sandbox = VenvSandbox(self.settings.cache, commit, self.task, source.mirror)
                self.image, self.cached = sandbox.image_id, sandbox.kept
                return sandbox, not sandbox.kept
            self.image = boxes.image_id(self.settings.image)
            if self.image is None:
                raise StageError("image", "there is no image %s: fleet lite image" % self.settings.image)
            self.tag = boxes.environment_tag(commit, self.task, self.image)
            try:
                sandbox = boxes.DockerSandbox(self.tag, life_s, start_s=limit_s)
                self.cached = True
                return sandbox, False
            except StageError:
                if boxes.image_id(self.tag):
                    raise
            return boxes.DockerSandbox(self.image, life_s, mirror=source.mirror, online=True, start_s=limit_s), True

    def _prepare(self, sandbox, source, commit):
        with self._timed("clone") as limit_s:
            source.check_out(sandbox, commit, limit_s)
        wheels = Wheels(self.settings.cache, self.task.repo, self.image) if self.settings.kind == "docker" else None
        with self._timed("install") as limit_s:
            self._install(sandbox, wheels, {"SETUPTOOLS_SCM_PRETEND_VERSION": source.version}, limit_s)
        begun = time.monotonic()
        if wheels:
            wheels.keep(sandbox)
        sandbox.go_offline()
        sandbox.keep(self.tag)
        # Keeping is for the next run, so it costs this one nothing of its cap.
        self.started += time.monotonic() - begun

    def _install(self, sandbox, wheels, env, limit_s):
        """Install with what the image has to build projects; one that needs something else for that may fetch it."""
        words = [*(["--editable", "."] if self.task.install_project else []), *self.task.requirements]
        if not words:
            return
        deadline = time.monotonic() + limit_s
        for more in (["--no-build-isolation"], []) if self.task.install_project and wheels else ([],):
            argv = [sandbox.python, "-m", "pip", "install", "--progress-bar=off", *more, *words]
            left_s = max(0.1, deadline - time.monotonic())
            if wheels:
                done = wheels.install(sandbox, argv, left_s, env)
            else:
                done = sandbox.run("install", argv, left_s, env=env, online=True)
            self.install_output = done.output
            if done.code == 0:
                return
        raise StageError("install", "pip install ended with %d" % done.code, done.output)

    def _before(self, sandbox):
        """Run the tests without the patch; whatever becomes of them, the run goes on: the patch may be what they need."""
        held = Held(sandbox)
        self._test_patch(sandbox)
        try:
            self.before, self.before_output = self._tests(sandbox, "before")
        except StageError as error:
            self.before = reports.Report({}, None, self.task.fail_to_pass, self.task.pass_to_pass)
            self.before_output = error.output
        held.put_back()

    def _patch(self, sandbox):
        if self.patch is None:
            return
        own = patches.Parsed(self.task.test_patch).paths
        held = self._state_of(own, sandbox)
        try:
            self.applied["way"] = patches.apply(sandbox, self.patch, PATCH_S)
            self.applied["state"] = "applied"
        except patches.Unapplied:
            self.applied["state"] = "unapplied"
            raise
        # git reads names in more ways than the guard does; what was changed cannot be spelled in another one.
        if self._state_of(own, sandbox) != held:
            self.applied["state"] = "refused"
            raise patches.Refused("it changes what the task's own test patch writes, by another name")

    def _state_of(self, paths, sandbox):
        words = [
            "--literal-pathspecs",
            "status",
            "--porcelain",
            "-z",
            "--untracked-files=all",
            "--ignored",
            "--no-renames",
            "--",
        ]
        return sandbox.run("patch", ["git", *words, *paths], PATCH_S).raw if paths else b""

    def _test_patch(self, sandbox):
        if not self.task.test_patch:
            return
        try:
            patches.apply(sandbox, self.task.test_patch, PATCH_S)
            self.applied["test_patch"] = "applied"
        except patches.Unapplied as error:
            self.applied["test_patch"] = "unapplied"
            raise StageError("test-patch", "the task's test patch does not apply", error.output) from None

    def _tests(self, sandbox, stage):
        """Run pytest; return its report and everything that it printed."""
        # A name that nobody knows before pytest is told it: what a project brings along is not taken for a report.
        junit = "%s/%s-%s.xml" % (sandbox.scratch, stage, os.urandom(6).hex())
        words = pytest_words(self.task.test_command, junit, self.task.pytest_k, selected(self.task, sandbox))
        with self._timed("tests", name=stage) as limit_s:
            done = sandbox.run("tests", [sandbox.python, *words], limit_s, env={"PYTEST_ADDOPTS": ""})
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

    def _timed(self, limit_of, limit_s=None, name=None):
        return Stage(self, name or limit_of, limit_s or self.task.limits[limit_of])
