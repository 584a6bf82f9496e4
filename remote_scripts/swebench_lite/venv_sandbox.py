"""The sandbox for machines without Docker: a virtual environment and a directory. It does NOT isolate.

What is tested can read and change whatever this user can, and reach the network. Use it for projects that you would also run
by hand. The environment is kept per project, commit and requirements; the project itself is copied for every run and comes
first on the module path, so parallel runs do not see each other's patches.
"""

import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path

from errors import StageError
from sandbox import MAX_OUTPUT, PASSED, environment_tag, execute
from source import GIT_ENVIRONMENT


class VenvSandbox:
    """One directory per run; looks like a DockerSandbox to the run."""

    kind = "venv"
    image_id = None

    def __init__(self, cache, commit, task, mirror):
        self.task = task
        self.mirror = str(mirror) if mirror else None
        version = "python%d.%d" % sys.version_info[:2]
        self.environment = Path(cache) / "environments" / environment_tag(commit, task, version).partition(":")[2]
        self.environment.parent.mkdir(parents=True, exist_ok=True)
        self._lock = open(str(self.environment) + ".lock", "w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.kept = (self.environment / "complete").exists()
        self.scratch = tempfile.mkdtemp(prefix="lite-")
        self.project = os.path.join(self.scratch, "project")
        if self.kept:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            shutil.copytree(str(self.environment / "project"), self.project, symlinks=True)
        else:
            shutil.rmtree(str(self.environment), ignore_errors=True)
            os.mkdir(self.project)
            done = execute("install", [sys.executable, "-m", "venv", "--system-site-packages", str(self.environment)], 60)
            if done.code != 0:
                raise StageError("install", "this Python makes no virtual environment", done.output)

    @property
    def python(self):
        return str(self.environment / "bin" / "python")

    def run(self, stage, argv, limit_s, feed=None, env=None, check=False, online=False, raw=MAX_OUTPUT):  # noqa: ARG002
        """Run a command in the copy of the project, as DockerSandbox does in the container."""
        if argv[:4] == [self.python, "-m", "pip", "install"] and "--editable" in argv:
            # An editable installation would point at this run's copy. What builds projects is in the image, not here.
            argv = [word for word in argv if word not in ("--editable", "--no-build-isolation")] + ["pytest>=8.4,<9"]
        given = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR") or PASSED.match(key)}
        given.update(GIT_ENVIRONMENT, PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED="0", NO_COLOR="1")
        given["PYTHONPATH"] = os.pathsep.join([os.path.join(self.project, "src"), self.project])
        given.update(env or {})
        done = execute(stage, argv, limit_s, feed=feed, env=given, cwd=self.project, cap=raw)
        if check and done.code != 0:
            raise StageError(stage, "%s: %s ended with %d" % (stage, " ".join(argv[:4])[:120], done.code), done.output)
        return done

    def go_offline(self):
        """Do nothing: a process without a sandbox cannot be taken off the network."""

    def keep(self, tag):  # noqa: ARG002
        """Keep the project as it was installed, beside its environment."""
        shutil.copytree(self.project, str(self.environment / "project"), symlinks=True)
        (self.environment / "complete").touch()
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def close(self):
        """Remove the run's directory, and let the next one have the environment."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._lock.close()
