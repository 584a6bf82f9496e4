"""`~/.fleet` holds the lock and the attempts: the home must be writable, ours, and on a local filesystem."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.checks.base import Check, Said, Subject, fail, ok, shown, typed, unanswered

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre", "fuse.sshfs", "gpfs"})
"""Filesystems on which flock is not one lock for all machines, or not a lock at all."""


def judge(subject: Subject) -> Iterable[Said]:
    """Refuse what would make the lock or the durable records unsafe."""
    home = subject.facts.home
    name = subject.host.name
    if home is None:
        yield unanswered("the home directory")
    elif home.error or not home.writable:
        why = f": {shown(home.error)}" if home.error else ""
        yield fail(
            f"{shown(home.path)} cannot be used for fleet's records{why}",
            f"on {name}: sudo chown -R $USER ~/.fleet && chmod 700 ~/.fleet (and check: mount | grep ' ro,')",
        )
    elif home.fstype in NETWORK:
        yield fail(
            f"{shown(home.path)} is on {home.fstype}; a lock there does not keep two evals apart",
            f"give {typed(subject.facts.user, 'the user')} a home on a local disk of {name}",
        )
    else:
        yield ok(f"{shown(home.path)} ({shown(home.fstype, 20) or 'unknown filesystem'})")


CHECK = Check("home", "setup", "the home is writable, owned by the user, and not on a network filesystem", judge)
