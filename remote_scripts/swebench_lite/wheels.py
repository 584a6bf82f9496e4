"""Wheels of what a repository needs: one archive on this machine, unpacked only where the same repository is installed.

With it another commit of the repository installs without network. Code of the project runs while pip works, so what comes out
of its container is trusted no further than the project: the archive is never unpacked on this machine, and no other repository
gets it. A patch never sees it: it is out of the container before anything is kept or tested.
"""

import hashlib
import json
import os
import re
import time
from pathlib import Path

from errors import StageError

PLACE = "/tmp/lite-wheels"
REPORT = "/tmp/lite-pip.json"
MAX_BYTES = 256 * 1024 * 1024
KEEPING_S = 60.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_VERSION = re.compile(r"[0-9][A-Za-z0-9.!+_-]{0,99}\Z")


class Wheels:
    """The wheels of one repository (of `pypi:`, one project in all its versions) on one image."""

    def __init__(self, cache, repo, image):
        words = "%s\0%s" % (repo.partition("==")[0] if repo.startswith("pypi:") else repo, image)
        self.path = Path(cache) / "wheels" / (hashlib.sha256(words.encode()).hexdigest()[:24] + ".tar")

    def install(self, sandbox, argv, limit_s, env):
        """Run pip with what is kept and nothing else, then with the network where that was not enough; return how it ended."""
        deadline = time.monotonic() + limit_s
        argv = [*argv, "--report", REPORT]
        if self.path.is_file():
            unpack = ["sh", "-c", 'mkdir -p "$1" && tar -xf - --no-same-owner -C "$1"', "sh", PLACE]
            sandbox.run("install", unpack, limit_s, feed=self.path.read_bytes())
            argv += ["--find-links", PLACE]
            done = sandbox.run("install", [*argv, "--no-index"], max(0.1, deadline - time.monotonic()), env=env)
            if done.code == 0:
                return done
        return sandbox.run("install", argv, max(0.1, deadline - time.monotonic()), online=True, env=env)

    def keep(self, sandbox):
        """Keep the wheels of what was installed; a failure costs the next run some time and nothing else."""
        try:
            named = _installed(sandbox.run("install", ["cat", REPORT], 10).raw)
            argv = [sandbox.python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
            argv += ["--find-links", PLACE, "--wheel-dir", PLACE]
            if named and sandbox.run("install", [*argv, *named], KEEPING_S, online=True).code == 0:
                packed = sandbox.run("install", ["tar", "-cf", "-", "-C", PLACE, "."], KEEPING_S, raw=MAX_BYTES + 1)
                if packed.code == 0 and len(packed.raw) <= MAX_BYTES:
                    self._write(packed.raw)
            sandbox.run("install", ["rm", "-rf", PLACE, REPORT], 10)
        except (StageError, OSError):
            pass

    def _write(self, data):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name("%s.%s" % (self.path.name, os.urandom(4).hex()))
        temporary.write_bytes(data)
        os.replace(str(temporary), str(self.path))


def _installed(report):
    """Return NAME==VERSION of everything that pip's report says it fetched; the project itself is a directory, not fetched."""
    try:
        items = [item for item in json.loads(report.decode("utf-8"))["install"] if "archive_info" in item["download_info"]]
        pairs = [(item["metadata"]["name"], item["metadata"]["version"]) for item in items]
        return ["%s==%s" % pair for pair in pairs if _NAME.match(pair[0]) and _VERSION.match(pair[1])]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
