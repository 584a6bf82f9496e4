"""Brings files to hosts: compares, refuses where an eval runs, keeps a backup, writes atomically, and looks again.

The agent does the writing under the host lock, so no eval can start between the comparison and the last byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.agent import AgentClient, SyncFile
from fleet.checks.base import workdir_of
from fleet.checks.critical import shipped_root
from fleet.checks.facts import HostFacts, read_facts
from fleet.checks.parallel import on_each_host, with_client
from fleet.checks.reference import ReferenceFile, critical_files, reference_directory, shipped_files
from fleet.errors import AgentError, InputError, TransportError
from fleet.model.hosts import Host
from fleet.model.names import plain
from fleet.model.pipeline import Pipeline
from fleet.model.states import Link
from fleet.sync.document import Backup, ChangedFile, HostSync, Outcome

if TYPE_CHECKING:
    from fleet.transport import Connector


@dataclass(frozen=True)
class Bundle:
    """What a pipeline's hosts should hold."""

    pipeline: Pipeline
    critical: tuple[ReferenceFile, ...]
    shipped: tuple[ReferenceFile, ...]
    reference: Path | None

    def roots(self, host: Host) -> dict[str, tuple[ReferenceFile, ...]]:
        """Return the directories on `host` and the files that belong below each."""
        workdir, own = workdir_of(host, self.pipeline), shipped_root(self.pipeline)
        if workdir == own:
            return {own: self.critical + self.shipped}
        return {root: files for root, files in ((workdir, self.critical), (own, self.shipped)) if files}


def bundle_of(pipeline: Pipeline, folder: Path, override: Path | None = None) -> Bundle:
    """Read what `pipeline` puts on hosts; InputError when there is nothing to put, or a file is missing."""
    directory = reference_directory(pipeline, folder, override)
    critical = tuple(critical_files(pipeline, directory)) if directory is not None else ()
    bundle = Bundle(pipeline, critical, tuple(shipped_files(pipeline, folder)), directory)
    if not bundle.critical and not bundle.shipped:
        why = "has no reference directory" if pipeline.critical else "has neither critical files nor files to ship"
        raise InputError(
            f"pipeline {pipeline.name} {why}, so there is nothing to sync",
            hint=f"fleet sync --reference DIR, or set reference: in remote_scripts/{pipeline.name}/pipeline.yaml",
        )
    return bundle


def sync_hosts(
    hosts: Sequence[Host],
    connector: Connector,
    bundles: dict[str, Bundle],
    agent_source: bytes,
    in_flight: int = 64,
    *,
    machine: Callable[[str], str],
    dry_run: bool = False,
    on_done: Callable[[Host, HostSync], None] | None = None,
) -> list[HostSync]:
    """Bring every host to its pipeline's bundle, in parallel; one host's trouble is its own result.

    `machine` tells the identity that a host is known by, empty when it is not known; another machine is given nothing.
    """

    def work(host: Host) -> HostSync:
        bundle = bundles[host.pipeline]
        return _guarded(
            host,
            lambda: with_client(connector, host, agent_source, machine(host.name), lambda c: _sync(c, host, bundle, dry_run)),
        )

    return on_each_host(hosts, work, in_flight, on_done)


def rollback_hosts(
    hosts: Sequence[Host],
    connector: Connector,
    pipelines: dict[str, Pipeline],
    agent_source: bytes,
    in_flight: int = 64,
    *,
    machine: Callable[[str], str],
    backup: str | None = None,
) -> list[HostSync]:
    """Put back what the last sync, or the named backup, replaced in the work directory of every host.

    Shipped files are this version of fleet's own: they go back only when their backup is named, or by an older fleet's sync.
    """

    def work(host: Host) -> HostSync:
        pipeline = pipelines[host.pipeline]
        return _guarded(
            host,
            lambda: with_client(
                connector, host, agent_source, machine(host.name), lambda c: _rollback(c, host, pipeline, backup)
            ),
        )

    return on_each_host(hosts, work, in_flight)


def _sync(client: AgentClient, host: Host, bundle: Bundle, dry_run: bool) -> HostSync:
    changed: list[ChangedFile] = []
    backups: list[Backup] = []
    unchanged = 0
    for root, files in bundle.roots(host).items():
        offered = [SyncFile(file.key, file.body, file.mode) for file in files]
        answer = client.sync(root, offered, dry_run=dry_run, processes=bundle.pipeline.busy.processes)
        changed += [
            ChangedFile(root=root, path=str(one["path"]), before=one.get("before"), after=one.get("after"))
            for one in answer["changed"]
        ]
        unchanged += len(answer["unchanged"])
        if answer.get("backup"):
            backups.append(Backup(root=root, id=str(answer["backup"])))
    wrong = [] if dry_run or not changed else _still_wrong(client, host, bundle)
    outcome = Outcome.WOULD_CHANGE if dry_run else Outcome.CHANGED
    return HostSync(
        host=host.name,
        outcome=Outcome.UNCHANGED if not changed else Outcome.FAILED if wrong else outcome,
        changed=tuple(changed),
        unchanged=unchanged,
        backups=tuple(backups),
        verified=not dry_run and not wrong,
        error=f"after writing, these are still not right: {', '.join(wrong)}" if wrong else None,
        fix=f"fleet sync {host.name} --rollback" if wrong else "",
    )


def _still_wrong(client: AgentClient, host: Host, bundle: Bundle) -> list[str]:
    """Ask for the files again: a full disk or a tool that rewrites them shows here and not in the next eval."""
    wanted = {f"{root}/{file.key}": file.sha256 for root, files in bundle.roots(host).items() for file in files}
    facts = read_facts(client.probe({"files": list(wanted)}))
    if not isinstance(facts, HostFacts):
        return [facts]
    return [path for path, sha256 in wanted.items() if path not in facts.files or facts.files[path].sha256 != sha256]


def _rollback(client: AgentClient, host: Host, pipeline: Pipeline, backup: str | None) -> HostSync:
    roots = [workdir_of(host, pipeline)] + [shipped_root(pipeline)] * (backup is not None)
    refusal: AgentError | None = None
    for root in roots:
        try:
            answer = client.rollback(root, backup, pipeline.busy.processes)
        except AgentError as error:
            if error.code != "refused":
                raise
            refusal = refusal or error
            continue
        return _rolled_back(host, root, answer)
    assert refusal is not None
    raise refusal


def _rolled_back(host: Host, root: str, answer: dict[str, Any]) -> HostSync:
    changed = [
        ChangedFile(root=root, path=str(path), before=None, after=None) for path in (*answer["restored"], *answer["removed"])
    ]
    return HostSync(
        host=host.name,
        outcome=Outcome.ROLLED_BACK,
        changed=tuple(changed),
        backups=(Backup(root=root, id=str(answer["backup"])),),
    )


def _guarded(host: Host, work: Callable[[], HostSync]) -> HostSync:
    try:
        return work()
    except TransportError as error:
        return HostSync(
            host=host.name,
            outcome=Outcome.UNREACHABLE,
            link=Link(error.link),
            error=plain(error.message, 500),
            fix=error.hint or f"fleet check {host.name}",
        )
    except AgentError as error:
        busy = error.code == "busy"
        fix = error.hint or ("fleet status, and again when the eval has ended" if busy else f"fleet check {host.name}")
        outcome = Outcome.BUSY if busy else Outcome.FAILED
        return HostSync(host=host.name, outcome=outcome, error=plain(error.message, 500), fix=fix)
    except (LookupError, TypeError, ValueError) as error:
        # A hostile or broken host may answer anything; the others go on.
        return HostSync(host=host.name, outcome=Outcome.FAILED, error=plain(f"unreadable answer: {error!r}", 500))
