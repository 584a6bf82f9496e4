"""One simulated eval host: disk, locks, boots and process trees, under the real agent's code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.simulation.agent import AGENT, HOME, SEAT, answer
from tests.simulation.bugs import Bug
from tests.simulation.disk import Disk, Killed
from tests.simulation.stalled import Stalled
from tests.simulation.tree import Phase, Tree

FLEET = HOME + "/.fleet"


class Machine:
    """What an eval host is to fleet; `violate` is called with every promise that is seen broken here."""

    def __init__(self, name: str, bug: Bug, violate: Callable[[str], None]) -> None:
        self.name, self.bug, self.violate = name, bug, violate
        self.disk = Disk()
        self.disk.folders = {HOME: {}, FLEET: {"reserve": ""}, FLEET + "/attempts": {}, HOME + "/work": {}}
        self.clock, self.wall, self.boots = 1000.0, 1e9, 1
        self.frames: list[dict[str, Any]] = []
        self.trees: list[Tree] = []
        self.up = True
        """Whether the link to it carries anything."""
        self.enclosure = "session"
        self.slow = 0
        """How much longer than the launch waits for it the next supervisor needs, in steps."""
        self.power = False
        """Whether the disk's fuse takes the whole machine down, not one process."""
        self.late: list[dict[str, Any]] = []
        """Requests whose sender gave up and which are still on their way."""
        self.starts: Counter[str] = Counter()
        self.begun: list[tuple[str, str]] = []
        """(attempt, task) of every eval executed here, in order."""
        self.after: dict[str, list[str]] = {}
        """Attempt → the earlier ones that its launch named."""
        self.products: dict[str, str] = {}
        self.fifos: set[str] = set()
        self.stalled: list[Stalled] = []
        """Agents that stopped in the middle of a request."""
        self.patient = False
        """Whether the next supervisor, when it is slow, waits for the machine to be calm."""
        self.doomed = False
        """Whether the next supervisor dies before anybody can watch it."""
        self._handles: dict[int, tuple[str, int]] = {}
        """Descriptor → (lock, the call that took it)."""
        self._next_handle = 100
        self._call = self._calls = 0
        self._moving = 0
        """How many trees are taking a step: those are processes of their own, which no agent's stop concerns."""

    @property
    def boot_id(self) -> str:
        return f"{self.name}-boot{self.boots}"

    @property
    def pid(self) -> int:
        """Of who acts now, a supervisor or the agent of a call: two at once never have the same."""
        return 1 if self._moving else 1 + self._call

    # --- what the agent asks of the kernel ---

    def take_lock(self, name: str) -> int | None:
        if self.holders(name):
            return None
        self._next_handle += 1
        self._handles[self._next_handle] = (name, self._call)
        return self._next_handle

    def close(self, handle: int) -> None:
        self._handles.pop(handle, None)

    def holders(self, name: str) -> int:
        """Return how many hold the lock: calls that took it, and process trees that inherited it."""
        trees = sum(tree.holds(self.bug) for tree in self.trees) if name == "host.lock" else 0
        return trees + sum(held == name for held, _ in self._handles.values())

    def tree_holds(self) -> bool:
        return any(tree.holds(self.bug) for tree in self.trees)

    def lives(self, attempt: str) -> bool | None:
        if attempt not in self.fifos:
            return None
        return any(tree.attempt == attempt and tree.holds(self.bug) for tree in self.trees)

    def strays(self) -> list[tuple[int, str]]:
        return [(number, tree.attempt) for number, tree in enumerate(self.trees, 1) if tree.eval]

    def disk_facts(self) -> dict[str, Any]:
        full = self.disk.room is not None
        return {"used_percent": 100.0 if full else 40.0, "free": 0 if full else 1 << 40, "inodes_free": None, "error": None}

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        self.wall += seconds

    def outputs(self, root: str) -> dict[str, Any]:
        product = self.products.get(root.split("/")[-2], "nothing")
        files = [{"path": "output.jsonl", "size": 1, "sha256": product}]
        return {"root": root, "files": files, "bytes": 1, "skipped": [], "stale": []}

    def sweep(self, attempt: str) -> tuple[int, list[dict[str, Any]]]:
        found = [tree for tree in self.trees if tree.attempt == attempt and tree.eval]
        for tree in found:
            self.end_eval(tree, -9)
        return len(found), []

    def order_stop(self, attempt: str) -> bool:
        found = [tree for tree in self.trees if tree.attempt == attempt and tree.lives]
        for tree in found:
            tree.stop = True
        return any(tree.supervisor or tree.runner for tree in found)

    def pass_time(self, attempt: str, seconds: float) -> None:
        """Let a cancel's victim come to its end while somebody waits for it."""
        self.sleep(seconds)
        for tree in list(self.trees):
            if tree.attempt == attempt and (tree.stop or tree.phase is Phase.BORN):
                self.advance(tree)

    # --- processes ---

    def spawn(self, attempt: str) -> None:
        """Start a supervisor; it comes up before the launch answers, or later when the machine is slow."""
        tree = Tree(attempt, inherits=self.enclosure != "unit")
        tree.late, tree.patient, tree.doomed = self.slow, self.patient, self.doomed
        self.slow, self.patient, self.doomed = 0, False, False
        self.trees.append(tree)
        if not tree.late:
            self.advance(tree)

    def advance(self, tree: Tree) -> None:
        """Let the tree take its next step; a kill or a full disk in the middle costs the process that took it."""
        before, SEAT.machine = getattr(SEAT, "machine", self), self
        acting = tree.acting
        self._moving += 1
        try:
            tree.step(self)
        except Killed:
            if self.power:
                raise
            self.disk.dead = False
            tree.kill(acting)
        except OSError:
            # The traceback goes to supervisor.log; the process ends.
            tree.kill(acting)
        finally:
            self._moving -= 1
            SEAT.machine = before

    def settle(self, tree: Tree) -> None:
        """Advance outside of any call, where a power failure is the machine's own."""
        try:
            self.advance(tree)
        except Killed:
            self.reboot()

    def executed(self, tree: Tree) -> None:
        """Note that an eval began, and hold that against the promises."""
        others = [one.attempt for one in self.trees if one.eval and one is not tree]
        if others:
            self.violate(f"{self.name}: the eval of {tree.attempt} starts beside that of {', '.join(others)}")
        self.starts[tree.attempt] += 1
        if self.starts[tree.attempt] > 1:
            self.violate(f"{self.name}: attempt {tree.attempt} is started a second time")
        self.begun.append((tree.attempt, str(AGENT.read_json(f"{FLEET}/attempts/{tree.attempt}/spec.json")["key"])))

    def end_eval(self, tree: Tree, status: int, product: str = "partial") -> None:
        tree.eval, tree.status = False, status
        self.products[tree.attempt] = product
        if tree.phase is Phase.RUNNING:
            tree.phase = Phase.ENDED

    def reboot(self) -> None:
        for tree in self.trees:
            if tree.eval:
                self.products[tree.attempt] = "partial"
        self.trees.clear()
        self.end_stalled()
        self._handles.clear()
        self.late.clear()
        self.boots += 1
        self.clock = 1000.0
        self.disk.fuse, self.disk.dead, self.power, self.slow = None, False, False, 0

    # --- requests ---

    def _next_call(self) -> int:
        self._calls += 1
        self._call = self._calls
        return self._calls

    def call(self, request: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Carry a request out and return its frames; None when the agent, or the machine, died of it."""
        SEAT.machine = self
        call = self._next_call()
        if request["verb"] == "launch":
            self.after[request["attempt"]] = request["after"]
        try:
            return answer(request)
        except Killed:
            if self.power:
                self.reboot()
            return None
        finally:
            self.disk.fuse, self.disk.dead = None, False
            self._let_go(call)

    def stall(self, request: dict[str, Any], steps: int) -> None:
        """Carry a request out up to its N-th durable step, and leave it there, for `go_on`; nobody hears its answer."""
        SEAT.machine, call = self, self._next_call()
        if request["verb"] == "launch":
            self.after[request["attempt"]] = request["after"]
        left = [steps]

        def work() -> None:
            self._call = call
            try:
                answer(request)
            except Killed:
                pass
            finally:
                self._let_go(call)

        def count() -> None:
            left[0] -= not self._moving
            if left[0] < 0 and not self._moving:
                self.disk.at_step = lambda: None
                stalled.pause()
                SEAT.machine, self._call = self, call

        stalled = Stalled(work)
        self.disk.at_step = count
        stalled.go_on()
        self.disk.at_step = lambda: None
        if not stalled.over:
            self.stalled.append(stalled)

    def go_on(self, number: int) -> None:
        """Let an agent that stopped carry its request out to the end."""
        SEAT.machine = self
        self.stalled.pop(number).go_on()

    def end_stalled(self) -> None:
        """Kill every agent that stopped; while they unwind nothing of theirs has any effect."""
        dead, self.disk.dead = self.disk.dead, True
        while self.stalled:
            self.stalled.pop().kill()
        self.disk.dead = dead

    def _let_go(self, call: int) -> None:
        self._handles = {handle: held for handle, held in self._handles.items() if held[1] != call}

    def voided(self, attempt: str) -> bool:
        """Tell whether a controller said of the attempt that it does not count."""
        note = self.disk.document(f"{FLEET}/attempts/{attempt}/acked") or {}
        return note.get("verdict") in ("rejected", "lost", "cancelled")

    def truth(self) -> tuple[Any, ...]:
        """Return what distinguishes this machine's state from others, for counting."""
        trees = tuple((tree.phase, tree.supervisor, tree.runner, tree.eval) for tree in self.trees if tree.lives)
        files = tuple(sorted(tuple(sorted(f)) for name, f in self.disk.folders.items() if "/attempts/" in name))
        return self.up, self.disk.room is None, trees, files
