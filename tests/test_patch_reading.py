"""A diff that git wrote is never called malformed, and one that was cut or edited is."""

from __future__ import annotations

import difflib
import os
import subprocess
from pathlib import Path

import pytest

from fleet.quality.patches import read_patch

BEFORE: dict[str, bytes] = {
    "long.py": b"".join(b"line %d\n" % number for number in range(50)),
    "no_newline": b"x\ny",
    "crlf.txt": b"a\r\nb\r\nc\r\n",
    "binary": bytes(range(256)) * 20,
    "deleted": b"bye\n",
    "deleted_empty": b"",
    "script.sh": b"echo\n",
    "renamed.py": b"".join(b"r%d\n" % number for number in range(30)),
    "with space.txt": b"x\n",
    "ünï.txt": b"x\n",
    'quo"te\t.txt': b"x\n",
    "looks_like_a_diff": b"-- x\n++ y\n@@ -1 +1 @@\ndiff --git a/x b/x\nz\n",
    "odd_lines": "a\x0cb\u2028c\rd\n".encode(),
    "blank": b"\n\n\nx\n\n\n",
}
AFTER: dict[str, bytes | None] = {
    "long.py": BEFORE["long.py"].replace(b"line 3\n", b"changed\n").replace(b"line 40\n", b"changed\n"),
    "no_newline": b"x\nz",
    "crlf.txt": b"a\r\nB\r\nc\r\n",
    "binary": bytes(reversed(range(256))) * 20,
    "deleted": None,
    "deleted_empty": None,
    "renamed.py": None,
    "renamed2.py": BEFORE["renamed.py"] + b"more\n",
    "with space.txt": None,
    "with space2.txt": b"x\n",
    "ünï.txt": b"y\n",
    'quo"te\t.txt': b"y\n",
    "looks_like_a_diff": b"z\n",
    "odd_lines": "a\x0cb\u2028c\rd2\n".encode(),
    "new_empty": b"",
    "new file.txt": b"n\n",
    "blank": b"\n\n\ny\n\n\n",
}
OPTIONS = [[], ["--binary"], ["-M"], ["--no-prefix"], ["-U0"], ["-C", "-C"], ["--no-renames"], ["-B"], ["--src-prefix=i/"]]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a git repository with changes of every kind in its index."""
    root = tmp_path_factory.mktemp("repository")
    for name, body in BEFORE.items():
        (root / name).write_bytes(body)
    (root / "link").symlink_to("long.py")
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "before")
    for name, after in AFTER.items():
        if after is None:
            (root / name).unlink()
        else:
            (root / name).write_bytes(after)
    (root / "script.sh").chmod(0o755)
    (root / "link").unlink()
    (root / "link").symlink_to("no_newline")
    git(root, "add", "-A")
    return root


def git(root: Path, *words: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True, env=environment)
    return done.stdout.decode()


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_what_git_writes_is_a_diff(options: list[str], repository: Path) -> None:
    patch = read_patch(git(repository, "diff", *options, "HEAD"))
    assert (patch.problem, patch.line) == (None, None)
    assert len(patch.changes) >= 16


def test_each_file_of_a_diff_is_one_too(repository: Path) -> None:
    names = git(repository, "diff", "--no-renames", "--name-only", "-z", "HEAD").split("\0")[:-1]
    for name in names:
        patch = read_patch(git(repository, "diff", "--no-renames", "--binary", "HEAD", "--", f":(literal){name}"))
        assert (patch.problem, patch.files) == (None, {name})


def test_the_files_and_lines_of_a_diff_are_known(repository: Path) -> None:
    patch = read_patch(git(repository, "diff", "-M", "HEAD"))
    assert patch.files == {*(name for name in AFTER), "link", "script.sh"}
    assert patch.gone == {"deleted", "deleted_empty", "renamed.py", "with space.txt"}
    assert next(change.added for change in patch.changes if change.target == "long.py") == {4: "changed", 41: "changed"}


def test_mail_and_plain_diffs_are_diffs(repository: Path) -> None:
    assert read_patch(git(repository, "format-patch", "--stdout", "--root", "HEAD")).problem is None
    plain = "".join(difflib.unified_diff(["a\n", "b\n"], ["a\n", "c\n"], "x.py", "x.py"))
    assert read_patch(plain).problem is None
    assert read_patch(plain + plain.replace("x.py", "y.py")).files == {"x.py", "y.py"}


def test_a_diff_that_lost_its_last_line_is_malformed(repository: Path) -> None:
    whole = git(repository, "diff", "HEAD", "--", "long.py").rstrip("\n")
    for kept in range(5, whole.count("\n")):
        cut = "\n".join(whole.split("\n")[:kept]) + "\n"
        ends_between_hunks = cut.endswith(" line 6\n")
        assert (read_patch(cut).problem is None) is ends_between_hunks, cut[-30:]


@pytest.mark.parametrize(
    "text",
    [
        "hello\n",
        "@@ -1 +1 @@\n-a\n+b\n",
        "diff --git a/x b/x\n",
        "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n",
        "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n",
        "--- a/x\n+++ b/x\n@@ -1,3 +1 wrong\n-a\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n+c\n",
        "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+b\n",
        "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n+b\n*** x\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\0\n",
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\ud800\n",
    ],
)
def test_what_is_no_diff_is_called_malformed(text: str) -> None:
    assert read_patch(text).problem
