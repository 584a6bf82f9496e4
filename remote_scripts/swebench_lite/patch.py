"""Patches: what is refused before it touches anything, and how the rest is applied."""

import re

from errors import StageError

MAX_BYTES = 1024 * 1024
MAX_FILES = 100
MAX_HUNKS = 1000

# From strict to forgiving; each changes everything or nothing. What was used is part of the result.
WAYS = (
    ("git apply", ["git", "apply", "--whitespace=nowarn"]),
    ("git apply --recount", ["git", "apply", "--whitespace=nowarn", "--recount", "--ignore-space-change"]),
    ("git apply -C1", ["git", "apply", "--whitespace=nowarn", "--recount", "--ignore-space-change", "-C1"]),
)
SAYS_NO = (1, 128)
"""git's exit codes for a patch that does not fit, and for one that it cannot read."""
_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_INDEX = re.compile(r"index [0-9a-f]+\.\.[0-9a-f]+ \d{6}$")
_QUOTED = re.compile(r"\\([0-7]{3}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class Refused(StageError):
    """A patch that is not applied at all, with the rule that it breaks."""

    def __init__(self, message):
        super().__init__("patch", "patch refused: " + message)


class Unapplied(StageError):
    """A patch that git says does not fit; git that is ended, or does not come to an answer, is no such word."""


class Parsed:
    """What a unified diff says about itself: its paths, the number of hunks, and what makes it unusual."""

    def __init__(self, text):
        self.paths = []
        self.hunks = 0
        self.binary = False
        self.modes = set()
        old = new = 0  # lines of the hunk that are still to come: a removed line `-- a` is not a header
        for line in text.split("\n"):
            # A hunk that claims to be longer than it is must not hide the next file: git counts anew where it is asked to.
            if (old > 0 or new > 0) and line[:1] in ("-", "+", " ", "\\", ""):
                old -= line[:1] in ("-", " ", "")
                new -= line[:1] in ("+", " ", "")
                continue
            hunk = _HUNK.match(line)
            if hunk:
                self.hunks += 1
                old, new = (int(count) if count is not None else 1 for count in hunk.groups())
            else:
                old = new = 0  # what follows a header is none of the hunk's lines, however many it claimed
                self._header(line.rstrip("\r"))

    def _header(self, line):
        if line.startswith("diff --git "):
            middle = re.match(r'diff --git ("?a/.*?"?) ("?b/.*"?)$', line)
            for name in middle.groups() if middle else ():
                self._add(name)
        elif line.startswith(("--- ", "+++ ")):
            self._add(line[4:].split("\t")[0])
        elif line.startswith(("rename from ", "rename to ", "copy from ", "copy to ")):
            self._add("x/" + line.split(" ", 2)[2])
        elif line.startswith(("GIT binary patch", "Binary files ")):
            self.binary = True
        elif line.startswith(("new file mode ", "new mode ", "old mode ", "deleted file mode ")):
            self.modes.add(line.rsplit(" ", 1)[1])
        elif _INDEX.match(line):
            self.modes.add(line.rsplit(" ", 1)[1])

    def _add(self, name):
        name = unquote(name)
        if name != "/dev/null":
            path = re.sub("//+", "/", name if name.startswith("/") else name.partition("/")[2])
            if path not in self.paths:
                self.paths.append(path)


def unquote(name):
    """Return a path as git means it: names with unusual characters are quoted like C strings."""
    if not (name.startswith('"') and name.endswith('"') and len(name) > 1):
        return name
    escape = lambda one: _ESCAPES.get(one[1], chr(int(one[1], 8)) if one[1].isdigit() else one[1])  # noqa: E731
    # Octal numbers are bytes of UTF-8; other characters stand for themselves.
    text = _QUOTED.sub(escape, "".join(map(chr, name[1:-1].encode("utf-8", "surrogatepass"))))
    return text.encode("latin-1", "replace").decode("utf-8", "surrogateescape")


def as_bytes(text):
    """Return a patch as it was read: what is not UTF-8 in it came through as lone surrogates."""
    return text.encode("utf-8", "surrogateescape")


def guard(text, test_patch="", max_bytes=MAX_BYTES):
    """Return the paths that a patch changes, or raise Refused with the rule that it breaks."""
    if not text.strip():
        raise Refused("it is empty")
    try:
        size = len(as_bytes(text))
    except UnicodeEncodeError:
        raise Refused("it holds half a character, which no file can hold") from None
    if size > max_bytes:
        raise Refused("%d bytes, more than %d" % (size, max_bytes))
    if "\0" in text:
        raise Refused("it holds a NUL byte")
    parsed = Parsed(text)
    if parsed.binary:
        raise Refused("it changes a binary file")
    if not parsed.paths:
        raise Refused("it is not a unified diff")
    if len(parsed.paths) > MAX_FILES:
        raise Refused("it changes %d files, more than %d" % (len(parsed.paths), MAX_FILES))
    if parsed.hunks > MAX_HUNKS:
        raise Refused("it has %d hunks, more than %d" % (parsed.hunks, MAX_HUNKS))
    links = parsed.modes & {"120000", "160000"}
    if links:
        raise Refused("it makes or changes a symbolic link or a submodule (mode %s)" % sorted(links)[0])
    for path in parsed.paths:
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or {".git", "git~1"} & {part.lower() for part in parts} or not path:
            raise Refused("%r is outside the project" % path[:120])
    own = set(Parsed(test_patch).paths) if test_patch else set()
    touched = sorted(own & set(parsed.paths))
    if touched:
        raise Refused("it changes %s, which the task's own test patch writes" % touched[0])
    return parsed.paths


def apply(sandbox, text, limit_s):
    """Apply a patch in the sandbox; return the way that worked, or raise Unapplied with what git said of the strictest."""
    body = as_bytes(text if text.endswith("\n") else text + "\n")
    said = ""
    for name, argv in WAYS:
        done = sandbox.run("patch", [*argv, "-"], limit_s, feed=body)
        if done.code == 0:
            return name
        if done.code not in SAYS_NO:
            raise StageError("patch", "git apply ended with %d" % done.code, done.output)
        said = said or done.output
    raise Unapplied("patch", "the patch does not apply", said)
