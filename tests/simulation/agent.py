"""The real host agent, `remote_scripts/fleet_host.py`, over a simulated machine: only what asks the kernel is replaced.

What decides is the agent's own: launch, derive, refuse_duplicate, take_host, preflight, accept, status, wait, cancel, manifest,
seal, ack, next_epoch, write_durably's reserve, and of the supervisor mark_started, write_rc and finish.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.simulation.bugs import Bug
from tests.simulation.disk import Disk, paths

if TYPE_CHECKING:
    from tests.simulation.machine import Machine

SOURCE = Path(__file__).resolve().parents[2] / "remote_scripts" / "fleet_host.py"
HOME = "/home/sim"


class Seat:
    """The machine on which the agent's code runs at this moment; the simulation has one thread."""

    machine: Machine


SEAT = Seat()


def _machine() -> Machine:
    return SEAT.machine


def _disk() -> Disk:
    return SEAT.machine.disk


class _Changes:
    """Stands for inotify, fifo and hang-up: waiting gives the machine's processes time."""

    def __init__(self, directory: str, *_: object) -> None:
        self.attempt = directory.rsplit("/", 1)[1]
        self.idle = False

    def wait(self, timeout_s: float) -> bool:
        before, watched = self._seen(), self.attempt in _machine().fifos
        _machine().pass_time(self.attempt, timeout_s if watched else min(timeout_s, 1.0))
        # As the agent's own: without a fifo nothing tells the end of a process, so silence proves nothing.
        self.idle = self._seen() == before and (watched or _machine().bug is Bug.SILENCE_IS_PROOF)
        return True

    def _seen(self) -> object:
        machine = _machine()
        return dict(machine.disk.folders.get(f"{HOME}/.fleet/attempts/{self.attempt}", {})), machine.lives(self.attempt)

    def close(self) -> None:
        pass


def _read_text(path: str, _limit: int = 0) -> str:
    return _disk().read(path) or ""


def _write(path: str, data: bytes, _mode: int) -> None:
    _disk().write(path, data.decode())


def _replacements(module: ModuleType) -> dict[str, Any]:
    """Name in the agent → what stands for it."""

    def start_session(lock: int, argv: list[str], _env: object) -> None:
        _machine().spawn(argv[-1])

    def start_unit(attempt: str, _directory: str, lock: int, _argv: object, _env: object) -> None:
        # A service inherits no descriptor: the lock is let go, and the unit takes it itself.
        _machine().close(lock)
        _machine().spawn(attempt)

    fake_os = SimpleNamespace(
        path=paths(_disk),
        listdir=lambda path: _disk().listdir(path),
        mkdir=lambda path, mode=0: _disk().mkdir(path, mode),
        rename=lambda old, new: _disk().rename(old, new),
        unlink=lambda path: _disk().unlink(path),
        link=lambda old, new: _disk().link(old, new),
        stat=lambda path: SimpleNamespace(st_mtime=_machine().wall),
        close=lambda descriptor: _machine().close(descriptor),
        getpid=lambda: _machine().pid,
        urandom=lambda size: _machine().name.encode().ljust(size, b"."),
        WIFEXITED=lambda status: status >= 0,
        WEXITSTATUS=lambda status: status,
        WIFSIGNALED=lambda status: status < 0,
        WTERMSIG=lambda status: -status,
    )
    return {
        "os": fake_os,
        "shutil": SimpleNamespace(
            rmtree=lambda path, ignore_errors=False: _disk().remove_tree(path), disk_usage=lambda path: SimpleNamespace(free=0)
        ),
        "time": SimpleNamespace(
            monotonic=lambda: _machine().clock,
            sleep=lambda seconds: _machine().sleep(seconds),
            time=lambda: _machine().wall,
        ),
        "HOME": HOME,
        "ROOT": HOME + "/.fleet",
        "ATTEMPTS": HOME + "/.fleet/attempts",
        "read_json": lambda path: _disk().document(path),
        "read_text": _read_text,
        "sync_directory": lambda path: None,
        "_write_durably": _write,
        "environment": lambda extra=None: {},
        "boot_id": lambda: _machine().boot_id,
        "boottime": lambda: _machine().clock,
        "now_iso": lambda epoch_s=None: f"+{_machine().wall:.0f}",
        "take_lock": lambda name, wait_s: _machine().take_lock(name),
        "lock_held": lambda name="host.lock": bool(_machine().holders(name)),
        "guard_held": lambda: _machine().tree_holds(),
        # Every simulated machine has one account; its HOME is not the one of whoever runs the simulation.
        "stands_for_the_machine": lambda: False,
        "tree_lives": lambda directory: _machine().lives(directory.rsplit("/", 1)[1]),
        "filesystem_type": lambda path: "ext4",
        "attempt_processes": lambda: _machine().strays(),
        "foreign_processes": lambda patterns: [],
        "command_line": lambda pid: "eval",
        "disk_facts": lambda path: _machine().disk_facts(),
        "enclosure": lambda: _machine().enclosure,
        "start_session": start_session,
        "start_unit": start_unit,
        "process_stat": lambda pid: (1, 1, "S"),
        "last_log_line": lambda directory: (0, ""),
        "progress_of": lambda attempt, intent, started, log_size: None,
        "log_tail": lambda path, limit=0: "",
        "walk": lambda root: (),
        "list_files": lambda root, limits, copy_to, only: _machine().outputs(root),
        "since_the_seal": lambda manifest: [],
        "sweep": lambda attempt, own_pid, cleanup: _machine().sweep(attempt),
        "stop_supervisor": lambda directory: _machine().order_stop(directory.rsplit("/", 1)[1]),
        "Changes": _Changes,
        "send": lambda nonce, document: _machine().frames.append(document),
    }


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulated_fleet_host", SOURCE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, stand_in in _replacements(module).items():
        # A renamed function would silently leave the real one in place, on this real machine.
        assert hasattr(module, name), f"{SOURCE.name} no longer has {name}: the simulation must follow"
        setattr(module, name, stand_in)
    return module


AGENT = _load()


def answer(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the frames with which the agent on the present machine answers, as JSON documents."""
    machine = SEAT.machine
    machine.frames = []
    request = json.loads(json.dumps(request))
    verb: Callable[..., dict[str, Any]] = AGENT.VERBS[request["verb"]][0]
    try:
        machine.frames.append(dict(verb(request, None), ok=True))
    except AGENT.Refusal as refusal:
        error = {"code": refusal.code, "message": refusal.message, "detail": refusal.detail}
        machine.frames.append({"ok": False, "error": error})
    except OSError as error:
        # As the agent's main() does it.
        failure = {"code": "not-ready", "message": f"the host's disk: {error.strerror}", "detail": {}}
        machine.frames.append({"ok": False, "error": failure})
    return json.loads(json.dumps(machine.frames))
