"""What pip fetched and built for a repository: one archive, unpacked only where the same repository is installed.

Code of the project runs while pip works, so what it leaves in pip's cache is trusted no further than the project: the archive
is never unpacked on this machine, and no other repository gets it. A patch never sees it: it is out of the container before
anything is kept or tested.
"""

import hashlib
import os
from pathlib import Path

from errors import StageError

PLACE = "/tmp/lite-pip"
MAX_BYTES = 256 * 1024 * 1024


class Wheels:
    """pip's cache for one repository (of `pypi:`, one project in all its versions) on one image."""

    def __init__(self, cache, repo, image):
        words = "%s\0%s" % (repo.partition("==")[0] if repo.startswith("pypi:") else repo, image)
        self.path = Path(cache) / "wheels" / (hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:24] + ".tar")

    def put_into(self, sandbox, limit_s):
        """Unpack in the container what an earlier installation left."""
        if self.path.is_file():
            argv = ["sh", "-c", 'mkdir -p "$1" && tar -xf - --no-same-owner -C "$1"', "sh", PLACE]
            sandbox.run("install", argv, limit_s, feed=self.path.read_bytes())

    def take_from(self, sandbox):
        """Move pip's cache out of the container; a failure costs the next run some time and nothing else."""
        argv = ["sh", "-c", 'tar -cf - -C "$1" . 2>/dev/null && rm -rf "$1"', "sh", PLACE]
        try:
            done = sandbox.run("install", argv, 30, raw=MAX_BYTES + 1)
            if done.code == 0 and len(done.raw) <= MAX_BYTES:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                temporary = self.path.with_name("%s.%s" % (self.path.name, os.urandom(4).hex()))
                temporary.write_bytes(done.raw)
                os.replace(str(temporary), str(self.path))
        except (StageError, OSError):
            pass
