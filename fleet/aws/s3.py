"""The image preflight: is every archive of an assignment there, and who else can get at the bucket it is in?

One HEAD per distinct archive, at most 16 at a time, with the operator's credentials; one more of those that are there, without
any. Nothing is fetched, written or listed further than a name suggestion needs.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, TypeVar

from fleet.aws.address import Address, Wanted
from fleet.aws.client import AT_ONCE, Answer, Store
from fleet.aws.document import Archive, ArchiveState, ImagesDocument, archive_of, document_of
from fleet.aws.exposure import Bucket, look_at, read_by_everyone
from fleet.model.base import nearest
from fleet.model.findings import Finding
from fleet.model.names import plain

AGAIN = "the same command again"
MAX_PAGES = 5
"""Of 1,000 names each, read to find the one that was meant."""
_CHECKSUMS = ("SHA256", "SHA1", "CRC64NVME", "CRC32C", "CRC32")
_COLD = {"GLACIER", "DEEP_ARCHIVE"}
T = TypeVar("T")
R = TypeVar("R")


def preflight(archives: Sequence[Wanted], elsewhere: Iterable[str], store: Store) -> ImagesDocument:
    """Ask S3 for every archive and look at every bucket; raises InputError when the credentials themselves are refused."""
    by_bucket: dict[str, list[Address]] = {}
    for one in archives:
        by_bucket.setdefault(one.address.bucket, []).append(one.address)
    buckets = dict(zip(by_bucket, _together(lambda item: look_at(store, *item), list(by_bucket.items())), strict=True))
    silent = threading.Event()
    found = _together(lambda one: _archive(store, one, buckets[one.address.bucket], silent), archives)
    there = [one.address for one, archive in zip(archives, found, strict=True) if archive.state is ArchiveState.OK]
    public = _together(
        lambda address: store.everyone.ask_for("ETag", "head_object", Bucket=address.bucket, Key=address.key), there
    )
    findings: list[Finding] = []
    for name, bucket in buckets.items():
        asked = {address: answer for address, answer in zip(there, public, strict=True) if address.bucket == name}
        findings += [*bucket.findings, *read_by_everyone(name, asked)]
    return document_of(_with_nearest(store, archives, found, buckets), findings, elsewhere)


def _together(ask: Callable[[T], R], items: Sequence[T]) -> list[R]:
    with ThreadPoolExecutor(min(AT_ONCE, len(items)) or 1) as pool:
        return list(pool.map(ask, items))


def _archive(store: Store, one: Wanted, bucket: Bucket, silent: threading.Event) -> Archive:
    """Ask for one archive; once S3 has stopped answering the rest is not asked for, or each would cost its own patience."""
    if bucket.trouble:
        return archive_of(one, bucket.state, message=bucket.trouble, fix=bucket.fix)
    if silent.is_set():
        return archive_of(one, ArchiveState.UNKNOWN, message="not asked for: S3 stopped answering", fix=AGAIN)
    place = {"Bucket": one.address.bucket, "Key": one.address.key}
    answer = store.own.ask_for("ETag", "head_object", **place, ChecksumMode="ENABLED")
    if answer.given:
        return _there(one, answer.body)
    if answer.status == 404:
        return archive_of(one, ArchiveState.MISSING, message="is not there", fix=f"upload it: aws s3 cp FILE {one.address.uri}")
    if answer.denied:
        return _refused(one, answer, bucket.lists)
    if not answer.status:
        silent.set()
    return archive_of(one, ArchiveState.UNKNOWN, message=f"not known: S3 {answer.said}", fix=AGAIN)


def _refused(one: Wanted, answer: Answer, lists: bool) -> Archive:
    """HEAD has no words for a refusal, and S3 hides what is missing from those who may not list."""
    why = (
        "forbidden (GetObject, or the key that encrypts it)" if lists else "forbidden, or missing where listing is not granted"
    )
    fix = f"allow s3:GetObject on arn:aws:s3:::{one.address.bucket}/{one.address.prefix}* (docs/set-up-hosts.md), or upload it"
    return archive_of(one, ArchiveState.FORBIDDEN, message=f"{why}: S3 {answer.said}", fix=fix)


def _there(one: Wanted, body: Mapping[str, Any]) -> Archive:
    size = body.get("ContentLength")
    kept = next((name for name in _CHECKSUMS if body.get(f"Checksum{name}")), None)
    modified = body.get("LastModified")
    known: dict[str, object] = {
        "bytes": size if isinstance(size, int) and size >= 0 else None,
        "etag": plain(str(body.get("ETag") or ""), 100).strip('"') or None,
        "checksum": f"{kept.lower()}:{plain(str(body[f'Checksum{kept}']), 100)}" if kept else None,
        "modified": modified.isoformat() if isinstance(modified, datetime) else None,
    }
    if size == 0:
        fix = f"upload it again: aws s3 cp FILE {one.address.uri}"
        return archive_of(one, ArchiveState.UNUSABLE, **known, message="is empty", fix=fix)
    restored = 'ongoing-request="false"' in str(body.get("Restore") or "")
    cold = str(body.get("StorageClass") or "") in _COLD or bool(body.get("ArchiveStatus"))
    if cold and not restored:
        storage = plain(str(body.get("ArchiveStatus") or body.get("StorageClass")), 40)
        fix = f"aws s3api restore-object --bucket {one.address.bucket} --key {one.address.key} --restore-request Days=7"
        return archive_of(one, ArchiveState.UNUSABLE, **known, message=f"is in cold storage ({storage})", fix=fix)
    if one.built_name and one.address.name != one.built_name:
        known["message"] = f"hosts that make the name from repo and base_commit look for {one.built_name}"
    return archive_of(one, ArchiveState.OK, **known)


def _with_nearest(
    store: Store, archives: Sequence[Wanted], found: Sequence[Archive], buckets: Mapping[str, Bucket]
) -> list[Archive]:
    """Name beside each missing archive the one that may have been meant, where listing is allowed: names are made by hand."""
    missing = [one.address for one, archive in zip(archives, found, strict=True) if archive.state is ArchiveState.MISSING]
    places = list(dict.fromkeys((one.bucket, one.prefix) for one in missing if buckets[one.bucket].lists))
    names = dict(zip(places, _together(lambda place: _names(store, *place), places), strict=True))
    return [
        archive.model_copy(update={"nearest": _nearest(one.address, names.get((one.address.bucket, one.address.prefix), []))})
        if archive.state is ArchiveState.MISSING
        else archive
        for one, archive in zip(archives, found, strict=True)
    ]


def _names(store: Store, bucket: str, prefix: str) -> list[str]:
    names: list[str] = []
    more: dict[str, str] = {}
    for _ in range(MAX_PAGES):
        answer = store.own.ask("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter="/", **more)
        names += [str(item.get("Key", ""))[len(prefix) :] for item in answer.body.get("Contents") or ()]
        token = answer.body.get("NextContinuationToken")
        if not token:
            break
        more = {"ContinuationToken": token}
    return [name for name in names if name]


def _nearest(address: Address, names: Sequence[str]) -> str | None:
    """Return the key of the name most like the missing one; another commit of the same repository before anything else."""
    repo = address.name.rpartition("-")[0]
    same = [name for name in names if repo and name.startswith(f"{repo}-")]
    close = difflib.get_close_matches(address.name, same, n=1, cutoff=0.0)
    found = close[0] if close else nearest(address.name, list(names))
    return None if found is None else plain(address.prefix + found, 400)
