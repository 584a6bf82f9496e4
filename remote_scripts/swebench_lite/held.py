"""The project as it is at one moment, to be put back after its tests have run.

With an index of its own that leaves out nothing: the usual one would let git remove what the installation made and no
.gitignore names, and keep what the tests made and one names.
"""

import os

HOLD_S = 20.0


class Held:
    """What is in the project's directory now; `put_back` makes it so again."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.kept = "%s/held-%s" % (sandbox.scratch, os.urandom(6).hex())
        # Some things git does not take, an empty repository within for one: then all of it is copied, which takes longer.
        self.copied = self._run('cp .git/index "$1" && GIT_INDEX_FILE="$1" git add --all --force .', check=False).code != 0
        if self.copied:
            self._run('rm -f "$1" && cp -a "$2" "$1"')

    def put_back(self):
        """Undo whatever was changed, made or removed since; StageError where that is not possible."""
        if self.copied:
            self._run('rm -rf "$2" && mv "$1" "$2"')
        else:
            put = "git checkout-index --all --force --quiet && git clean --quiet -d -x --force --force"
            self._run('export GIT_INDEX_FILE="$1" && ' + put)

    def _run(self, script, check=True):
        argv = ["sh", "-c", script, "sh", self.kept, self.sandbox.project]
        return self.sandbox.run("patch", argv, HOLD_S, check=check)
