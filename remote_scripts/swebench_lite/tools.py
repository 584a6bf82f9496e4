"""The tools of an agent, over one open sandbox that holds the installed project and has no network.

A model's words never reach a shell: every argument has a type, becomes one word of an argument list, and paths stay inside the
project. Each tool has the limit of the runner's own stage, and what it answers is cut to what a model can use.
"""

import json
import re

import patch as patches
import report as reports
from errors import StageError, StageTimeout
from run import PATCH_S
from selection import pytest_words

LOOK_S = 10.0
"""Reading and searching."""
MAX_SAID = 8000
MAX_LINES = 400
MAX_FOUND = 100
MAX_LISTED = 400
MAX_WORD = 1000

# Run in the container with -I -S, so that no file of the project is imported. argv: path, first line, number of lines.
READER = """
import os, sys
root = os.path.realpath(".")
path = os.path.realpath(sys.argv[1])
if path != root and not path.startswith(root + os.sep):
    sys.exit("the path leads out of the project")
if not os.path.isfile(path):
    sys.exit("there is no such file")
first, count = int(sys.argv[2]), int(sys.argv[3])
with open(path, encoding="utf-8", errors="replace", newline="\\n") as file:
    number = 0
    for number, line in enumerate(file, 1):
        if first <= number < first + count:
            sys.stdout.write("%6d  %s\\n" % (number, line.rstrip("\\r\\n")[:2000]))
    print("(%d lines in all)" % number)
"""


def _schema(name, does, properties, required=()):
    parameters = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": does, "parameters": parameters}}


def _text(does):
    return {"type": "string", "description": does}


_NUMBER = {"type": "integer", "minimum": 1}
SCHEMAS = (
    _schema(
        "swe_clone",
        "Tell which repository and commit the project is. With reset, throw every change away and start from that commit.",
        {"reset": {"type": "boolean"}},
    ),
    _schema("swe_install", "Install the project as it is now again, offline; needed only after its build files changed.", {}),
    _schema("swe_list", "List the files of the project, or of a directory in it.", {"path": _text("directory")}),
    _schema(
        "swe_read",
        "Read a text file, with line numbers.",
        {"path": _text("file, relative to the project"), "start": _NUMBER, "lines": _NUMBER},
        ["path"],
    ),
    _schema(
        "swe_search",
        "Search the files of the project for an extended regular expression.",
        {"pattern": _text("what to look for"), "path": _text("only in this file or directory")},
        ["pattern"],
    ),
    _schema(
        "swe_apply_patch",
        "Change files with a unified diff (--- a/PATH, +++ b/PATH, @@ hunks with context). All of it is applied, or nothing.",
        {"patch": _text("the unified diff")},
        ["patch"],
    ),
    _schema(
        "swe_pytest",
        "Run the project's tests with pytest, or only some of them.",
        {"tests": {"type": "array", "items": {"type": "string"}}, "k": _text("pytest -k expression")},
    ),
    _schema("swe_submit", "Hand in the project as it is now. Nothing can be changed afterwards.", {}),
)
NAMES = tuple(schema["function"]["name"] for schema in SCHEMAS)
_PROPERTIES = {schema["function"]["name"]: schema["function"]["parameters"] for schema in SCHEMAS}
_TYPES = {"string": str, "boolean": bool, "array": list}


class Misuse(Exception):
    """A call that is answered with what is wrong about it; nothing was done."""


class Workspace:
    """The tools; `call` answers with text whatever the model asks for, and raises StageError only when the container is gone.

    `shown` tells whether the task's own choice of tests is the model's to see: not where hidden tests decide.
    """

    def __init__(self, task, sandbox, shown):
        self.task = task
        self.sandbox = sandbox
        self.shown = shown
        self.submitted = False
        self.chosen_passed = False
        """Whether the last call was the task's own choice of tests, and pytest's report says that they pass."""
        self._patched = []
        self._git("add", "--all")
        self._base = self._git("write-tree").strip()

    def call(self, name, arguments):
        """Return the answer to one call; `arguments` is JSON text as the model wrote it."""
        self.chosen_passed = False
        try:
            given = _arguments(name, arguments)
            return cut(getattr(self, "_" + name[4:])(**given))
        except Misuse as error:
            return "error: %s" % error
        except StageTimeout as error:
            # What was ended at its limit may have left processes; they are nobody's.
            self._still_there("kill -9 -1; true")
            return cut("error: %s\n%s" % (error, error.output))
        except StageError as error:
            self._still_there()
            return cut("error: %s\n%s" % (error, error.output))

    def _still_there(self, command="true"):
        """Raise StageError where the container is gone: that is no answer of a tool."""
        try:
            self.sandbox.run("sandbox", ["sh", "-c", command], LOOK_S, check=True)
        except (StageError, OSError, ValueError) as error:
            raise StageError("sandbox", "the container is gone: %s" % error) from None

    def difference(self):
        """Return (patch, {path: why it is left out}): every file that was patched, as it is now, against what was given."""
        if not self._patched:
            return "", {}
        listed = "".join(path + "\0" for path in self._patched).encode("utf-8", "surrogateescape")
        self._git("update-index", "-z", "--add", "--remove", "--stdin", feed=listed)
        words = ["diff", "--cached", "--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/"]
        text = self._git("--literal-pathspecs", *words, "--dst-prefix=b/", self._base, "--", *self._patched)
        return _admitted(text, set(patches.Parsed(self.task.test_patch).paths) if self.task.test_patch else set())

    # The tools

    def _clone(self, reset=False):
        if reset:
            self._git("read-tree", "--reset", "-u", self._base)
            self._git("clean", "--quiet", "-d", "--force")
            self._patched = []
        count = len(self._git("ls-files", "-z").split("\0")) - 1
        where = self.task.repo + (" at " + self.task.ref if self.task.ref else "")
        return "%s is cloned, %d files%s." % (where, count, "; every change is gone" if reset else "")

    def _install(self):
        if not self.task.install_project:
            return "This project is used as it is; there is nothing to install."
        words = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--editable", "."]
        done = self.sandbox.run("install", [self.sandbox.python, *words], self.task.limits["install"])
        return "installed" if done.code == 0 else "error: pip ended with %d\n%s" % (done.code, done.output)

    def _list(self, path="."):
        words = ["ls-files", "--cached", "--others", "--exclude-standard", "--", inside(path)]
        names = sorted(set(self._git("--literal-pathspecs", *words).splitlines()))
        more = "\n(%d more; name a directory)" % (len(names) - MAX_LISTED) if len(names) > MAX_LISTED else ""
        return "\n".join(names[:MAX_LISTED]) + more or "no files"

    def _read(self, path, start=1, lines=200):
        argv = ["python3", "-I", "-S", "-c", READER, inside(path), str(start), str(min(lines, MAX_LINES))]
        done = self.sandbox.run("read", argv, LOOK_S)
        return done.output if done.code == 0 else "error: " + (done.output.strip() or "the file could not be read")

    def _search(self, pattern, path="."):
        words = ["grep", "--no-color", "-n", "-I", "-E", "--untracked", "-e", pattern, "--", inside(path)]
        done = self.sandbox.run("search", ["git", "--literal-pathspecs", *words], LOOK_S)
        if done.code == 1:
            return "nothing found"
        if done.code != 0:
            return "error: " + done.output
        found = [line[:300] for line in done.output.splitlines()]
        more = "\n(%d more)" % (len(found) - MAX_FOUND) if len(found) > MAX_FOUND else ""
        return "\n".join(found[:MAX_FOUND]) + more

    def _apply_patch(self, patch):
        paths = patches.guard(patch)
        way = patches.apply(self.sandbox, patch, PATCH_S)
        self._patched += [path for path in paths if path not in self._patched]
        return "applied (%s): %s" % (way, ", ".join(paths))

    def _pytest(self, tests=(), k=""):
        for test in tests:
            if not isinstance(test, str):
                raise Misuse("tests: each is the path of a test file or a test id")
            inside(test.split("::")[0])
        if k.startswith("-"):
            raise Misuse("k: an expression of names, as `merge and not slow`")
        own = self.shown and not tests and not k
        selected = list(self.task.tests if own else tests)
        junit = self.sandbox.scratch + "/agent.xml"
        self.sandbox.run("tests", ["rm", "-f", junit], LOOK_S)
        # A command of the dataset may name the hidden tests.
        options = self.task.test_command if self.shown else ()
        words = pytest_words(options, junit, self.task.pytest_k if own else k, selected)
        done = self.sandbox.run("tests", [self.sandbox.python, *words], self.task.limits["tests"], env={"PYTEST_ADDOPTS": ""})
        found = self.sandbox.run("tests", ["cat", junit], LOOK_S, raw=reports.MAX_REPORT + 1)
        outcomes = reports.read_junit(found.raw) if found.code == 0 else {}
        report = reports.Report(outcomes, done.code, (), ())
        self.chosen_passed = own and done.code == 0 and bool(outcomes)
        counts = ", ".join("%d %s" % (report.count(one), one) for one in ("passed", "failed", "error", "skipped"))
        return "pytest ended with %d: %s\n%s" % (done.code, counts, tail(done.output, MAX_SAID - 200))

    def _submit(self):
        self.submitted = True
        return "handed in"

    def _git(self, *words, feed=None):
        done = self.sandbox.run("search", ["git", "-c", "core.quotePath=false", *words], LOOK_S, feed=feed)
        if done.code != 0:
            raise StageError("search", "git %s failed" % next(word for word in words if word[:1] != "-"), done.output)
        return done.raw.decode("utf-8", "surrogateescape")


def inside(path):
    """Return a path as it may be given to a command: relative, below the project, not git's own; else raise Misuse."""
    parts = path.split("/")
    if not path or path.startswith(("/", "-", "~")) or ".." in parts or "\0" in path or parts[0].lower() == ".git":
        raise Misuse("%r is not inside the project; give a path relative to it" % path[:120])
    return path


def cut(text, most=MAX_SAID):
    """Return text with its middle left out where it is too long."""
    if len(text) <= most:
        return text
    return "%s\n[%d characters left out]\n%s" % (text[: most * 2 // 3], len(text) - most, text[-(most // 3) :])


def tail(text, most):
    """Return the end of a text, where pytest says what failed."""
    return text if len(text) <= most else "[%d characters left out]\n%s" % (len(text) - most, text[-most:])


def _arguments(name, text):
    """Return the checked arguments of a call."""
    if name not in NAMES:
        raise Misuse("there is no tool %r; there are %s" % (name[:80], ", ".join(NAMES)))
    try:
        given = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Misuse("the arguments are not JSON: %s" % error) from None
    known = _PROPERTIES[name]["properties"]
    if not isinstance(given, dict):
        raise Misuse("the arguments are not a JSON object")
    given = {key: value for key, value in given.items() if value is not None}
    for key in (*given, *_PROPERTIES[name]["required"]):
        if key not in known:
            raise Misuse("%s takes no argument %r; it takes %s" % (name, key[:80], ", ".join(known) or "none"))
        if key not in given:
            raise Misuse("%s needs the argument %r" % (name, key))
        wanted, value = known[key]["type"], given[key]
        number = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**9
        if not (number if wanted == "integer" else isinstance(value, _TYPES[wanted])):
            raise Misuse("%s: %s must be of type %s%s" % (name, key, wanted, ", 1 or more" * (wanted == "integer")))
        if isinstance(value, str) and key != "patch" and (len(value) > MAX_WORD or "\0" in value):
            raise Misuse("%s: %s is too long" % (name, key))
    return given


def _admitted(text, hidden):
    """Split what the guardrails would refuse from a diff: the files that the task's tests write, binaries and links."""
    kept, left = [], {}
    for section in re.split(r"(?m)^(?=diff --git )", text):
        if not section:
            continue
        parsed = patches.Parsed(section)
        paths = parsed.paths or ["?"]
        if hidden & set(paths):
            left[paths[0]] = "the task's tests decide what it holds"
            continue
        try:
            patches.guard(section)
            kept.append(section)
        except patches.Refused as error:
            left[paths[0]] = str(error)
    return "".join(kept), left
