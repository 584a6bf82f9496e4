"""An attempt's processes: supervisor → runner → eval, which all hold the host's lock, and do each other's last duties.

BORN ──▶ MARKED ──▶ FORKED ──▶ RUNNING ──▶ ENDED ──▶ WRITTEN ──▶ (gone)
  marker      runner     exec       eval ends   rc.json     manifest.json
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from tests.simulation.agent import AGENT
from tests.simulation.bugs import Bug

if TYPE_CHECKING:
    from tests.simulation.machine import Machine


class Phase(Enum):
    """The last durable or visible thing that the tree did."""

    BORN = "born"
    MARKED = "marked"
    FORKED = "forked"
    RUNNING = "running"
    ENDED = "ended"
    WRITTEN = "written"


class Tree:
    """The processes of one start."""

    def __init__(self, attempt: str, *, inherits: bool) -> None:
        self.attempt = attempt
        self.inherits = inherits
        """False for a transient unit, which takes the lock itself once it is up."""
        self.phase = Phase.BORN
        self.supervisor, self.runner, self.eval = True, False, False
        self.stop = False
        self.late = 0
        """How many steps it sleeps before it comes up."""
        self.patient = False
        """Whether it sleeps as long as others live here: a unit that comes up when the machine is calm again."""
        self.doomed = False
        """Whether it dies as soon as it is up."""
        self.status: int | None = None
        self.reason = ""

    @property
    def lives(self) -> bool:
        return self.supervisor or self.runner or self.eval

    @property
    def acting(self) -> str:
        """Which process takes the next step."""
        return "runner" if self.runner and self.phase is not Phase.MARKED else "supervisor"

    def holds(self, bug: Bug) -> bool:
        """Tell whether a process of the tree holds the lock."""
        if self.phase is Phase.BORN and not self.inherits:
            return False
        return self.supervisor or self.runner or (self.eval and bug is not Bug.LOCK_NOT_INHERITED)

    def kill(self, who: str) -> None:
        if who == "runner":
            self.runner = False
        else:
            self.supervisor = False

    def step(self, machine: Machine) -> None:
        """Do the next thing that this tree does by itself; an eval that runs ends by itself or by a stop only."""
        if not self.lives:
            return
        if self.late:
            calm = not any(tree.lives for tree in machine.trees if tree is not self)
            self.late -= calm or not self.patient
        elif self.phase is Phase.BORN:
            self._come_up(machine)
        elif self.phase is Phase.MARKED:
            # A supervisor killed here leaves a marker and nothing that runs: lost, though nothing happened.
            self.runner = self.supervisor
            self.phase = Phase.FORKED
        elif self.phase is Phase.FORKED:
            self._execute(machine)
        elif self.phase is Phase.RUNNING and self.stop and self.eval:
            machine.end_eval(self, -15)
        elif self.phase is Phase.ENDED:
            self._write_rc()
        elif self.phase is Phase.WRITTEN:
            self._last_duties()

    def _come_up(self, machine: Machine) -> None:
        others = [tree for tree in machine.trees if tree is not self and tree.holds(machine.bug)]
        if self.doomed or others or (not self.inherits and machine.holders("host.lock")):
            self.supervisor = False
            return
        machine.fifos.add(self.attempt)
        self.inherits = True
        exclusive = machine.bug is not Bug.MARKER_NOT_EXCLUSIVE
        if exclusive and machine.disk.exists(self._path("rc.json")):
            self.supervisor = False
            return
        if machine.bug is Bug.MARKER_AFTER_EXEC:
            self.runner, self.phase = True, Phase.RUNNING
            self.eval = True
            machine.executed(self)
        if not exclusive:
            machine.disk.folders[self._path("")[:-1]].pop("started.json", None)
        if not self._agent().mark_started():
            self.supervisor = False
        elif self.phase is Phase.BORN:
            self.phase = Phase.MARKED

    def _execute(self, machine: Machine) -> None:
        if not self.runner:
            # The runner was killed before it had an eval: the supervisor says so.
            self.phase, self.status, self.reason = Phase.ENDED, None, "the exit code was lost with the runner"
            return
        self.eval, self.phase = True, Phase.RUNNING
        machine.executed(self)

    def _write_rc(self) -> None:
        if not self.runner and not self.supervisor:
            return
        reason = self.reason or ("" if self.runner else "the runner was killed; the supervisor kept the exit code")
        self._agent().write_rc(self.status, reason)
        self.phase = Phase.WRITTEN

    def _last_duties(self) -> None:
        agent = self._agent()
        if self.runner and self.supervisor:
            self.runner = False
        elif self.runner:
            AGENT.seal(self.attempt, agent.directory, agent.intent, 1)
            self.runner = False
        elif self.supervisor:
            agent.finish()
            self.supervisor = False

    def _path(self, name: str) -> str:
        return f"{AGENT.ATTEMPTS}/{self.attempt}/{name}"

    def _agent(self) -> object:
        """Return the agent's own Supervisor, without the descriptors that it opens."""
        supervisor = AGENT.Supervisor.__new__(AGENT.Supervisor)
        supervisor.attempt, supervisor.directory = self.attempt, self._path("")[:-1]
        supervisor.intent = AGENT.read_json(self._path("spec.json"))
        supervisor.spec, supervisor.begun = supervisor.intent["spec"], AGENT.boottime()
        return supervisor
