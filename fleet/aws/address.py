"""The address of an image archive in a dataset, read narrowly: foreign text that becomes bucket and key of a request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from fleet.errors import InputError
from fleet.model.names import is_safe_path, visible
from fleet.model.tasks import Task

SCHEME = "s3://"
_BUCKET = re.compile(r"(?!.*\.\.)(?!\d+(?:\.\d+){3}\Z)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\Z")


@dataclass(frozen=True)
class Address:
    """One object: a bucket and a key that are safe to put into a request and to show."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """The address as people write it."""
        return f"{SCHEME}{self.bucket}/{self.key}"

    @property
    def prefix(self) -> str:
        """The directory of the key with its slash; empty at the top of the bucket."""
        return self.key[: self.key.rfind("/") + 1]

    @property
    def name(self) -> str:
        """The file name."""
        return self.key[len(self.prefix) :]


@dataclass(frozen=True)
class Wanted:
    """One archive that an assignment needs: where, for whom, and what the hosts' scripts call it."""

    address: Address
    tasks: tuple[str, ...]
    hosts: tuple[str, ...]
    built_name: str
    """`{repo with "/" as "_"}-{base_commit}.tar`; empty when the dataset does not say both."""


def address_of(uri: str, image: str) -> Address | None:
    """Return the archive that a dataset names, None where it is not in S3; InputError when that is no valid address.

    An address that ends in `/` is the directory of the archive, whose name is then made of repo and base_commit.
    """
    if not uri.lower().startswith(SCHEME):
        return None
    bucket, _, key = uri[len(SCHEME) :].partition("/")
    if key.endswith("/") or not key:
        if not image:
            raise InputError("names a directory, and without repo and base_commit the archive in it has no name")
        key += f"{image}.tar"
    if not _BUCKET.match(bucket):
        raise InputError(f"names {visible(bucket, 80)!r}, which is not the name of a bucket")
    if not is_safe_path(key):
        raise InputError(f"names {visible(key, 200)!r}, which is not the key of an image archive")
    return Address(bucket, key)


def wanted(pairs: Iterable[tuple[Task, str]]) -> tuple[list[Wanted], list[str]]:
    """Return each distinct archive once, and the tasks without one in S3; from tasks with their `image_storage_uri`."""
    found: dict[Address, tuple[dict[str, None], dict[str, None], str]] = {}
    without: dict[str, None] = {}
    for task, uri in pairs:
        known = bool(task.repo) and not task.image.endswith("-")
        try:
            address = address_of(uri, task.image if known else "")
        except InputError as error:
            raise InputError(f"{task.dataset_file}: image_storage_uri {error.message}") from None
        if address is None:
            without[task.label] = None
            continue
        labels, hosts, _ = found.setdefault(address, ({}, {}, f"{task.image}.tar" if known else ""))
        labels[task.label] = None
        hosts.update(dict.fromkeys(task.hosts))
    return [Wanted(one, tuple(labels), tuple(hosts), name) for one, (labels, hosts, name) in found.items()], list(without)
