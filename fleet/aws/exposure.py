"""Who can get at a bucket: everybody without credentials, and what the operator's own can do beyond reading the archives.

Every question leaves the bucket as it is. Whether a write would be let in is asked by completing an upload that does not exist:
S3 says "no such upload" to those who may write there, and "access denied" to all others.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.aws.address import Address
from fleet.aws.client import Answer, Store, Viewer
from fleet.aws.document import CREDENTIALS, ArchiveState
from fleet.aws.settings import Settings, read_settings
from fleet.model.findings import Finding, Mark
from fleet.model.names import plain

MAX_PLACES = 16
"""Directories of archives asked about one by one; more are one author's, made alike."""
LIST, READ, WRITE = "anonymous-list", "anonymous-read", "anonymous-write"
_AFTER = "\U0010fffd"
"""Sorts behind every key that begins as the text before it."""
_ETAG = "d41d8cd98f00b204e9800998ecf8427e"


@dataclass(frozen=True)
class Bucket:
    """What was learned of a bucket before its archives are asked for."""

    lists: bool
    """Whether the operator's credentials may list it."""
    findings: tuple[Finding, ...] = ()
    state: ArchiveState = ArchiveState.UNKNOWN
    trouble: str = ""
    """Why its archives need not be asked for: there is no such bucket, or nobody answers."""
    fix: str = ""


def look_at(store: Store, bucket: str, addresses: Sequence[Address]) -> Bucket:
    """Ask what can be done to a bucket, at the places where `addresses` are."""
    every = list(dict.fromkeys(address.prefix for address in addresses))
    prefixes = every[:MAX_PLACES]
    listing = _listing(store.own, bucket, prefixes)
    if listing.code == "NoSuchBucket":
        fix = "the datasets' image_storage_uri, or AWS_ENDPOINT_URL"
        return Bucket(False, state=ArchiveState.MISSING, trouble=f"there is no bucket {bucket}", fix=fix)
    if not listing.status:
        fix = "check the network, AWS_ENDPOINT_URL and the region, then the same command again"
        return Bucket(False, trouble=f"not known, S3 gave no answer: {listing.message}", fix=fix)
    settings = read_settings(store.own, bucket)
    findings = [
        _anonymous_list(_listing(store.everyone, bucket, prefixes), bucket, settings),
        *(_anonymous_write(store, bucket, prefix, settings) for prefix in prefixes),
        _credentials(store.own, bucket, every, listing, settings),
    ]
    return Bucket(listing.given, tuple(finding for finding in findings if finding is not None))


def read_by_everyone(bucket: str, asked: Mapping[Address, Answer]) -> list[Finding]:
    """Return what is wrong when archives could be read without credentials."""
    read = [address.key for address, answer in asked.items() if answer.given]
    if read:
        more = f" and {len(read) - 1} more" if len(read) > 1 else ""
        message = f"everyone can read {read[0]}{more} in {bucket}, without any credentials"
        return [_open(READ, bucket, message)]
    unsure = next((answer for answer in asked.values() if not answer.denied and answer.status != 404), None)
    return [] if unsure is None else [_unsure(READ, bucket, f"whether everyone can read in {bucket}", unsure)]


def _listing(viewer: Viewer, bucket: str, prefixes: Sequence[str]) -> Answer:
    """Return the answer to listing the bucket, or where that is refused, a directory of archives."""
    answer = _list(viewer, bucket, "")
    for prefix in prefixes if answer.denied else ():
        inside = _list(viewer, bucket, prefix) if prefix else answer
        if inside.given:
            return inside
    return answer


def _list(viewer: Viewer, bucket: str, prefix: str) -> Answer:
    return viewer.ask_for("Name", "list_objects_v2", Bucket=bucket, MaxKeys=1, Prefix=prefix)


def _write(viewer: Viewer, bucket: str, prefix: str) -> Answer:
    """Complete an upload that nobody began, of a key that nobody has; neither comes into being by that."""
    name = f"{prefix}fleet-preflight-{secrets.token_hex(8)}"
    parts = {"Parts": [{"PartNumber": 1, "ETag": _ETAG}]}
    return viewer.ask(
        "complete_multipart_upload", Bucket=bucket, Key=name, UploadId=secrets.token_hex(16), MultipartUpload=parts
    )


def _may_write(answer: Answer) -> bool:
    return answer.code == "NoSuchUpload"


def _anonymous_list(answer: Answer, bucket: str, settings: Settings) -> Finding | None:
    if answer.given:
        return _open(LIST, bucket, f"everyone can list {bucket}, without any credentials")
    if settings.acl_for_everyone & {"READ", "FULL_CONTROL"}:
        return _open(LIST, bucket, f"the ACL of {bucket} lets everyone, or every AWS account, list it")
    return None if answer.denied else _unsure(LIST, bucket, f"whether everyone can list {bucket}", answer)


def _anonymous_write(store: Store, bucket: str, prefix: str, settings: Settings) -> Finding | None:
    """Judge by the request first, then by what the bucket's settings say, for the request asks about one key only."""
    answer = _write(store.everyone, bucket, prefix)
    where = f"{bucket}/{prefix}"
    if _may_write(answer):
        return _open(WRITE, bucket, f"everyone can write to {where}, without any credentials: any archive may be replaced")
    if settings.acl_for_everyone & {"WRITE", "WRITE_ACP", "FULL_CONTROL"}:
        return _open(
            WRITE, bucket, f"the ACL of {bucket} lets everyone, or every AWS account, write: any archive may be replaced"
        )
    if settings.policy_lets_everyone_write:
        actions = ", ".join(settings.policy_lets_everyone_write)
        return _open(WRITE, bucket, f"the policy of {bucket} lets everyone write ({actions}): any archive may be replaced")
    if answer.denied or settings.closed:
        return None
    return _unsure(WRITE, bucket, f"whether everyone can write to {where}", answer)


def _credentials(own: Viewer, bucket: str, prefixes: Sequence[str], listing: Answer, settings: Settings) -> Finding | None:
    """Say what the operator's credentials can do that reading the archives does not need."""
    can = []
    writable = [prefix for prefix in prefixes[:MAX_PLACES] if _may_write(_write(own, bucket, prefix))]
    if writable:
        can.append(f"write to {bucket}/{writable[0]}, so replace archives")
    if "Buckets" in (buckets := own.ask("list_buckets")).body and buckets.given:
        can.append("list all buckets of the account")
    if listing.given:
        can.append(f"list {bucket}")
        outside = _readable_outside(own, bucket, prefixes)
        can += [f"read {outside}, which no task needs"] if outside else []
    can += [f"read the {name} of {bucket}" for name in settings.readable]
    if not can:
        return None
    wanted = " ".join(f"arn:aws:s3:::{bucket}/{prefix}*" for prefix in prefixes[:MAX_PLACES])
    return Finding(
        check=CREDENTIALS,
        mark=Mark.WARN,
        message=f"these credentials can do more than read the archives: {'; '.join(can)}",
        fix=f"hosts need s3:GetObject on {wanted} and nothing else (docs/set-up-hosts.md)",
        subject=bucket,
    )


def _readable_outside(own: Viewer, bucket: str, prefixes: Sequence[str]) -> str | None:
    """Return a key that is in no directory of archives and can be read all the same; looked for before and behind these."""
    if "" in prefixes:
        return None
    for start in ({}, *({"StartAfter": prefix + _AFTER} for prefix in prefixes[:MAX_PLACES])):
        for item in own.ask("list_objects_v2", Bucket=bucket, MaxKeys=1, **start).body.get("Contents") or ():
            key = str(item.get("Key", ""))
            if key and not key.startswith(tuple(prefixes)) and own.ask_for("ETag", "head_object", Bucket=bucket, Key=key).given:
                return plain(key, 200)
    return None


def _open(check: str, bucket: str, message: str) -> Finding:
    fix = f"aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration " + ",".join(
        f"{name}=true" for name in ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    )
    return Finding(check=check, mark=Mark.FAIL, message=message, fix=fix, subject=bucket)


def _unsure(check: str, bucket: str, what: str, answer: Answer) -> Finding:
    fix = f"the same command again, or ask the bucket's owner for: aws s3api get-public-access-block --bucket {bucket}"
    return Finding(check=check, mark=Mark.WARN, message=f"not known {what}: S3 {answer.said}", fix=fix, subject=bucket)
