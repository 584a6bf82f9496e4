"""The agent's own Python: a virtual environment on a host whose Python has no client for the model's provider.

It is made once by `lite.py agent-setup`, below the runner's cache, and used by `lite.py agent` and `agent-pipeline` where their
own Python lacks the packages. Without a way to a package index: `--wheels DIR`, a directory filled with `pip download`.
"""

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

from errors import InputError, StageError
from sandbox import execute

PINS = {"plain": ("openai==3.57.0",), "autogen": ("openai==3.57.0", "autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5")}
MODULES = {"plain": ("openai",), "autogen": ("openai", "autogen_agentchat", "autogen_ext", "tiktoken")}
OLDEST = (3, 10)
SETUP_S = 900.0
NEEDED = {
    "plain": "pip install 'fleet-evals[agent]', or on a host: python3 lite.py agent-setup",
    "autogen": "pip install 'fleet-evals[autogen]', or on a host: python3 lite.py agent-setup --framework autogen",
}


def set_up(cache, framework, wheels, say):
    """Return the document of the environment, made anew where it is not as pinned."""
    place = _place(cache)
    document = {"schema": "fleet.lite-agent-setup/1", "python": str(_python(place)), "packages": list(PINS[framework])}
    if _made(place, framework):
        return dict(document, made=False)
    if sys.version_info < OLDEST:
        raise InputError("the agent needs Python %d.%d or later; this is %s" % (*OLDEST, sys.version.split()[0]))
    say("making %s; this is done once" % place)
    shutil.rmtree(str(place), ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    source = ["--no-index", "--find-links", str(Path(wheels).resolve())] if wheels else []
    install = ["install", "--quiet", "--disable-pip-version-check", *source, *PINS[framework]]
    done = execute("install", [*_pip(place, wheels), *install], SETUP_S)
    if done.code != 0:
        raise StageError("install", "pip ended with %d" % done.code, done.output)
    (place / "made.json").write_text(json.dumps(PINS[framework]))
    return dict(document, made=True)


def _pip(place, wheels):
    """Make the environment; return pip's command: its own, or that of the wheel where this Python can bring none."""
    if execute("install", [sys.executable, "-m", "venv", str(place)], 120).code == 0:
        return [str(_python(place)), "-m", "pip"]
    found = sorted(Path(wheels).glob("pip-*.whl")) if wheels else []
    bare = execute("install", [sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], 120) if found else None
    if bare is None or bare.code != 0:
        raise InputError("this Python makes no virtual environment with pip: sudo apt-get install -y python3-venv")
    return [str(_python(place)), str(found[-1] / "pip")]


def use(cache, framework):
    """Go on in the agent's own Python where this one lacks the packages; does not return then."""
    missing = [name for name in MODULES[framework] if importlib.util.find_spec(name) is None]
    python = _python(_place(cache))
    if not missing:
        return
    if not _made(_place(cache), framework) or Path(sys.prefix).resolve() == _place(cache).resolve():
        raise InputError("this Python has no %s: %s" % (missing[0], NEEDED[framework]))
    os.execv(str(python), [str(python), "-B", *sys.argv])


def ready(cache, framework):
    """Return what is missing for an agent, None where its packages are to be had."""
    if all(importlib.util.find_spec(name) for name in MODULES[framework]) or _made(_place(cache), framework):
        return None
    return "the agent's Python is not made: " + NEEDED[framework]


def _place(cache):
    return Path(cache) / "agent"


def _python(place):
    return place / "bin" / "python"


def _made(place, framework):
    try:
        pins = json.loads((place / "made.json").read_text())
    except (OSError, ValueError):
        return False
    return set(PINS[framework]) <= set(pins) and _python(place).exists()
