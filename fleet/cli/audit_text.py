"""The batch as a whole, below the verdicts of `fleet validate`."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.audit.document import Accounts, Audit
from fleet.cli.output import Style

SHOWN = 12
"""Findings and names that the page lists; the document has all."""


def audit_lines(audit: Audit, style: Style) -> Iterator[str]:
    """Yield a paragraph of findings, and one of accounts per batch."""
    if audit.findings:
        lines = [style.bold("Together")]
        for finding in audit.findings[:SHOWN]:
            lines.append(f"  {style.yellow('⚠')} {finding.code}: {finding.message}")
            lines += [f"      {path}" for path in finding.paths[:4]]
            if finding.fix:
                lines.append(f"      → {finding.fix}")
        if len(audit.findings) > SHOWN:
            lines.append(f"  … and {len(audit.findings) - SHOWN} more with --json")
        yield "\n".join(lines)
    for one in audit.accounts:
        yield "\n".join(_account(one))


def _account(one: Accounts) -> Iterator[str]:
    parts = " + ".join(f"{number} {name}" for name, number in one.buckets.items()) or "0"
    yield f"batch {one.batch}: {one.assigned} assigned = {parts}"
    if one.uncollected:
        yield f"  collected by the journal, and not here: {', '.join(one.uncollected[:SHOWN])}"
        yield f"      → fleet collect {one.batch} --again"
    if one.strangers:
        yield f"  here, and of no task of the batch: {', '.join(one.strangers[:SHOWN])}"
