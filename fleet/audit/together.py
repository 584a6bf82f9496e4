"""Results held against each other: equal histories and patches, contradicting grades, drifted code. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence

from fleet.audit.document import BatchFinding
from fleet.audit.judged import Judged
from fleet.audit.outliers import outliers
from fleet.model.names import plain
from fleet.quality import Kind

MIN_HISTORY = 5
"""Shorter histories are alike because nothing happened in them."""


def findings(results: Sequence[Judged]) -> tuple[BatchFinding, ...]:
    """Return everything that is odd about these results together."""
    return (
        *_shared_trajectories(results),
        *_shared_patches(results),
        *_graded_twice(results),
        *_drifted_code(results),
        *outliers(results),
    )


def _groups(results: Iterable[Judged], key: Callable[[Judged], Hashable]) -> list[list[Judged]]:
    found: dict[Hashable, list[Judged]] = defaultdict(list)
    for one in results:
        name = key(one)
        if name is not None:
            found[name].append(one)
    return [group for group in found.values() if len(group) > 1]


def _shared_trajectories(results: Sequence[Judged]) -> Iterator[BatchFinding]:
    long_enough = [one for one in results if (one.verdict.facts.history_entries or 0) >= MIN_HISTORY]
    for group in _groups(long_enough, lambda one: one.verdict.fingerprints.get("history")):
        instances = _names(one.instance for one in group)
        if len(instances) > 1:
            words = f"{len(group)} results of {len(instances)} instances ({_some(instances)}) hold the very same history"
            yield _finding("trajectory-shared", words, group, "fleet retry TASK")


def _shared_patches(results: Sequence[Judged]) -> Iterator[BatchFinding]:
    for group in _groups(results, lambda one: one.verdict.fingerprints.get("patch")):
        instances, models = _names(one.instance for one in group), _names(filter(None, map(_model, group)))
        if len(instances) > 1:
            words = f"{len(group)} results of {len(instances)} instances ({_some(instances)}) hold the very same patch"
        elif len(models) > 1:
            words = f"{_some(models)} wrote the very same patch for {instances[0]}"
        else:
            continue
        yield _finding("patch-shared", words, group)


def _model(one: Judged) -> str:
    """Return the model as the harness spells it in the names of directories."""
    return (one.verdict.model or "").replace("/", "__")


def _graded_twice(results: Sequence[Judged]) -> Iterator[BatchFinding]:
    for group in _groups(results, lambda one: one.run if one.verdict.instance_id and one.run[2] is not None else None):
        if len(_said(group)) > 1:
            words = f"{len(group)} results of {group[0].instance} (one run of one model) say both resolved and not resolved"
            yield _finding("graded-twice", words, group, "fleet why TASK")
    for group in _groups([one for one in results if one.run[2] is None], _patch):
        if len(_said(group)) > 1:
            words = f"{len(group)} results of {group[0].instance} hold the same patch, resolved in one and not in another"
            yield _finding("graded-twice", words, group)
    graded: dict[str | None, list[Judged]] = defaultdict(list)
    for one in results:
        if one.verdict.kind != Kind.RUN_REPORT and one.verdict.facts.resolved is not None:
            graded[one.verdict.instance_id].append(one)
    for claim in (one for one in results if one.verdict.kind == Kind.RUN_REPORT):
        group = graded.get(claim.verdict.instance_id, [])
        if group and claim.verdict.facts.resolved not in (None, *_said(group)):
            words = f"a run report says that {claim.instance} is {_resolved(claim)}; {len(group)} graded here say the opposite"
            yield _finding("graded-twice", words, [claim, *group])


def _patch(one: Judged) -> tuple[str, str] | None:
    patch, instance = one.verdict.fingerprints.get("patch"), one.verdict.instance_id
    return (instance, patch) if instance and patch else None


def _said(group: Iterable[Judged]) -> set[bool]:
    return {one.verdict.facts.resolved for one in group if one.verdict.facts.resolved is not None}


def _resolved(one: Judged) -> str:
    return "resolved" if one.verdict.facts.resolved else "not resolved"


def _drifted_code(results: Sequence[Judged]) -> Iterator[BatchFinding]:
    """Compare the digests of critical files between hosts, pipeline by pipeline and file by file."""
    versions: dict[tuple[str, str], dict[str | None, list[Judged]]] = defaultdict(lambda: defaultdict(list))
    for one in results:
        for path, digest in (one.provenance.code if one.provenance else {}).items():
            versions[(one.provenance.pipeline if one.provenance else None) or "", path][digest].append(one)
    for (_, path), found in sorted(versions.items()):
        if len(found) > 1:
            parts = [
                f"{digest[:12] if digest else 'not there'} on {_some(_names(_host(one) for one in group))}"
                for digest, group in sorted(found.items(), key=lambda item: -len(item[1]))
            ]
            fewest = min(found.values(), key=len)
            hosts = " ".join(_names(_host(one) for one in fewest)[:6])
            yield _finding("code-drift", f"{plain(path, 200)} was {', '.join(parts)}", fewest, f"fleet sync {hosts}")


def _host(one: Judged) -> str:
    return (one.provenance.host if one.provenance else None) or "an unknown host"


def _names(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(plain(name, 120) for name in names))


def _some(names: Sequence[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")


def _finding(code: str, words: str, group: Sequence[Judged], fix: str = "") -> BatchFinding:
    label = next((one.provenance.label for one in group if one.provenance and one.provenance.label), None)
    fix = fix.replace("TASK", label) if label else fix if "TASK" not in fix else ""
    return BatchFinding(code=code, message=f"{words}.", paths=tuple(one.verdict.path for one in group), fix=fix)
