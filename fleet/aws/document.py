"""The answer of `fleet images --json`, as a model so that its JSON Schema cannot drift from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field

from fleet.aws.address import Wanted
from fleet.model.base import Strict
from fleet.model.exitcodes import Exit
from fleet.model.findings import Finding, Mark
from fleet.model.records import ArchiveSeen

SCHEMA = "fleet.images/1"
CREDENTIALS = "credentials"
"""The one check whose warnings are advice; of the others a warning means "not known"."""
REPLACED = "archive-replaced"


class ArchiveState(StrEnum):
    """What is known of an archive."""

    OK = "ok"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    UNUSABLE = "unusable"
    UNKNOWN = "unknown"


class Archive(Strict):
    """One distinct image archive; what is None was not told."""

    uri: str
    state: ArchiveState
    bytes: int | None = None
    etag: str | None = None
    checksum: str | None = None
    """`sha256:…`, base64, as S3 keeps it; only where the upload asked for one."""
    modified: str | None = None
    tasks: tuple[str, ...]
    hosts: tuple[str, ...]
    """Hosts that may need it."""
    nearest: str | None = None
    """Of a missing one: the key there that is most like it."""
    message: str = ""
    fix: str = ""


class HostNeed(Strict):
    """What a host may have to fetch: of a shared place, every archive of its tasks."""

    host: str
    archives: int
    bytes: int
    """Of those whose size is known."""


class ImagesSummary(Strict):
    """How many archives are there, are not (or cannot be used), or are not known; `bytes` of those that are there."""

    archives: int
    ok: int
    missing: int
    unknown: int
    bytes: int


class ImagesDocument(Strict):
    """The document `fleet.images/1`."""

    schema_: Literal["fleet.images/1"] = Field(default="fleet.images/1", alias="schema")
    archives: tuple[Archive, ...]
    findings: tuple[Finding, ...]
    """About buckets and credentials; `subject` is the bucket."""
    hosts: tuple[HostNeed, ...]
    elsewhere: tuple[str, ...]
    """Tasks whose dataset names no archive in S3."""
    summary: ImagesSummary


def document_of(archives: Sequence[Archive], findings: Iterable[Finding], elsewhere: Iterable[str]) -> ImagesDocument:
    """Return the document for what was found."""
    there = [one for one in archives if one.state is ArchiveState.OK]
    unknown = sum(one.state is ArchiveState.UNKNOWN for one in archives)
    names = dict.fromkeys(host for one in archives for host in one.hosts)
    needs = {name: [one for one in archives if name in one.hosts] for name in names}
    return ImagesDocument(
        archives=tuple(archives),
        findings=tuple(findings),
        hosts=tuple(
            HostNeed(host=name, archives=len(own), bytes=sum(one.bytes or 0 for one in own)) for name, own in needs.items()
        ),
        elsewhere=tuple(elsewhere),
        summary=ImagesSummary(
            archives=len(archives),
            ok=len(there),
            missing=len(archives) - len(there) - unknown,
            unknown=unknown,
            bytes=sum(one.bytes or 0 for one in there),
        ),
    )


def exit_of(document: ImagesDocument) -> Exit:
    """Return what the document adds up to: FAILED, INCOMPLETE and SAFETY."""
    code = Exit.FAILED if document.summary.missing else Exit.OK
    unsure = any(one.mark is Mark.WARN and one.check != CREDENTIALS for one in document.findings)
    if document.summary.unknown or unsure:
        code |= Exit.INCOMPLETE
    if any(one.mark is Mark.FAIL for one in document.findings):
        code |= Exit.SAFETY
    return code


def seen_of(document: ImagesDocument) -> dict[str, ArchiveSeen]:
    """Return what is kept of the archives that are there, by address."""
    return {
        one.uri: ArchiveSeen(bytes=one.bytes, etag=one.etag, checksum=one.checksum)
        for one in document.archives
        if one.state is ArchiveState.OK
    }


def replaced(document: ImagesDocument, before: Mapping[str, ArchiveSeen]) -> list[Finding]:
    """Return a finding for each archive that is another one than the batch began with: its results would not compare."""
    found = []
    for uri, now in seen_of(document).items():
        was = before.get(uri)
        if was is None:
            continue
        pairs = [(was.etag, now.etag), (was.bytes, now.bytes), (was.checksum, now.checksum)]
        changed = [f"{old} is now {new}" for old, new in pairs if old is not None and new is not None and old != new]
        if changed:
            message = f"{uri} was replaced since this batch began: {', '.join(changed)}"
            fix = "find out by whom; replaced on purpose: give the new images a batch of their own with --batch NAME"
            found.append(Finding(check=REPLACED, mark=Mark.FAIL, message=message, fix=fix, subject=uri))
    return found


def archive_of(one: Wanted, state: ArchiveState, **known: object) -> Archive:
    """Return an archive in a state, for whom it is wanted."""
    return Archive.model_validate({"uri": one.address.uri, "state": state, "tasks": one.tasks, "hosts": one.hosts, **known})
