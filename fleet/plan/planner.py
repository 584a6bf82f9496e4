"""Which task goes to which host: a pure function of what is wanted, what is done, the hosts and the expected minutes.

Tasks of one image stay on one host, because an image is gigabytes to fetch and load. Groups are placed longest first, each
on the host that has least to do so far. The same input always gives the same plan.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Key(NamedTuple):
    """What makes two tasks the same work, as the assignment file knows it."""

    instance_id: str
    model: str
    run: int


@dataclass(frozen=True)
class Want:
    """One task that should have an accepted result."""

    key: Key
    dataset_file: Path
    image: str
    task_name: str = ""


@dataclass
class Share:
    """What one host gets."""

    host: str
    tasks: list[Want] = field(default_factory=list)
    minutes: float = 0.0

    @property
    def images(self) -> int:
        """How many images the host will need."""
        return len({want.image for want in self.tasks})


@dataclass(frozen=True)
class Plan:
    """Shares in the order of the hosts, and the count that tells what was left out."""

    shares: tuple[Share, ...]
    wanted: int
    missing: int

    @property
    def minutes(self) -> float:
        """Expected time until the last host is done."""
        return max((share.minutes for share in self.shares), default=0.0)


@dataclass(frozen=True)
class History:
    """Minutes that earlier evals took, by (instance, model)."""

    by_pair: Mapping[tuple[str, str], float] = field(default_factory=dict)
    default: float = 20.0

    def minutes(self, key: Key) -> float:
        """Return the expected minutes of a task: as this pair took before, else as the instance or the model did, else all."""
        known = self.by_pair.get((key.instance_id, key.model))
        if known is not None:
            return known
        for index, name in ((0, key.instance_id), (1, key.model)):
            similar = sorted(minutes for pair, minutes in self.by_pair.items() if pair[index] == name)
            if similar:
                return similar[len(similar) // 2]
        return self.default


def make_plan(wants: Sequence[Want], done: Collection[Key], hosts: Sequence[str], history: History) -> Plan:
    """Return the missing tasks spread over `hosts`; with one host, or a shared pool, they only get their order."""
    missing = [want for want in wants if want.key not in done]
    minutes = {want.key: history.minutes(want.key) for want in missing}
    groups: dict[str, list[Want]] = {}
    for want in missing:
        groups.setdefault(want.image, []).append(want)
    weights = {image: sum(minutes[want.key] for want in group) for image, group in groups.items()}
    shares = [Share(host) for host in hosts]
    for image in sorted(groups, key=lambda image: (-weights[image], image)):
        share = min(shares, key=lambda share: share.minutes)
        # The first run of everything comes before the second of anything.
        share.tasks += sorted(groups[image], key=lambda want: (want.key.run, want.key))
        share.minutes += weights[image]
    return Plan(tuple(shares), len(wants), len(missing))
