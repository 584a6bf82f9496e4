"""Puts the critical files and the pipelines' own files on hosts, with backup, verification and rollback."""

from __future__ import annotations

from fleet.sync.work import Bundle, bundle_of, rollback_hosts, sync_hosts

__all__ = ["Bundle", "bundle_of", "rollback_hosts", "sync_hosts"]
