"""Where a project comes from: a git URL, a local path, a git bundle, or `pypi:NAME==VERSION`.

What git can fetch is kept on this machine as a bare mirror per source, and only the one commit goes into a sandbox: what was
committed later, the fix for instance, is not there to be read. An sdist is downloaded, unpacked and committed in the sandbox,
because pip runs code of the package when it looks at it; the archive is kept for the next time.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from errors import InputError, StageError
from process import execute

MAX_SDIST = 256 * 1024 * 1024
_PYPI = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)\Z")
_URL = re.compile(r"(https?|ssh|git|file)://[^-]|[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:")
_SECRET = re.compile(r"https?://[^/]*@|[a-z]+://[^/:]*:[^/@]*@")
_SHORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_.-]+\Z")
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
# Nothing of this machine's settings, no question for a password, no transport that runs a command.
GIT_ENVIRONMENT = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND") or "ssh -o BatchMode=yes",
    "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
    "LC_ALL": "C",
}
# Author and dates are fixed, so that a sdist becomes the same commit everywhere.
_COMMITTER = {
    "GIT_AUTHOR_NAME": "sdist", "GIT_AUTHOR_EMAIL": "sdist@localhost", "GIT_AUTHOR_DATE": "2000-01-01T00:00:00Z",
    "GIT_COMMITTER_NAME": "sdist", "GIT_COMMITTER_EMAIL": "sdist@localhost", "GIT_COMMITTER_DATE": "2000-01-01T00:00:00Z",
}  # fmt: skip


def check(tasks):
    """Raise InputError for the first task whose repository is none that can be asked; a batch does so before it starts."""
    for task in tasks:
        try:
            Source(task.repo, task.ref, os.curdir)
        except InputError as error:
            raise InputError("%s: %s" % (task.task_id, error)) from None


class Source:
    """The project of one task, with its mirror or sdist in the cache directory."""

    def __init__(self, repo, ref, cache):
        self.ref = "" if ref == "HEAD" else ref
        self.pypi = _PYPI.match(repo)
        if repo.startswith("pypi:") and not self.pypi:
            raise InputError("repo %r is not pypi:NAME==VERSION" % repo[:120])
        self.repo = repo if self.pypi else _address(repo)
        key = hashlib.sha256(self.repo.encode()).hexdigest()[:16]
        self.mirror = None if self.pypi else Path(cache) / "mirrors" / (key + ".git")
        self.sdist = Path(cache) / "sdists" / (repo[5:] + ".tar.gz") if self.pypi else None

    @property
    def version(self):
        """The version that setuptools_scm is told where there are no tags: the sdist's, or "0"."""
        return self.pypi.group(2) if self.pypi else "0"

    def commit(self, limit_s):
        """Return what identifies the content: the sdist, or the commit that `ref` names; the mirror is made or updated for it.

        A commit or a tag that the mirror has needs no network; a branch is fetched every time.
        """
        if self.pypi:
            return self.repo
        deadline = time.monotonic() + limit_s
        with _locked(self.mirror.with_suffix(".lock")):
            if not self.mirror.is_dir():
                self._create(deadline)
            found = self._known()
            if found is None:
                self._tidy()
                fetch = ["fetch", "--quiet", "--prune", "--force", "--no-auto-gc", self.repo]
                # A bundle need not have a HEAD; only a task without a ref asks for it.
                head = [] if self.ref else ["+HEAD:refs/lite/HEAD"]
                self._git(deadline, *fetch, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", *head)
                found = self._parse(self.ref or "refs/lite/HEAD") or self._parse("refs/heads/" + self.ref)
            if found is None and _COMMIT.match(self.ref):  # on no branch any more; some servers hand it out all the same
                self._git(deadline, "fetch", "--quiet", self.repo, "+%s:refs/lite/%s" % (self.ref, self.ref), check=False)
                found = self._parse(self.ref)
        if found is None:
            raise StageError("clone", "%s has no commit called %s" % (self.repo, self.ref))
        return found

    def check_out(self, sandbox, commit, limit_s):
        """Put the project at `commit` into the sandbox's project directory, as a repository with one commit."""
        if self.pypi:
            self._unpack(sandbox, limit_s)
            return
        sandbox.run("clone", ["git", "init", "--quiet", "."], limit_s, check=True)
        sandbox.run(
            "clone", ["git", "fetch", "--quiet", "--depth", "1", "file://" + sandbox.mirror, commit], limit_s, check=True
        )
        sandbox.run("clone", ["git", "checkout", "--quiet", "--detach", "FETCH_HEAD"], limit_s, check=True)

    def _unpack(self, sandbox, limit_s):
        deadline = time.monotonic() + limit_s
        left = lambda: max(0.1, deadline - time.monotonic())  # noqa: E731
        archive = sandbox.scratch + "/sdist"
        if self.sdist.is_file():
            argv = ["sh", "-c", 'mkdir -p "$1" && cat > "$1/sdist.tar.gz"', "sh", archive]
            sandbox.run("clone", argv, left(), feed=self.sdist.read_bytes(), check=True)
        else:
            argv = ["python3", "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
            sandbox.run("clone", [*argv, "--dest", archive, self.repo[5:]], left(), check=True, online=True)
        unpack = 'set -- "$1"/*.tar.gz && tar -xzf "$1" --strip-components=1 --no-same-owner -C . && git init --quiet .'
        commit = "git add --all --force && git commit --quiet --no-verify --message sdist"
        sandbox.run("clone", ["sh", "-c", unpack + " && " + commit, "sh", archive], left(), check=True, env=_COMMITTER)
        if not self.sdist.is_file():
            self._keep(sandbox.run("clone", ["sh", "-c", 'cat "$1"/*.tar.gz', "sh", archive], left(), raw=MAX_SDIST))

    def _keep(self, done):
        if done.code == 0 and done.raw[:2] == b"\x1f\x8b":
            self.sdist.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.sdist.with_name("%s.%s" % (self.sdist.name, os.urandom(4).hex()))
            temporary.write_bytes(done.raw)
            os.replace(str(temporary), str(self.sdist))

    def _create(self, deadline):
        """Make an empty mirror; it gets its name when it is one, so that a run which is killed leaves no half one."""
        fresh = self.mirror.with_name(self.mirror.name + ".new")
        shutil.rmtree(str(fresh), ignore_errors=True)
        self._git(deadline, "init", "--quiet", "--bare", str(fresh), where=None)
        self._git(deadline, "config", "uploadpack.allowAnySHA1InWant", "true", where=fresh)
        os.rename(str(fresh), str(self.mirror))

    def _tidy(self):
        """Remove what a fetch left that was killed; whoever holds the mirror's lock is alone with it."""
        left = ("objects/pack/tmp_*", "objects/??/tmp_*", "*.lock", "refs/**/*.lock")
        for path in [path for pattern in left for path in self.mirror.glob(pattern)]:
            path.unlink()

    def _known(self):
        if _COMMIT.match(self.ref):
            return self._parse(self.ref)
        return self._parse("refs/tags/" + self.ref) if self.ref else None

    def _parse(self, name):
        done = self._git(None, "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}", check=False)
        found = done.output.strip().rpartition("\n")[2]  # above it git may warn of a name that two refs have
        return found if done.code == 0 and re.match(r"[0-9a-f]{40,64}\Z", found) else None

    def _git(self, deadline, *argv, where="", check=True):
        limit_s = max(0.1, deadline - time.monotonic()) if deadline else 10
        # Named, not looked for: git must never take a repository further up for the mirror.
        words = ["--git-dir=%s" % (where or self.mirror)] if where is not None else []
        done = execute("clone", ["git", *words, *argv], limit_s, env=dict(os.environ, **GIT_ENVIRONMENT))
        if check and done.code != 0:
            raise StageError("clone", "git %s failed" % argv[0], done.output)
        return done


def _address(repo):
    """Return what git is given: a URL as it is, a path or bundle absolute, `owner/name` at GitHub."""
    if _SECRET.match(repo):
        raise InputError("repo has a password or token in its URL, and would be in every result; use ssh, a path or a bundle")
    if _URL.match(repo):
        return repo
    if Path(repo).exists():
        return str(Path(repo).resolve())
    if _SHORT.match(repo):
        return "https://github.com/%s.git" % repo
    raise InputError("repo %r is no URL, no path that is there, and not pypi:NAME==VERSION" % repo[:120])


@contextmanager
def _locked(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(str(path), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
