"""The provider's key: where it comes from, and how it stays out of everything that is written.

It is taken from the environment or from a file that only its owner can read, never from an argument list. Once it is known it
is gone from this process's environment, so that no command that is started inherits it; and `clean` takes it out of text in the
forms in which it could come back: as it is, in hex, percent-encoded, in base64, backwards.
"""

import base64
import os
import re
import stat
import urllib.parse
from pathlib import Path

from errors import InputError

DEFAULT_FILE = "~/.config/swebench-lite/key"
ALWAYS = "LITE_API_KEY"
# A key goes to the provider that it is for and to no other.
FITTING = {"CHUTES_API_KEY": "chutes.ai", "OPENAI_API_KEY": "openai.com"}
SHORTEST = 8
"""Characters; what is shorter (`none`, for a server without keys) is a word and not a secret, and stays in texts."""
SHOWN = "[the provider's key]"
_KEY = re.compile(r"[!#-\[\]-~]{1,4096}\Z")  # printable ASCII; no quote, backslash or space, so JSON writes it as it is


class Key:
    """A key that does not show itself; `value` is for the client alone."""

    def __init__(self, value, source):
        if not _KEY.match(value):
            raise InputError("%s holds no key: one line of printable characters is expected" % source)
        self.value = value
        self.source = source
        self._forms = re.compile("|".join(sorted(map(re.escape, _forms(value)), key=len, reverse=True)))

    def __repr__(self):
        return "Key(from %s)" % self.source

    def clean(self, text):
        """Return text without the key in any of its forms."""
        return text if len(self.value) < SHORTEST else self._forms.sub(SHOWN, text)


def find_key(base_url, file=None, environ=os.environ):
    """Return the key for `base_url`: from the file that is named, else from the environment, else from DEFAULT_FILE."""
    file = file or environ.get("LITE_KEY_FILE")
    if file:
        return Key(_read(Path(file).expanduser()), str(file))
    host = (urllib.parse.urlsplit(base_url).hostname or "").lower()
    fitting = [name for name, domain in FITTING.items() if host == domain or host.endswith("." + domain)]
    for name in (ALWAYS, *fitting):
        if environ.get(name):
            return Key(environ[name].strip(), "$" + name)
    default = Path(DEFAULT_FILE).expanduser()
    if default.exists():
        return Key(_read(default), DEFAULT_FILE)
    raise InputError("there is no key for %s: set %s, or write it to %s (chmod 600)" % (host, ALWAYS, DEFAULT_FILE))


def forget(environ=os.environ):
    """Take keys, and settings that the provider's client would follow unasked, out of the environment."""
    for name in list(environ):
        if name in (ALWAYS, *FITTING) or name.startswith("OPENAI_"):
            del environ[name]


def _read(path):
    """Return the first line of a file that belongs to this user and that nobody else can read."""
    try:
        with open(os.open(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), encoding="ascii", errors="replace") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InputError("%s is not a file" % path)
            if found.st_mode & 0o077 or found.st_uid != os.geteuid():
                raise InputError("%s can be read by others, or belongs to another: chmod 600 %s" % (path, path))
            return file.read(8192).strip()
    except OSError as error:
        raise InputError("%s: %s" % (path, error.strerror)) from None


def _forms(value):
    raw = value.encode()
    percent = "".join("%%%02x" % byte for byte in raw)
    forms = {value, value[::-1], raw.hex(), raw.hex().upper(), percent, percent.upper()}
    forms |= {urllib.parse.quote(value, safe=safe) for safe in ("", "/", "/:@")}
    if len(raw) >= SHORTEST:
        for shift in range(3):
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                # Of the ends only a part of each character belongs to the key.
                forms.add(encode(b"\0" * shift + raw)[4:-4].decode())
    return {form for form in forms if form}
