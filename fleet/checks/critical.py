"""The files that decide what is measured are the same everywhere.

What they should be: the digests listed in pipeline.yaml, else those of the reference directory, else what the majority of
the asked hosts has. Where nobody can say, that is said (⚠), not guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fleet.checks.base import UNKNOWN, Authority, Check, Expectation, Said, Subject, fail, ok, shown, warn, workdir_of
from fleet.checks.facts import FileFacts
from fleet.model.hosts import Host
from fleet.model.pipeline import CriticalFile, Pipeline


def paths_on_host(host: Host, pipeline: Pipeline) -> dict[str, str]:
    """Return every compared file's key (path below the work directory, or shipped path) → the path asked on the host."""
    workdir = workdir_of(host, pipeline)
    critical = {file.path: f"{workdir}/{file.path}" for file in pipeline.critical}
    return critical | {path: path for path in shipped_paths(pipeline)}


def shipped_root(pipeline: Pipeline) -> str:
    """Return the directory on a host that holds the pipeline's own files."""
    return f"~/.fleet/pipelines/{pipeline.name}"


def shipped_paths(pipeline: Pipeline) -> list[str]:
    """Return where the pipeline's own files live on a host."""
    return [f"{shipped_root(pipeline)}/{name}" for name in pipeline.ship]


def asks(host: Host, pipeline: Pipeline) -> Mapping[str, Any]:
    """Ask for the digests."""
    return {"files": list(paths_on_host(host, pipeline).values())}


def judge(subject: Subject) -> Iterable[Said]:
    """Compare each file with what is expected; agreeing files are one line."""
    listed = {file.path: file for file in subject.pipeline.critical}
    agreed: dict[str, int] = {}
    unknown: dict[str, list[tuple[str, FileFacts]]] = {}
    for key, path in paths_on_host(subject.host, subject.pipeline).items():
        expectation = expectation_of(listed.get(key), subject.expected.get(key))
        file = subject.facts.files.get(path)
        problem = _compare(subject, key, file, expectation)
        if problem is None and file is not None and expectation.authority is Authority.NOBODY:
            unknown.setdefault(expectation.source, []).append((key, file))
        elif problem is None:
            agreed[expectation.label] = agreed.get(expectation.label, 0) + 1
        else:
            yield problem
    # Files that nobody can judge for one reason are one thing to look at, however many they are.
    for why, files in unknown.items():
        shown_files = ", ".join(f"{key} is {short(file.sha256)}" for key, file in files)
        yield warn(f"{why}: {shown_files}", sync_fix(subject, Authority.NOBODY), files[0][0] if len(files) == 1 else None)
    for label, count in agreed.items():
        yield ok(f"{count} file{'s' * (count != 1)} as expected ({label})")
    if not listed and not subject.pipeline.ship:
        yield ok("no critical files")


def expectation_of(file: CriticalFile | None, elsewhere: Expectation | None) -> Expectation:
    """Return what a file should be: the digest listed in pipeline.yaml comes first."""
    if file is not None and (file.sha256 or file.md5):
        return Expectation(Authority.LISTED, "pipeline.yaml", sha256=file.sha256, md5=file.md5)
    return elsewhere or UNKNOWN


def _compare(subject: Subject, key: str, file: FileFacts | None, expected: Expectation) -> Said | None:
    """Return what is wrong with a file, None when nothing is or nobody can say."""
    fix = sync_fix(subject, expected.authority)
    if file is None or file.error:
        return fail(f"{key}: {shown(file.error) if file else 'no answer'}", fix, key)
    if not file.exists:
        return fail(f"{key} is not there", fix, key)
    if expected.authority is Authority.NOBODY:
        return None
    found, wanted = (file.sha256, expected.sha256) if expected.sha256 else (file.md5, expected.md5)
    if found == wanted:
        return None
    return fail(f"{key} is {short(found)}, not {short(wanted)} ({expected.source})", fix, key)


def sync_fix(subject: Subject, authority: Authority) -> str:
    """Return the `fleet sync` that repairs a critical file; it needs a checkout where nothing says what is right."""
    known = authority in (Authority.LISTED, Authority.REFERENCE)
    return f"fleet sync {subject.host.name}" + ("" if known else " --reference DIR (a checkout with the right files)")


def short(digest: str | None) -> str:
    """Return the first characters of a digest, enough to tell two apart."""
    return shown(digest, 64)[:12] or "unreadable"


CHECK = Check("consistency", "files", "the critical files are what they should be, and the same on all hosts", judge, asks)
