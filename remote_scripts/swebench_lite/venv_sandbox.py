"""The sandbox for machines without Docker: a virtual environment and a directory. It does NOT isolate.

What is tested can read and change whatever this user can, and reach the network. Use it for projects that you would also run
by hand. The environment is kept per project, commit, requirements and interpreter; the project itself is copied for every run
and comes first on the module path, so parallel runs do not see each other's patches.

None of this machine's own packages is in it. pytest comes from the package index, or, where LITE_PYTEST names the directories
(separated by ":") that have it and what it needs, from there: then a task that installs nothing takes no network at all.
"""

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from errors import StageError
from process import MAX_OUTPUT, execute
from sandbox import PASSED, environment_tag
from source import GIT_ENVIRONMENT
from venv_packages import complete, lent_files

PYTEST = "pytest>=8.4,<9"
PREFIX = "swebench-lite-"
CREATE_S = 60.0
YOUNG_S = 60.0


class VenvSandbox:
    """One directory per run; looks like a DockerSandbox to the run."""

    kind = "venv"
    image_id = None

    def __init__(self, cache, commit, task, mirror):
        self.mirror = str(mirror) if mirror else None
        self.lent = os.environ.get("LITE_PYTEST", "")
        interpreter = "%s %s %s" % (os.path.realpath(sys.executable), sys.version.split()[0], self.lent)
        self.environment = Path(cache) / "environments" / environment_tag(commit, task, interpreter).partition(":")[2]
        self.environment.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(str(self.environment) + ".lock", "w")
        remove_abandoned()
        self.scratch = tempfile.mkdtemp(prefix=PREFIX)
        self.project = os.path.join(self.scratch, "project")
        # Held as long as this process lives: what a killed one leaves is told by it from what is in use.
        self._used = open(os.path.join(self.scratch, "lock"), "w")
        try:
            fcntl.flock(self._used, fcntl.LOCK_EX)
            os.mkdir(os.path.join(self.scratch, "tmp"))
            # pytest looks for settings further up: those of a directory that everybody can write to would be anybody's.
            Path(self.scratch, "pytest.ini").touch()
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.kept = (self.environment / "complete").exists() and os.path.exists(self.python)
            if self.kept:
                fcntl.flock(self._lock, fcntl.LOCK_UN)
                shutil.copytree(str(self.environment / "project"), self.project, symlinks=True)
            else:
                os.mkdir(self.project)
                self._create(task)
        except BaseException:
            self.close()
            raise

    def _create(self, task):
        """Make the environment, with pip only where it is used: pip is most of the time that this takes."""
        shutil.rmtree(str(self.environment), ignore_errors=True)
        places = [place for place in self.lent.split(os.pathsep) if place]
        pip = not places or task.install_project or task.requirements or task.repo.startswith("pypi:")
        argv = [sys.executable, "-m", "venv", *([] if pip else ["--without-pip"]), str(self.environment)]
        done = execute("install", argv, CREATE_S)
        if done.code != 0:
            raise StageError("install", "this Python makes no virtual environment", done.output)
        for path in lent_files(places):
            # Copied where pip is at work: through a link it would change what is lent.
            if not pip:
                (self._packages / path.name).symlink_to(path)
            elif path.is_dir():
                shutil.copytree(str(path), str(self._packages / path.name))
            else:
                shutil.copy(str(path), str(self._packages))
        if not places:
            self.run("install", ["python3", "-m", "pip", "install", "--quiet", PYTEST], CREATE_S, check=True)

    @property
    def _packages(self):
        return self.environment / "lib" / ("python%d.%d" % sys.version_info[:2]) / "site-packages"

    @property
    def python(self):
        return str(self.environment / "bin" / "python")

    def run(self, stage, argv, limit_s, feed=None, env=None, check=False, online=False, raw=MAX_OUTPUT):  # noqa: ARG002
        """Run a command in the copy of the project, as DockerSandbox does in the container."""
        if argv[1:3] == ["-m", "pip"]:
            # An editable installation would point at this run's copy, and what builds projects is in the image, not here.
            argv = [self.python, *(word for word in argv[1:] if word not in ("--editable", "--no-build-isolation"))]
        given = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME") or PASSED.match(key)}
        given.update(GIT_ENVIRONMENT, PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED="0", NO_COLOR="1", TMPDIR=self._temporary)
        given["PYTHONPATH"] = os.pathsep.join([os.path.join(self.project, "src"), self.project])
        given.update(env or {})
        done = execute(stage, argv, limit_s, feed=feed, env=given, cwd=self.project, cap=raw)
        if check and done.code != 0:
            raise StageError(stage, "%s: %s ended with %d" % (stage, " ".join(argv[:4])[:120], done.code), done.output)
        return done

    def go_offline(self):
        """Do nothing: a process without a sandbox cannot be taken off the network."""

    def keep(self, tag):  # noqa: ARG002
        """Keep the project as it was installed, beside its environment; StageError where it would not be what is tested."""
        complete(Path(self.project), self._packages)
        shutil.copytree(self.project, str(self.environment / "project"), symlinks=True)
        (self.environment / "complete").touch()
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self):
        """End what the tests left running, remove the run's directory, and let the next one have the environment."""
        end_marked("TMPDIR=" + self._temporary)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._used.close()
        self._lock.close()

    @property
    def _temporary(self):
        return os.path.join(self.scratch, "tmp")


def end_marked(mark):
    """Kill the processes of this user that carry `mark` in their environment; only Linux tells."""
    wanted = os.fsencode(mark)
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            with open("/proc/%s/environ" % int(entry), "rb") as file:
                if wanted in file.read().split(b"\0"):
                    os.kill(int(entry), signal.SIGKILL)
        except (OSError, ValueError):
            continue


def remove_abandoned():
    """Remove the directories of runs that were killed: of this user, and with a lock that nobody holds."""
    for path in Path(tempfile.gettempdir()).glob(PREFIX + "*"):
        try:
            info = path.lstat()
            # A younger one may belong to a run that is about to take its lock.
            if info.st_uid != os.getuid() or time.time() - info.st_mtime < YOUNG_S:
                continue
            with open(str(path / "lock"), "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end_marked("TMPDIR=%s" % (path / "tmp"))
                shutil.rmtree(str(path), ignore_errors=True)
        except OSError:
            continue
