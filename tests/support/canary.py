"""A batch with a secret of its own in every place where one may be, under a umask that gives everything to everyone.

Everything that can go wrong goes wrong in it: a result is rejected, an eval fails, one is lost, one is cancelled, a host
is not ready, one has a talkative shell, one is out of reach. What all commands said is kept, and so is every command line
that was seen on either end: the hosts are real sshd on this machine.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import stat
import subprocess
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.support.operator import Operator, Said, finish, wait_until
from tests.support.results import F2P, P2P, build_result
from tests.support.sshd_farm import SshdFarm

NOBODY = 65534
OWN_FILES = ("fleet.json", "manifest.json", "verdict.json")
"""What fleet writes into a result; everything else there is the host's."""
_SCAN_EVERY_S = 0.01

_PIPELINE = """
schema: fleet.pipeline/1
name: leaky
workdir: ~/work
command: [/bin/sh, eval.sh, "{{instance_id}}"]
env: {{PIPELINE_KEY: {pipeline}}}
busy: {{processes: [no_process_has_this_name]}}
readiness:
  disk: {{max_used_percent: 100, min_free_gb: 0, min_free_inodes: 0}}
  min_free_memory_gb: 0
  commands: [{{name: models, argv: [sh, -c, "! cat ~/why"], fix: ask}}]
outputs: {{root: "{{output_dir}}"}}
cleanup: {{grace_s: 1}}
"""

_EVAL = """
echo "OPENAI_API_KEY={output}"
echo "calling the model with {output}"
env > ~/environment
case $1 in
leak-good) cp -r {good}/. "$FLEET_OUTPUT_DIR" ;;
leak-error) cp -r {error}/. "$FLEET_OUTPUT_DIR" ;;
leak-fails) exit 3 ;;
leak-lost) kill -9 $PPID $(awk '{{print $4}}' /proc/$PPID/stat) ;;
leak-slow) touch ~/slow; echo "waiting with {output}"; sleep 60 ;;
esac
"""


@dataclass(frozen=True)
class Canaries:
    """One secret per place, in the shape of a provider's key."""

    task: str
    pipeline: str
    controller: str
    dataset: str
    output: str

    @property
    def all(self) -> dict[str, str]:
        """Place → secret."""
        return dict(vars(self))


def new_canaries() -> Canaries:
    """Return secrets that nobody has seen."""
    return Canaries(
        *(f"sk-{place}-{secrets.token_hex(16)}" for place in ("task", "pipeline", "controller", "dataset", "output"))
    )


def forms(secret: str) -> list[bytes]:
    """Return the bytes by which a secret is found: as it is, in hex, percent-encoded, in base64 at any offset."""
    raw = secret.encode()
    middle = [base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3)]
    quoted = "".join(f"%{byte:02x}" for byte in raw).encode()
    return [raw, raw.hex().encode(), quoted, quoted.upper(), urllib.parse.quote(secret, safe="").encode(), *middle, raw[::-1]]


def held(data: bytes, canaries: Canaries, *but: str) -> list[str]:
    """Return the places whose secret is in `data` in any form, those in `but` left out."""
    return [place for place, one in canaries.all.items() if place not in but and any(form in data for form in forms(one))]


class Watch:
    """Reads every command line of this machine every 10 ms, and keeps those in which a secret stands."""

    def __init__(self, canaries: Canaries) -> None:
        self._canaries = canaries
        self._needles = [form for one in canaries.all.values() for form in forms(one)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self.looks = 0
        self.seen: set[bytes] = set()
        """Every command line there was."""
        self.leaks: set[bytes] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(10)

    def _look(self) -> None:
        while not self._ended.wait(_SCAN_EVERY_S):
            self.looks += 1
            for name in os.listdir("/proc"):
                if name.isdigit():
                    with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as file:
                        line = file.read()
                        if line not in self.seen:
                            self.seen.add(line)
                            if any(needle in line for needle in self._needles):
                                self.leaks.add(line)


@dataclass
class LeakyBatch:
    """The batch after all of it."""

    directory: Path
    canaries: Canaries
    farm: SshdFarm
    operator: Operator
    watch: Watch
    said: dict[str, Said] = field(default_factory=dict)
    environ_for_others: str = ""
    """What another user got when reading the environment of a running eval."""

    @property
    def state_home(self) -> Path:
        """The operator's XDG_STATE_HOME."""
        return self.directory / "state"

    def run(self, *words: str) -> Said:
        """Run a command with all talk on and keep what it said."""
        said = self.operator.run(*words, "--debug")
        self.said[" ".join(words)] = said
        return said

    def run_all(self, *commands: list[str]) -> None:
        """Run commands that only look, a few at a time."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda words: self.run(*words), commands))

    def files(self, *roots: Path) -> list[Path]:
        """Return every plain file below `roots`."""
        return sorted(path for root in roots for path in root.rglob("*") if path.is_file() and not path.is_symlink())

    def is_hosts(self, path: Path) -> bool:
        """Tell whether a collected file is the host's own."""
        inside = [part for part in path.parts if part.startswith("attempt")]
        return bool(inside) and path.name not in OWN_FILES


def leaky_batch(directory: Path) -> LeakyBatch:
    """Return the batch; `directory` may be entered by everybody, so that only fleet's own modes protect what is in it."""
    canaries = new_canaries()
    before = os.umask(0o022)
    try:
        with SshdFarm(3, directory / "farm") as farm, Watch(canaries) as watch:
            operator = _operator(directory, farm, canaries)
            _assignment(directory, canaries)
            _hosts(directory, farm, canaries)
            os.umask(0)
            batch = LeakyBatch(directory, canaries, farm, operator, watch)
            _work(batch)
            return batch
    finally:
        os.umask(before)


def _operator(directory: Path, farm: SshdFarm, canaries: Canaries) -> Operator:
    home, scripts = directory / "home", directory / "remote_scripts" / "leaky"
    for path in (home, scripts, directory / "collected"):
        path.mkdir(parents=True)
    (scripts / "pipeline.yaml").write_text(_PIPELINE.format(pipeline=canaries.pipeline))
    common = {"port": farm.port, "user": farm.user, "identity_file": str(farm.identity), "pipeline": "leaky"}
    hosts = {name: {"address": farm.addresses[name]} for name in farm.names}
    document = {"defaults": common, "hosts": {**hosts, "dead": {"address": "127.0.0.1", "port": 1}}}
    (directory / "hosts.yaml").write_text(yaml.safe_dump(document))
    environment = {
        "HOME": str(home),
        "XDG_STATE_HOME": str(directory / "state"),
        "FLEET_REMOTE_SCRIPTS": str(directory / "remote_scripts"),
        "OPENAI_API_KEY": canaries.controller,
        "AWS_SECRET_ACCESS_KEY": canaries.controller,
        "TMPDIR": str(directory / "tmp"),
    }
    (directory / "tmp").mkdir()
    return Operator(directory, directory / "hosts.yaml", environment)


def _assignment(directory: Path, canaries: Canaries) -> None:
    instances = {
        "eval1": ["leak-good", "leak-error", "leak-fails", "leak-lost", "leak-slow"],
        "eval2": ["leak-noise"],
        "eval3": ["leak-unready"],
        "dead": ["leak-dead"],
    }
    document: dict[str, list[dict[str, object]]] = {}
    for host, names in instances.items():
        for name in names:
            record = {
                "instance_id": name,
                "repo": "a/b",
                "base_commit": "c",
                "FAIL_TO_PASS": F2P,
                "PASS_TO_PASS": P2P,
                "problem_statement": f"The key {canaries.dataset} is refused.",
            }
            (directory / f"{name}.json").write_text(json.dumps(record))
            entry = {"instance_id": name, "model": "gpt", "dataset_file": f"{name}.json", "env": {"TASK_KEY": canaries.task}}
            document.setdefault(host, []).append(entry)
    (directory / "night.json").write_text(json.dumps(document))


def _hosts(directory: Path, farm: SshdFarm, canaries: Canaries) -> None:
    log = f"openai.AuthenticationError: Incorrect API key provided: {canaries.output}"
    good = build_result(directory / "prepared" / "good", "leak-good", files={"notes.txt": log})
    error = build_result(directory / "prepared" / "error", "leak-error", error=log, patch="", test_output=log)
    for name in farm.names:
        (farm.homes[name] / "work").mkdir()
        script = _EVAL.format(output=canaries.output, good=good, error=error)
        (farm.homes[name] / "work" / "eval.sh").write_text(script)
    (farm.homes["eval1"] / ".bashrc").write_text("umask 000\n")
    (farm.homes["eval2"] / ".bashrc").write_text(f"echo using {canaries.output}\n")
    (farm.homes["eval3"] / "why").write_text(f"no model answers to {canaries.output}\n")


def _work(batch: LeakyBatch) -> None:
    """Type what an operator types in a bad night."""
    batch.run("trust", "eval1", "eval2", "eval3", "--yes")
    batch.run_all(["check"], ["check", "--json"], ["hosts", "--json"], ["dispatch", "night.json", "--dry-run"])
    process = batch.operator.start("dispatch", "night.json", "--patience", "1", "--debug")
    slow = batch.farm.homes["eval1"] / "slow"
    wait_until(lambda: slow.exists() or process.poll() is not None)
    _read_environ_as_nobody(batch)
    batch.run_all(["status"], ["status", "--json"], ["logs", "leak-slow"], ["why", "leak-slow"], ["dashboard"])
    batch.run("cancel", "leak-slow", "--yes", "--grace", "1")
    batch.said["dispatch night.json"] = finish(process)
    batch.run("dispatch", "night.json", "--detach", "--patience", "1")
    wait_until(lambda: not _controllers(batch))
    results = str(batch.operator.collected / "night")
    batch.run_all(
        *(["why", f"leak-{name}"] for name in ("good", "error", "fails", "lost", "slow", "noise", "unready", "dead")),
        *(["logs", f"leak-{name}", "--all"] for name in ("error", "lost", "noise")),
        ["why", "eval2"],
        ["why", "eval3"],
        ["collect", "night"],
        ["collect", "night", "--json"],
        ["status", "--offline", "--json"],
        ["validate", results],
        ["validate", results, "--json"],
        ["dashboard", "night"],
        ["dashboard", "night", "--json"],
        ["logs", "nothing-of-that-name"],
    )


def _controllers(batch: LeakyBatch) -> list[int]:
    """Return the pids of controllers of this batch: the detached one ends by itself."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            environ = (entry / "environ").read_bytes()
            if f"FLEET_COLLECTED={batch.operator.collected}".encode() in environ.split(b"\0"):
                found.append(int(entry.name))
    return found


def _read_environ_as_nobody(batch: LeakyBatch) -> None:
    """Try to read the environment of the running eval as another user of the machine."""
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if batch.canaries.task.encode() in (entry / "environ").read_bytes():
                done = as_nobody(["cat", str(entry / "environ")])
                batch.environ_for_others = done.stdout + done.stderr
                return


def as_nobody(argv: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command as a user who owns nothing here."""
    settings = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.getuid() == 0 else {}
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False, cwd="/", **settings)


def open_to_others(root: Path) -> list[str]:
    """Return what below `root` has a permission for group or others."""
    found = []
    for path in [root, *root.rglob("*")]:
        mode = path.lstat().st_mode
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) & 0o077:
            found.append(f"{stat.filemode(mode)} {path.relative_to(root)}")
    return found
