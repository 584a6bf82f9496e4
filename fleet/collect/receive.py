"""Fill a staging directory with exactly the files of a manifest, and prove it by our own reading."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleet.collect.manifest import HOST_FILES, PARTIAL, RESERVED, HostManifest, ManifestFile
from fleet.collect.staging import Staging
from fleet.collect.verify import Bad, Fault, check_files, drop_own, drop_partials, foreign_entries
from fleet.errors import OutputsChanged, TamperedTransfer, TransferFailed
from fleet.model.names import visible
from fleet.transport import PullRequest

if TYPE_CHECKING:
    from fleet.transport import Transport

_FLOOR_BYTES = 1 << 20
"""The smallest size limit given to rsync: it also holds for the files that ssh itself writes."""
_TRIES = 2
_TEMPORARY = re.compile(r"\.(.+)\.[A-Za-z0-9]{6}\Z")


def receive(staging: Staging, transport: Transport, manifest: HostManifest, host: str, deadline_s: float) -> None:
    """Fill the staging directory with exactly the manifest's files; each may fail once."""
    if staging.resumed:
        drop_own(staging, [*RESERVED, HOST_FILES])
        _tidy(staging, manifest.files)
    _require_space(staging, manifest)
    bad: list[Bad] = []
    for _ in range(_TRIES if manifest.files else 0):
        bad, broken = _pull_and_check(staging, transport, manifest, deadline_s)
        if not bad:
            break
        if broken is not None:
            _tidy(staging, manifest.files)
            # What rsync says of a full disk may be the host's invention; the disk itself is asked.
            _require_space(staging, manifest)
        if broken is not None and len(bad) == len(manifest.files):
            break  # nothing came: the link or the host is the trouble, and asking at once again would not help
    if bad:
        raise _failure(bad, broken, host)
    drop_partials(staging)
    foreign = foreign_entries(staging, manifest.files)
    if foreign:
        raise TamperedTransfer(
            f"{host}: the host sent {visible(foreign[0], 120)!r}, which its manifest does not list"
            + (f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""),
            hint=SUSPECT,
            host=host,
        )


def _require_space(staging: Staging, manifest: HostManifest) -> None:
    have = {path: entry.st_size for path, entry in staging.entries()}
    staging.require_space([max(0, file.size - have.get(file.path, 0)) for file in manifest.files])


def _pull_and_check(
    staging: Staging, transport: Transport, manifest: HostManifest, deadline_s: float
) -> tuple[list[Bad], TransferFailed | None]:
    """Pull what is not here yet; return what is still missing or wrong (removed then), and how rsync failed.

    The whole list is asked for each time: what is not on it, rsync's wrapper would take for an intruder.
    """
    largest = max(file.size for file in manifest.files)
    request = PullRequest(
        source=manifest.root,
        files=tuple(file.path for file in manifest.files),
        target=staging.path,
        max_file_bytes=max(_FLOOR_BYTES, largest),
        max_total_bytes=manifest.total + largest + _FLOOR_BYTES,
        deadline_s=deadline_s,
    )
    broken: TransferFailed | None = None
    try:
        transport.pull(request)
    except TransferFailed as error:
        broken = error
    bad = check_files(staging, manifest.files)
    for one in bad:
        if one.fault is not Fault.MISSING:
            staging.remove_file(one.file.path)
    return bad, broken


SUSPECT = "nothing of it was kept; look at the host before trusting it: fleet check HOST, then fleet collect"


def _failure(bad: list[Bad], broken: TransferFailed | None, host: str) -> TamperedTransfer | TransferFailed:
    worst = next((one for one in bad if one.fault in (Fault.DIGEST, Fault.NOT_A_FILE)), bad[0])
    what = f"{host}: {worst.file.path}: {worst.fault}" + (f" ({worst.found})" if worst.found else "")
    what += f", sealed with {worst.file.size} bytes, sha256 {worst.file.sha256[:12]}…"
    what += f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
    if worst.fault in (Fault.DIGEST, Fault.NOT_A_FILE):
        return TamperedTransfer(f"{what}; twice", hint=SUSPECT, host=host)
    if broken is not None and not isinstance(broken, OutputsChanged):
        return broken
    return OutputsChanged(
        f"{what}; the file changed on the host after the result was sealed, or was not sent",
        hint="the host keeps its files; when they are whole again: fleet collect, else fleet retry TASK",
        host=host,
    )


def _tidy(staging: Staging, files: Sequence[ManifestFile]) -> None:
    """Make an interrupted transfer fit for resuming: rsync's unfinished files go where it looks for them, all else goes."""
    wanted = {file.path for file in files}
    for path in foreign_entries(staging, files):
        head, slash, name = path.rpartition("/")
        if name == PARTIAL or PARTIAL in head.split("/"):
            continue
        match = _TEMPORARY.match(name)
        if match is not None and f"{head}{slash}{match.group(1)}" in wanted:
            # kill -9 leaves rsync's temporary file; in the partial directory it is continued instead of begun again.
            staging.move_file(path, f"{head}{slash}{PARTIAL}/{match.group(1)}")
        elif (staging.path / path).is_dir():
            shutil.rmtree(staging.path / path)
        else:
            staging.remove_file(path)
