"""Bring one attempt's result here: manifest → staging → rsync → own verification → provenance → one exclusive rename.

Whatever happens on the way, the host keeps its files, the final name either does not exist or holds a verified result, and
the same call again goes on from where this one ended.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fleet.collect.below import AlreadyHere
from fleet.collect.manifest import (
    HOST_FILES,
    LOG,
    MANIFEST,
    PROVENANCE,
    HostManifest,
    Limits,
    encode,
    read_manifest,
    reserved,
    result_manifest,
)
from fleet.collect.provenance import code_facts, describe, image_facts, intent_facts, log_facts, status_facts
from fleet.collect.receive import SUSPECT, receive
from fleet.collect.result import AttemptRef, Collected, existing_result
from fleet.collect.staging import Staging, claim
from fleet.errors import StorageError, TamperedTransfer
from fleet.model.names import is_name, visible
from fleet.model.pipeline import Pipeline

if TYPE_CHECKING:
    from fleet.agent import AgentClient
    from fleet.transport import Transport

MAX_LOG_BYTES = 1 << 20
_SLOWEST = 128 * 1024
"""Bytes per second below which a transfer is given up; it resumes the next time."""


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
    answer = client.evidence(attempt.attempt_id)
    document, status = _part(answer, "manifest"), _part(answer, "status")
    intent = _part(answer, "intent")
    _require_same_task(attempt, _part(intent, "key"))
    manifest = read_manifest(document, Limits.of(pipeline.outputs), attempt.host)
    log = sent_log(answer) or read_log(client, attempt.attempt_id, status.get("log_size"))
    known: list[Mapping[str, Any]] = [status_facts(status), intent_facts(intent)]
    if "code" not in provenance:
        known.append(code_facts(client, pipeline, transport.host.workdir))
    known.append({"pipeline": pipeline.name, **source_facts(document), **provenance})
    known.append(image_facts(document))
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
                receive(staging, transport, manifest, attempt.host, deadline_s)
                _describe(staging, manifest, log, attempt, facts)
                staging.publish()
            except (StorageError, TamperedTransfer, AlreadyHere):
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


def sent_log(answer: Mapping[str, Any]) -> Log | None:
    """Return the log's end when the host sent it along with the manifest, which spares a round trip."""
    piece = _part(answer, "log")
    offset, size, data = piece.get("offset"), piece.get("size"), piece.get("data")
    if type(offset) is not int or type(size) is not int or not isinstance(data, str) or not 0 <= offset <= size:
        return None
    try:
        return Log(base64.b64decode(data, validate=True)[:MAX_LOG_BYTES], offset, size)
    except ValueError:
        return None


def read_log(client: AgentClient, attempt_id: str, size: object) -> Log:
    """Return the end of the eval's log as the host has it, at most MAX_LOG_BYTES."""
    if not isinstance(size, int) or size <= 0:
        return Log()
    offset = max(0, size - MAX_LOG_BYTES)
    piece = client.logs(attempt_id, offset=offset, max_bytes=MAX_LOG_BYTES)
    return Log(piece.data[:MAX_LOG_BYTES], offset, size)


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
        document = describe(*facts, mine)
    except ValidationError as error:
        item = error.errors()[0]
        raise TamperedTransfer(
            f"{attempt.host}: the status of attempt {attempt.attempt_id} is not one: {item['loc']}: {item['msg']}",
            hint=SUSPECT,
            host=attempt.host,
        ) from None
    staging.write(MANIFEST, encode(result_manifest(manifest, attempt.attempt_id)))
    staging.write(PROVENANCE, encode(document))


def _require_same_task(attempt: AttemptRef, key: Mapping[str, Any]) -> None:
    """Refuse a host that answers for this attempt id with the outputs of another task."""
    here = (attempt.instance_id, attempt.model, attempt.run)
    there = (key.get("instance_id"), key.get("model"), key.get("run"))
    if here != there:
        raise TamperedTransfer(
            f"{attempt.host}: attempt {attempt.attempt_id} is {'/'.join(map(str, here))} here and "
            f"{visible('/'.join(map(str, there)), 200)} on the host",
            hint=SUSPECT,
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
