"""Bring one attempt's result here: manifest → staging → rsync → own verification → provenance → one exclusive rename.

Whatever happens on the way, the host keeps its files, the final name either does not exist or holds a verified result, and
the same call again goes on from where this one ended.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fleet.collect.manifest import (
    HOST_FILES,
    LOG,
    MANIFEST,
    PARTIAL,
    PROVENANCE,
    RESERVED,
    HostManifest,
    Limits,
    ManifestFile,
    encode,
    read_manifest,
    read_result_manifest,
    reserved,
    result_manifest,
)
from fleet.collect.provenance import code_facts, log_facts, provenance, read_provenance, status_facts
from fleet.collect.staging import AlreadyHere, Staging, claim
from fleet.collect.verify import Bad, Fault, check_files, drop_own, drop_partials, foreign_entries
from fleet.errors import StorageError, TamperedTransfer, TransferFailed
from fleet.model.findings import Finding
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline
from fleet.transport import PullRequest

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.transport import Transport

MAX_LOG_BYTES = 1 << 20
_FLOOR_BYTES = 1 << 20
"""The smallest size limit given to rsync: it also holds for the files that ssh itself writes."""
_SLOWEST = 128 * 1024
"""Bytes per second below which a transfer is given up; it resumes the next time."""
_TEMPORARY = re.compile(r"\.(.+)\.[A-Za-z0-9]{6}\Z")


@dataclass(frozen=True)
class AttemptRef:
    """Which attempt of which task, and on which host it ran."""

    attempt_id: str
    instance_id: str
    model: str
    run: int
    number: int
    """K of `attempt<K>`: 1 for the first attempt of the task."""
    host: str

    @property
    def relative(self) -> str:
        """Where the result belongs, relative to the batch directory."""
        return "/".join((*self.parts, self.name))

    @property
    def parts(self) -> tuple[str, str, str]:
        """The directories of the task."""
        return (self.instance_id, self.model, f"run{self.run}")

    @property
    def name(self) -> str:
        """The directory of the attempt."""
        return f"attempt{self.number}"


@dataclass(frozen=True)
class Collected:
    """A result that is here, complete, and equal to the host's manifest."""

    path: Path
    files: int
    bytes: int
    relative: str = ""
    """`path` relative to the batch directory, as the journal keeps it."""
    already: bool = False
    """Another collector, or an earlier run, had brought it."""
    findings: tuple[Finding, ...] = field(default=())
    """What the host left out, and why."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Log:
    """The end of the eval's log, raw."""

    data: bytes = b""
    offset: int = 0
    size: int = 0


def collect_attempt(
    client: AgentClient,
    transport: Transport,
    *,
    attempt: AttemptRef,
    batch_dir: Path,
    pipeline: Pipeline,
    provenance: Mapping[str, Any],
) -> Collected:
    """Bring the outputs of an ended attempt to `batch_dir/INSTANCE/MODEL/run<N>/attempt<K>/` and return what is there.

    An attempt without outputs is collected too: its manifest, provenance and log are the evidence of "output-missing".
    `provenance` is what the caller knows (`task_facts`); what the host knows is added. Raises TransferFailed (again later),
    TamperedTransfer (what arrived is not what was sealed), StorageError (this disk), AgentError (the host refused).
    """
    here = existing_result(attempt, batch_dir)
    if here is not None:
        return here
    began = time.monotonic()
    answer = client.manifest(attempt.attempt_id)
    document, status = _part(answer, "manifest"), _part(answer, "status")
    _require_same_task(attempt, _part(_part(answer, "intent"), "key"))
    manifest = read_manifest(document, Limits.of(pipeline.outputs), attempt.host)
    log = read_log(client, attempt.attempt_id, status.get("log_size"))
    known: list[Mapping[str, Any]] = [status_facts(status)]
    if "code" not in provenance:
        known.append(code_facts(client, pipeline, transport.host.workdir))
    known.append({"pipeline": pipeline.name, **source_facts(document), **provenance})
    return bring(transport, manifest, log, attempt=attempt, batch_dir=batch_dir, facts=known, began=began)


def bring(
    transport: Transport,
    manifest: HostManifest,
    log: Log | None,
    *,
    attempt: AttemptRef,
    batch_dir: Path,
    facts: Sequence[Mapping[str, Any]],
    began: float,
) -> Collected:
    """Pull the files of `manifest`, verify them, and publish them with their provenance."""
    if not (is_name(attempt.instance_id) and is_name(attempt.model) and attempt.run >= 1 and attempt.number >= 1):
        raise TamperedTransfer(f"{attempt.host}: attempt {visible(attempt.attempt_id, 80)!r} names a task that cannot be one")
    deadline_s = 120.0 + manifest.total / _SLOWEST
    try:
        with claim(batch_dir, attempt.parts, attempt.name, wait_s=deadline_s) as staging:
            try:
                _receive(staging, transport, manifest, attempt.host, deadline_s)
                _describe(staging, manifest, log, attempt, facts)
                staging.publish()
            except (StorageError, TamperedTransfer):
                # A full disk needs its bytes back, and nothing of a tampered transfer may be resumed.
                staging.discard()
                raise
    except AlreadyHere:
        here = existing_result(attempt, batch_dir)
        if here is None:
            raise StorageError(f"{batch_dir / attempt.relative}: vanished while it was looked at") from None
        return here
    return Collected(
        path=batch_dir / attempt.relative,
        files=len(manifest.files),
        bytes=manifest.total,
        relative=attempt.relative,
        findings=manifest.findings,
        seconds=time.monotonic() - began,
    )


def read_log(client: AgentClient, attempt_id: str, size: object) -> Log:
    """Return the end of the eval's log as the host has it, at most MAX_LOG_BYTES."""
    if not isinstance(size, int) or size <= 0:
        return Log()
    offset = max(0, size - MAX_LOG_BYTES)
    piece = client.logs(attempt_id, offset=offset, max_bytes=MAX_LOG_BYTES)
    return Log(piece.data[:MAX_LOG_BYTES], offset, size)


def _receive(staging: Staging, transport: Transport, manifest: HostManifest, host: str, deadline_s: float) -> None:
    """Fill the staging directory with exactly the manifest's files; each may fail once."""
    if staging.resumed:
        _tidy(staging, manifest.files)
    wanted: Sequence[ManifestFile] = manifest.files
    have = {path: entry.st_size for path, entry in staging.entries()} if staging.resumed else {}
    staging.require_space([max(0, file.size - have.get(file.path, 0)) for file in wanted])
    bad: list[Bad] = []
    for last_try in (False, True):
        if not wanted:
            break
        try:
            transport.pull(
                PullRequest(
                    source=manifest.root,
                    files=tuple(file.path for file in wanted),
                    target=staging.path,
                    max_file_bytes=max(_FLOOR_BYTES, *(file.size for file in wanted)),
                    max_total_bytes=manifest.total + max(file.size for file in wanted) + _FLOOR_BYTES,
                    deadline_s=deadline_s,
                )
            )
        except TransferFailed:
            if last_try:
                raise
        bad = check_files(staging, wanted)
        for one in bad:
            if one.fault is not Fault.MISSING:
                staging.remove_file(one.file.path)
        wanted = [one.file for one in bad]
    drop_partials(staging)
    foreign = foreign_entries(staging, manifest.files)
    if foreign:
        raise TamperedTransfer(
            f"{host}: the host sent {visible(foreign[0], 120)!r}, which its manifest does not list"
            + (f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""),
            hint=_SUSPECT,
            host=host,
        )
    if bad:
        raise _failure(bad, host)


_SUSPECT = "nothing of it was kept; look at the host before trusting it: fleet check HOST, then fleet collect"


def _failure(bad: list[Bad], host: str) -> TamperedTransfer | TransferFailed:
    worst = next((one for one in bad if one.fault in (Fault.DIGEST, Fault.NOT_A_FILE)), bad[0])
    what = f"{host}: {worst.file.path}: {worst.fault}" + (f" ({worst.found})" if worst.found else "")
    what += f", sealed with {worst.file.size} bytes, sha256 {worst.file.sha256[:12]}…"
    what += f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
    if worst.fault in (Fault.DIGEST, Fault.NOT_A_FILE):
        return TamperedTransfer(f"{what}; twice", hint=_SUSPECT, host=host)
    return TransferFailed(
        f"{what}; the file changed on the host after the result was sealed, or was not sent",
        hint="the host keeps its files; again: fleet collect",
        host=host,
    )


def _tidy(staging: Staging, files: Sequence[ManifestFile]) -> None:
    """Make an interrupted transfer fit for resuming: our own files go, rsync's unfinished ones are kept where it looks."""
    drop_own(staging, [*RESERVED, HOST_FILES])
    wanted = {file.path for file in files}
    for path in foreign_entries(staging, files):
        head, slash, name = path.rpartition("/")
        if name == PARTIAL or PARTIAL in head.split("/"):
            continue
        match = _TEMPORARY.match(name)
        if match is not None and f"{head}{slash}{match.group(1)}" in wanted:
            # kill -9 leaves rsync's temporary file; in the partial directory it is continued instead of begun again.
            staging.move_file(path, f"{head}{slash}{PARTIAL}/{match.group(1)}")
        elif (staging.path / path).is_dir() and not (staging.path / path).is_symlink():
            continue
        else:
            staging.remove_file(path)


def _describe(
    staging: Staging, manifest: HostManifest, log: Log | None, attempt: AttemptRef, facts: Sequence[Mapping[str, Any]]
) -> None:
    """Write fleet's own files beside the host's, which keep their names unless these are ours."""
    for top in sorted({file.path.split("/", 1)[0] for file in manifest.files}):
        if reserved(top):
            staging.move_file(top, f"{HOST_FILES}/{top}")
    mine: dict[str, Any] = {
        "task": {"instance_id": attempt.instance_id, "model": attempt.model, "run": attempt.run},
        "attempt": attempt.attempt_id,
        "number": attempt.number,
        "host": attempt.host,
    }
    if log is not None:
        mine["log"] = log_facts(log.data, log.offset, log.size)
        staging.write(LOG, log.data)
    try:
        document = provenance(*facts, mine)
    except ValidationError as error:
        item = error.errors()[0]
        raise TamperedTransfer(
            f"{attempt.host}: the status of attempt {attempt.attempt_id} is not one: {item['loc']}: {item['msg']}",
            hint=_SUSPECT,
            host=attempt.host,
        ) from None
    staging.write(MANIFEST, encode(result_manifest(manifest, attempt.attempt_id)))
    staging.write(PROVENANCE, encode(document))


def existing_result(attempt: AttemptRef, batch_dir: Path) -> Collected | None:
    """Return the result under the attempt's final name, None when there is none; another attempt's is a StorageError."""
    path = batch_dir / attempt.relative
    if not os.path.lexists(path):
        return None
    known = read_provenance(path)
    if known is None or known.attempt != attempt.attempt_id:
        holds = f"attempt {known.attempt}" if known else "something that fleet did not collect"
        raise StorageError(
            f"{path} holds {holds}, not attempt {attempt.attempt_id}; nothing is overwritten",
            hint=f"move {path} away, then: fleet collect --again",
        )
    manifest = read_result_manifest(path)
    return Collected(
        path=path,
        files=len(manifest.files),
        bytes=sum(file.size for file in manifest.files),
        relative=attempt.relative,
        already=True,
        findings=HostManifest(files=[], skipped=manifest.skipped).findings,
    )


def _require_same_task(attempt: AttemptRef, key: Mapping[str, Any]) -> None:
    """Refuse a host that answers for this attempt id with the outputs of another task."""
    here = (attempt.instance_id, attempt.model, attempt.run)
    there = (key.get("instance_id"), key.get("model"), key.get("run"))
    if here != there:
        raise TamperedTransfer(
            f"{attempt.host}: attempt {attempt.attempt_id} is {'/'.join(map(str, here))} here and "
            f"{visible('/'.join(map(str, there)), 200)} on the host",
            hint=_SUSPECT,
            host=attempt.host,
        )


def _part(answer: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = answer.get(name)
    return value if isinstance(value, Mapping) else {}


def source_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the manifest tells about where the files come from."""
    return {
        "source": visible(str(manifest.get("source") or manifest.get("root") or ""), 4096),
        "found_by": visible(str(manifest.get("found_by") or ""), 200),
    }
