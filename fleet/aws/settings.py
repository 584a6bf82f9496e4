"""What a bucket's own settings say about everybody, as far as the credentials may read them; they need not be able to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fleet.aws.client import Viewer
from fleet.model.names import plain

GROUPS = ("/groups/global/AllUsers", "/groups/global/AuthenticatedUsers")
"""Everybody, and everybody with any AWS account at all: to a stranger the second is one sign-up more."""
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_WRITES = ("s3:putobject", "s3:deleteobject", "s3:putobjectacl", "s3:putbucketpolicy", "s3:putbucketacl")


@dataclass(frozen=True)
class Settings:
    """The settings that were readable; what is blocked has no effect and is left out."""

    readable: tuple[str, ...] = ()
    """Names of those that the credentials may read, of which they need none."""
    acl_for_everyone: frozenset[str] = frozenset()
    """Permissions that the ACL gives to everybody: READ, WRITE, READ_ACP, WRITE_ACP, FULL_CONTROL."""
    policy_lets_everyone_write: tuple[str, ...] = ()
    """Actions that the policy allows to everybody without a condition."""
    closed: bool = False
    """Whether the public access block overrules both."""


def read_settings(own: Viewer, bucket: str) -> Settings:
    """Read ACL, policy and public access block; a store that knows none of them answers something else, which is ignored."""
    acl = own.ask("get_bucket_acl", Bucket=bucket)
    policy = own.ask("get_bucket_policy", Bucket=bucket)
    block = own.ask("get_public_access_block", Bucket=bucket)
    blocks = block.body.get("PublicAccessBlockConfiguration") or {}
    statements = list(_statements(policy.body.get("Policy")))
    readable = {
        "ACL": "Grants" in acl.body,
        "policy": bool(statements) or policy.code == "NoSuchBucketPolicy",
        "public access block": bool(blocks) or block.code == "NoSuchPublicAccessBlockConfiguration",
    }
    return Settings(
        readable=tuple(name for name, known in readable.items() if known),
        acl_for_everyone=frozenset() if blocks.get("IgnorePublicAcls") is True else frozenset(_for_everyone(acl.body)),
        policy_lets_everyone_write=() if blocks.get("RestrictPublicBuckets") is True else tuple(_public_writes(statements)),
        closed=all(blocks.get(name) is True for name in _BLOCKS),
    )


def _for_everyone(acl: Mapping[str, Any]) -> Iterator[str]:
    for grant in acl.get("Grants") or ():
        if str(grant.get("Grantee", {}).get("URI", "")).endswith(GROUPS):
            yield str(grant.get("Permission", ""))


def _statements(policy: object) -> Iterator[Mapping[str, Any]]:
    try:
        document = json.loads(policy) if isinstance(policy, str) else None
    except (ValueError, RecursionError):
        return
    found = document.get("Statement") if isinstance(document, dict) else None
    for statement in found if isinstance(found, list) else [found]:
        if isinstance(statement, dict):
            yield statement


def _public_writes(statements: list[Mapping[str, Any]]) -> Iterator[str]:
    for statement in statements:
        principal = statement.get("Principal")
        aws = principal.get("AWS") if isinstance(principal, dict) else principal
        public = aws == "*" or (isinstance(aws, list) and "*" in aws)
        if statement.get("Effect") != "Allow" or not public or statement.get("Condition"):
            continue
        actions = statement.get("Action")
        for action in actions if isinstance(actions, list) else [actions]:
            if isinstance(action, str) and _covers_write(action.lower()):
                yield plain(action, 60)


def _covers_write(action: str) -> bool:
    """Tell whether an action of a policy, which may end in or hold `*`, allows a write."""
    from fnmatch import fnmatchcase

    return any(fnmatchcase(write, action) for write in _WRITES)
