"""`fleet recover`: rebuild a lost or damaged journal from the hosts and the collected files.

The hosts are asked first and in parallel, one question each. Then, with every other writer shut out, the old journal is read
and moved aside and the new one takes its place in one step: at no moment is there none.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import fleet
from fleet.agent import AgentClient
from fleet.checks.parallel import on_each_host, with_client
from fleet.dispatch.files.batch import ASSIGNMENT, Batch, controller_name
from fleet.dispatch.files.journal import now_iso, sync_directory
from fleet.dispatch.files.journal_line import encode
from fleet.dispatch.recovery.casebook import Silent, Sources
from fleet.dispatch.recovery.evidence import Claim, Here, claims_of
from fleet.dispatch.recovery.rebuild import Rebuilt, rebuild
from fleet.dispatch.recovery.salvage import records_in, results_in
from fleet.dispatch.resolve import Resolved, resolve_assignment
from fleet.errors import AgentError, InputError, StorageError, TransportError
from fleet.inventory import Inventory
from fleet.inventory.pipelines import Pipelines, agent_source
from fleet.model.exitcodes import Exit
from fleet.model.hosts import Host
from fleet.model.names import plain
from fleet.model.records import AnyRecord, AttemptIntended, BatchOpened, HostChecked, JournalRecovered
from fleet.model.states import Link
from fleet.model.tasks import Task
from fleet.transport import Connector

DAMAGED = "damaged"


@dataclass(frozen=True)
class Answer:
    """What one host said, or why it said nothing that can be relied on."""

    host: str
    claims: Sequence[Claim] = ()
    uid: str = ""
    silent: Silent | None = None
    hint: str = ""
    bit: Exit = Exit.OK


@dataclass(frozen=True)
class Recovery:
    """What a recovery came to; nothing has been written when it was a rehearsal."""

    rebuilt: Rebuilt
    assignment_file: str
    answers: Sequence[Answer]
    kept: int
    """Records of the old journal that could be read."""
    unreadable: int
    """Lines of it that could not."""
    results: int
    damaged: str
    """The name under which the old journal is kept; empty when there was none."""
    notes: tuple[str, ...] = ()

    @property
    def code(self) -> Exit:
        """The exit code: incomplete while a host has not answered or a task is held."""
        code = Exit.INCOMPLETE if self.rebuilt.held else Exit.OK
        for answer in self.answers:
            code |= answer.bit
        return code

    @property
    def counts(self) -> Counter[str]:
        """How many tasks are in which state."""
        return Counter(str(view.state) for view in self.rebuilt.state.tasks.values())


@dataclass(frozen=True)
class Recoverer:
    """Where everything is."""

    batch: Batch
    inventory: Inventory
    pipelines: Pipelines
    connector: Connector
    file: Path | None = None
    """The assignment, where the copy beside the journal is gone or cannot find its datasets."""
    _now: str = field(default_factory=now_iso)

    def run(self, *, rehearse: bool = False) -> Recovery:
        """Rebuild the journal; OwnedElsewhere when a controller runs, InputError when the assignment cannot be had."""
        old, _ = records_in(self._old_bytes())
        resolved, assignment_file = self._assignment(old)
        if rehearse:
            return self._recover(resolved, assignment_file, write=False)
        self.batch.prepare()
        with self.batch.controlled():
            return self._recover(resolved, assignment_file, write=True)

    def _recover(self, resolved: Resolved | None, assignment_file: str, *, write: bool) -> Recovery:
        results, notes = results_in(self.batch.directory)
        old, _ = records_in(self._old_bytes())
        opening = self._opening(resolved, assignment_file, old, results)
        uids = _known_uids(old, results)
        names = dict.fromkeys([*opening.hosts, *(one.host for one in old if isinstance(one, AttemptIntended))])
        names |= dict.fromkeys(one.host for one in results if one.provenance.origin == "dispatched")
        answers = self._ask(list(names), uids)
        with self._alone():
            old, unreadable = records_in(self._old_bytes())
            damaged = self._aside() if os.path.lexists(self.batch.journal.path) else ""
            rebuilt = rebuild(
                Sources(
                    opening=self._opening(resolved, assignment_file, old, results),
                    records=old,
                    claims={one.host: one.claims for one in answers if one.silent is None},
                    silent={one.host: one.silent for one in answers if one.silent is not None},
                    results=results,
                    uids=uids | {one.host: one.uid for one in answers if one.uid and one.silent is None},
                    damaged=damaged,
                    now=self._now,
                )
            )
            if write:
                self._publish(rebuilt.records, damaged)
                if resolved is not None:
                    self.batch.keep(resolved.raw)
        return Recovery(
            rebuilt, assignment_file, answers, len(old), unreadable, len(results), damaged, (*notes, *rebuilt.notes)
        )

    # --- the assignment ---

    def _assignment(self, old: Sequence[AnyRecord]) -> tuple[Resolved | None, str]:
        """Return the assignment and where it is; the bytes of the copy decide, the named file only finds its datasets."""
        copy = self.batch.directory / ASSIGNMENT
        raw = copy.read_bytes() if copy.is_file() else None
        opened = [one for one in old if isinstance(one, BatchOpened)]
        told = opened[-1].assignment_file if opened else ""
        if self.file is not None:
            resolved = resolve_assignment(self.file, self.inventory, self.pipelines)
            if raw is not None and resolved.raw != raw:
                raise InputError(
                    f"{self.file} is not what batch {self.batch.name} was dispatched from; that is {copy}",
                    hint=f"fleet recover {self.batch.name} --file with the same bytes, or move {copy} away",
                )
            return resolved, str(self.file.resolve())
        original = Path(told) if told else None
        if original is not None and original.is_file() and (raw is None or original.read_bytes() == raw):
            return resolve_assignment(original, self.inventory, self.pipelines), told
        if raw is not None:
            try:
                return resolve_assignment(copy, self.inventory, self.pipelines), told or str(copy.resolve())
            except InputError as error:
                digest = hashlib.sha256(raw).hexdigest()
                if any(one.assignment_sha256 == digest for one in opened):
                    # The tasks as they were resolved then are in the old journal.
                    return None, told
                raise InputError(error.message, hint=f"fleet recover {self.batch.name} --file ASSIGNMENT") from None
        if opened or any(self.batch.directory.glob("*/*/run*/attempt*/fleet.json")):
            return None, told
        raise InputError(
            f"{self.batch.directory} has neither a journal nor an assignment",
            hint=f"fleet recover {self.batch.name} --file FILE",
        )

    def _opening(
        self, resolved: Resolved | None, assignment_file: str, old: Sequence[AnyRecord], results: Sequence[Here]
    ) -> BatchOpened:
        """Return the batch as it is to be opened: the assignment's tasks, and those that have begun and are no longer in it."""
        opened = [one for one in old if isinstance(one, BatchOpened)]
        earlier = {task.label: task for one in opened for task in one.tasks}
        begun = {one.task for one in old if isinstance(one, AttemptIntended)} | {one.key.label for one in results}
        tasks = {task.label: task for task in resolved.tasks} if resolved is not None else dict(earlier)
        for label, task in earlier.items():
            other = tasks.get(label)
            if label in begun and (other is None or other.key != task.key):
                tasks[label] = task
        for one in results:
            if one.key.label not in tasks and (one.provenance.origin == "adopted" or (resolved is None and not opened)):
                tasks[one.key.label] = Task(key=one.key, dataset_file=Path(), place=one.host, hosts=(one.host,))
        if not tasks:
            raise InputError(f"batch {self.batch.name} has no task that is still known", hint="fleet recover BATCH --file FILE")
        hosts = {name: pipeline for one in opened for name, pipeline in one.hosts.items()}
        known = {host.name: host.pipeline for host in self.inventory.hosts}
        hosts |= {name: known[name] for task in tasks.values() for name in task.hosts if name in known}
        return BatchOpened(
            batch=self.batch.name,
            assignment_sha256=resolved.sha256 if resolved else opened[-1].assignment_sha256 if opened else "",
            assignment_file=assignment_file,
            controller=controller_name(),
            tasks=tuple(tasks.values()),
            hosts=hosts,
            fleet_version=fleet.__version__,
        )

    # --- the hosts ---

    def _ask(self, names: Sequence[str], uids: dict[str, str]) -> list[Answer]:
        by_name = {host.name: host for host in self.inventory.hosts}
        source = agent_source()

        def ask(host: Host) -> Answer:
            try:
                answer = with_client(self.connector, host, source, "", AgentClient.every_attempt)
            except TransportError as error:
                return Answer(
                    host.name, silent=Silent(Link(error.link), plain(error.message, 300)), hint=error.hint, bit=error.bit
                )
            except AgentError as error:
                return Answer(host.name, silent=Silent(Link.OK, plain(error.message, 300)), hint=error.hint, bit=error.bit)
            # Compared here: whatever machine answers, its answer is only read.
            uid = plain(str(answer.get("host_uid") or ""), 64)
            if uids.get(host.name, uid) != uid:
                changed = Silent(Link.CHANGED, f"{host.name}: another machine answers under this name")
                return Answer(
                    host.name,
                    silent=changed,
                    hint=f"bring the right machine back; fleet why {host.name} says what else there is",
                    bit=Exit.SAFETY,
                )
            claims, unclear = claims_of(host.name, answer)
            if unclear:
                return Answer(host.name, claims, uid, Silent(Link.OK, f"{host.name}: {unclear}"), bit=Exit.INCOMPLETE)
            return Answer(host.name, claims, uid)

        there = [by_name[name] for name in names if name in by_name]
        asked = {one.host: one for one in on_each_host(there, ask, self.inventory.defaults.in_flight)}
        gone = f"put it back into {self.inventory.path}"
        return [
            asked[name]
            if name in asked
            else Answer(
                name,
                silent=Silent(Link.UNTRIED, f"{name} is not in {self.inventory.path}"),
                hint=gone,
                bit=Exit.INCOMPLETE,
            )
            for name in names
        ]

    # --- the file ---

    def _old_bytes(self) -> bytes:
        """Return the journal as it is; where there is none, the last one that an earlier recovery set aside."""
        path = self.batch.journal.path
        try:
            if os.path.lexists(path):
                return path.read_bytes()
            aside = sorted(self.batch.directory.glob(f"{path.name}.{DAMAGED}-*"))
            return aside[-1].read_bytes() if aside else b""
        except OSError as error:
            raise StorageError(f"{self.batch.journal.path}: {error.strerror}", hint="repair this disk") from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep every other process from appending to the old journal meanwhile."""
        path = self.batch.journal.path
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            yield
            return
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}", hint="repair this disk") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _aside(self) -> str:
        """Return a free name for the old journal."""
        path = self.batch.journal.path
        stamp = "".join(letter for letter in self._now if letter.isalnum())
        names = [f"{path.name}.{DAMAGED}-{stamp}", *(f"{path.name}.{DAMAGED}-{stamp}-{number}" for number in range(2, 1000))]
        return next(name for name in names if not os.path.lexists(path.with_name(name)))

    def _publish(self, records: Sequence[AnyRecord], damaged: str) -> None:
        """Give the new journal the old one's name; the old one keeps the other."""
        path = self.batch.journal.path
        fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(b"".join(map(encode, records)))
                file.flush()
                os.fsync(file.fileno())
            if damaged:
                os.link(path, path.with_name(damaged), follow_symlinks=False)
                sync_directory(path.parent)
                fresh.rename(path)
            else:
                os.link(fresh, path)
                fresh.unlink()
            # It says how long the old one was; should this fail, the new one counts as cut, and is recovered again.
            path.with_suffix(".mark").unlink(missing_ok=True)
            sync_directory(path.parent)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise StorageError(
                f"{path}: {error.strerror}", hint=f"free this disk, then: fleet recover {self.batch.name}"
            ) from None


def _known_uids(old: Sequence[AnyRecord], results: Sequence[Here]) -> dict[str, str]:
    """Return host → its identity, from what was known before."""
    found = {one.host: one.provenance.host_uid for one in results if one.provenance.host_uid}
    for record in old:
        if isinstance(record, HostChecked) and record.report.host_uid:
            found.setdefault(record.report.host, record.report.host_uid)
        elif isinstance(record, JournalRecovered):
            found |= record.host_uids
    return found
