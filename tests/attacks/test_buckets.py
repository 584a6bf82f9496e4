"""A bucket that is open to others, and credentials that can do too much, are seen before any host loads an image from there.

Whoever can write to the bucket decides what code every eval runs; whoever can list and read it has the images. Nothing that
fleet asks changes a bucket, which each of these tests ends with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.aws.client import open_store
from fleet.model.findings import Mark
from tests.support.archives import BUCKET, PREFIX, READ, Desk, key, uri
from tests.support.buckets import Front, error, rclone_server
from tests.support.catalogue import attack

ARN = f"arn:aws:s3:::{BUCKET}"
WRITES = ["s3:PutObject", "s3:DeleteObject"]
CLOSED = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)


@pytest.fixture
def bucket(store: Front, desk: Desk) -> Iterator[Front]:
    """Return a private bucket with an archive and something else; fails when a request would have changed it."""
    s3 = store.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key=key(1), Body=b"layers")
    s3.put_object(Bucket=BUCKET, Key="payroll/2026.csv", Body=b"names")
    desk.sign_as(store.user("host", READ))
    store.asked.clear()
    yield store
    assert len(store.asked) > 3
    assert [one for one in store.asked if one.changes] == []
    assert {one["Key"]: one["Size"] for one in s3.list_objects_v2(Bucket=BUCKET)["Contents"]} == {
        key(1): 6, "payroll/2026.csv": 5,
    }  # fmt: skip
    assert "Uploads" not in s3.list_multipart_uploads(Bucket=BUCKET)


def findings(desk: Desk) -> tuple[int, dict[str, dict[str, Any]]]:
    """Run `fleet images` and return its code and its findings by check; the archive itself is always there."""
    code, document = desk.images(desk.assign([uri(1)]))
    assert [one["state"] for one in document["archives"]] == ["ok"]
    assert {one["subject"] for one in document["findings"]} <= {BUCKET}
    return code, {one["check"]: one for one in document["findings"]}


def allow(store: Front, **statement: Any) -> None:
    """Give the bucket a policy of one statement for everybody."""
    statement = {"Effect": "Allow", "Principal": "*", "Resource": [ARN, f"{ARN}/*"]} | statement
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    store.client("s3").put_bucket_policy(Bucket=BUCKET, Policy=policy)


@attack("S44")
def test_a_private_bucket_and_a_key_that_reads_the_archives_and_nothing_else_are_no_finding(bucket: Front, desk: Desk) -> None:
    assert findings(desk) == (0, {})
    probes = {one.method for one in bucket.asked if not one.signed}
    assert probes == {"GET", "HEAD", "POST"}, "everybody was asked to list, to read and to write"


@attack("S44")
@pytest.mark.parametrize(
    ("allowed", "check"),
    [
        (("s3:ListBucket", ARN), "anonymous-list"),
        (("s3:GetObject", f"{ARN}/*"), "anonymous-read"),
        (("s3:GetObject", f"{ARN}/{key(1)}"), "anonymous-read"),
    ],
)
def test_what_everybody_can_do_is_a_safety_finding(bucket: Front, desk: Desk, allowed: tuple[str, str], check: str) -> None:
    bucket.everyone_may(allowed)
    # What asks with its own credentials alone sees nothing wrong.
    assert open_store().own.ask("head_object", Bucket=BUCKET, Key=key(1)).given
    code, found = findings(desk)
    assert code == 16
    assert list(found) == [check]
    assert found[check]["mark"] == Mark.FAIL
    assert "everyone can" in found[check]["message"]
    assert "put-public-access-block" in found[check]["fix"]


@attack("S44")
def test_a_directory_that_everybody_can_list_is_found_in_a_bucket_that_they_cannot(bucket: Front, desk: Desk) -> None:
    def only_inside(asked: Any) -> tuple[int, bytes] | None:
        if "list-type" not in asked.query or asked.signed or "prefix=eval" not in asked.query:
            return None
        return 200, b"<ListBucketResult><Name>images</Name><KeyCount>0</KeyCount></ListBucketResult>"

    bucket.instead = only_inside
    code, found = findings(desk)
    assert (code, list(found)) == (16, ["anonymous-list"])


def grant(store: Front, group: str, permission: str) -> None:
    """Give a group of everybody a permission in the bucket's ACL."""
    s3 = store.client("s3")
    owner = s3.get_bucket_acl(Bucket=BUCKET)["Owner"]
    grantee = {"Type": "Group", "URI": f"http://acs.amazonaws.com/groups/global/{group}"}
    acl = {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": permission}]}
    s3.put_bucket_acl(Bucket=BUCKET, AccessControlPolicy=acl)


@attack("S44")
@pytest.mark.parametrize("group", ["AllUsers", "AuthenticatedUsers"])
@pytest.mark.parametrize(
    ("permission", "checks"),
    [
        ("READ", {"anonymous-list"}),
        ("WRITE", {"anonymous-write"}),
        ("WRITE_ACP", {"anonymous-write"}),
        ("FULL_CONTROL", {"anonymous-list", "anonymous-write"}),
    ],
)
def test_an_acl_for_everybody_is_found_where_it_can_be_read(
    bucket: Front, desk: Desk, group: str, permission: str, checks: set[str]
) -> None:
    grant(bucket, group, permission)
    assert findings(desk)[0] == 0, "the key that may not read the ACL knows nothing of it"
    desk.sign_as(bucket.user("host", READ, ("s3:GetBucketAcl", ARN)))
    code, found = findings(desk)
    assert code == 16
    assert set(found) - {"credentials"} == checks
    assert all("lets everyone, or every AWS account," in found[check]["message"] for check in checks)


@attack("S44")
@pytest.mark.parametrize(
    ("action", "principal"),
    [
        ("s3:PutObject", "*"),
        (["s3:GetObject", "s3:Put*"], {"AWS": "*"}),
        ("s3:*", {"AWS": ["arn:aws:iam::123456789012:root", "*"]}),
        ("*", "*"),
        ("S3:DeleteObject", {"AWS": "*"}),
    ],
)
def test_a_policy_that_lets_everybody_write_is_found_where_it_can_be_read(
    bucket: Front, desk: Desk, action: Any, principal: Any
) -> None:
    allow(bucket, Action=action, Principal=principal)
    desk.sign_as(bucket.user("host", READ, ("s3:GetBucketPolicy", ARN)))
    code, found = findings(desk)
    assert code == 16
    assert set(found) == {"anonymous-write", "credentials"}
    assert "any archive may be replaced" in found["anonymous-write"]["message"]


@attack("S44")
@pytest.mark.parametrize(
    "harmless",
    [
        {"Action": "s3:PutObject", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}},
        {"Action": "s3:PutObject", "Effect": "Deny"},
        {"Action": ["s3:GetObjectTagging", "s3:GetBucketLocation"]},
    ],
)
def test_a_policy_that_lets_nobody_write_is_no_finding(bucket: Front, desk: Desk, harmless: dict[str, Any]) -> None:
    allow(bucket, **harmless)
    desk.sign_as(bucket.user("host", READ, ("s3:GetBucketPolicy", ARN)))
    code, found = findings(desk)
    assert (code, set(found)) == (0, {"credentials"})


@attack("S44")
def test_settings_that_a_public_access_block_overrules_are_no_finding(bucket: Front, desk: Desk) -> None:
    s3 = bucket.client("s3")
    grant(bucket, "AllUsers", "FULL_CONTROL")
    allow(bucket, Action="s3:PutObject")
    # moto gives the block to whoever may list; AWS asks for s3:GetBucketPublicAccessBlock.
    settings = ["s3:GetBucketPolicy", "s3:GetBucketAcl", "s3:GetBucketPublicAccessBlock", "s3:ListBucket"]
    desk.sign_as(bucket.user("host", READ, (settings, ARN)))
    assert findings(desk)[0] == 16
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=CLOSED)
    code, found = findings(desk)
    assert (code, set(found)) == (0, {"credentials"})


@attack("S44")
def test_credentials_that_can_do_more_than_read_the_archives_are_named_with_what_they_can_do(bucket: Front, desk: Desk) -> None:
    desk.sign_as(bucket.user("wide", (["s3:Get*", "s3:List*"], "*")))
    code, found = findings(desk)
    assert code == 0, "too much is a warning: it harms whoever loses the key, not this batch"
    assert found["credentials"]["mark"] == Mark.WARN
    message = found["credentials"]["message"]
    for can in (
        "list all buckets",
        f"list {BUCKET}",
        "read payroll/2026.csv",
        "read the ACL",
        "read the policy",
        "access block",
    ):
        assert can in message
    assert f"hosts need s3:GetObject on {ARN}/{PREFIX}* and nothing else" in found["credentials"]["fix"]
    code, out, _ = desk.fleet("images", desk.assign([uri(1)]))
    assert code == 0
    assert "⚠ credentials: these credentials can do more" in out
    desk.sign_as(bucket.user("lister", READ, ("s3:ListBucket", ARN)))
    message = findings(desk)[1]["credentials"]["message"]
    assert f"the archives: list {BUCKET}" in message
    assert not any(word in message for word in ("write", "payroll", "all buckets", "ACL", "policy"))


@attack("S44")
def test_an_answer_that_settles_nothing_is_not_taken_for_a_closed_bucket(bucket: Front, desk: Desk) -> None:
    bucket.instead = lambda asked: None if asked.signed else (500, error("InternalError"))
    code, found = findings(desk)
    assert code == 4
    assert set(found) == {"anonymous-list", "anonymous-read", "anonymous-write"}
    assert {one["mark"] for one in found.values()} == {Mark.WARN}
    assert all("not known" in one["message"] and "answered 500" in one["message"] for one in found.values())


# --- another server, which by itself lets everybody in or nobody


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    """Return a directory of buckets; fails when a file in it was changed, added or removed."""
    directory = tmp_path / "buckets"
    for path, body in ((f"{BUCKET}/{key(1)}", b"layers"), (f"{BUCKET}/payroll/2026.csv", b"names")):
        (directory / path).parent.mkdir(parents=True)
        (directory / path).write_bytes(body)

    def digest() -> dict[str, str]:
        return {
            str(one.relative_to(directory)): hashlib.sha256(one.read_bytes()).hexdigest()
            for one in directory.rglob("*")
            if one.is_file()
        }

    before = digest()
    yield directory
    assert digest() == before


@attack("S44")
def test_a_store_open_to_everybody_is_found_by_all_three_questions(files: Path, desk: Desk) -> None:
    desk.sign_as(("AKIATEST", "secret-of-a-test"))
    with rclone_server(files, key=None) as url:
        desk.monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        code, found = findings(desk)
    assert code == 16
    assert {check for check, one in found.items() if one["mark"] == Mark.FAIL} == {
        "anonymous-list", "anonymous-read", "anonymous-write",
    }  # fmt: skip


@attack("S44")
def test_a_store_closed_to_strangers_is_no_finding_and_a_key_that_may_write_is_a_warning(files: Path, desk: Desk) -> None:
    desk.sign_as(("AKIATEST", "secret-of-a-test"))
    with rclone_server(files, key=("AKIATEST", "secret-of-a-test")) as url:
        desk.monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        code, found = findings(desk)
        assert (code, set(found)) == (0, {"credentials"})
        assert f"write to {BUCKET}/{PREFIX}, so replace archives" in found["credentials"]["message"]
        assert "read payroll/2026.csv" in found["credentials"]["message"]
        desk.sign_as(("AKIATEST", "another"))
        assert desk.fleet("images", desk.assign([uri(1)]))[0] == 1
